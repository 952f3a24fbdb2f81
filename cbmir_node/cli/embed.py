"""``cbmir-node embed``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import numpy as np

from cbmir_node.archive.header import read_header
from cbmir_node.catalog.vectors.rows import FrameVectors
from cbmir_node.cli.options import dicom_files, on_terminal, settings_options
from cbmir_node.config import Settings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import shipped_model
from cbmir_node.errors import InvalidObjectError, NoCatalogError, PixelError
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.stores import open_stores
from cbmir_node.vectorizing import frame_vectors


@click.command(short_help="Compute vectors of DICOM files.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The .npz file to write.",
)
@click.option(
    "--model",
    "model_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An ONNX file.  [default: the model in use, or the shipped one]",
)
@settings_options
def embed(
    settings: Settings, paths: tuple[Path, ...], output: Path, model_path: Path | None
) -> None:
    """Compute the vectors of DICOM files and folders; nothing is stored in the node.

    The .npz file has one row per embedded frame: sop_instance_uid, frame_number, embedding
    (float32 [N, D]) and, where the model has them, label, probability and code (uint8, packed
    bits). Files without a picture are listed and skipped.
    """
    with _whole_file(output) as handle:
        network = EmbeddingModel.load(model_path or model_in_use(settings), settings.embedding)
        rows, skipped = _embed_all(settings, paths, network)
        if not rows:
            raise PixelError("no file has a picture to embed; nothing was written")
        arrays = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]  # its flag is no array
    click.echo(
        f"{len(rows)} vectors of {arrays['embedding'].shape[1]} values by "
        f"{network.description.name}:{network.description.version}, {skipped} skipped"
    )


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name only when the block ends well.

    A folder that is absent or protected shows before the work, not after it.
    """
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as handle:
        try:
            yield handle
        except BaseException:  # an interrupt too must leave nothing behind
            partial.unlink()
            raise
    partial.replace(path)


def _embed_all(
    settings: Settings, paths: tuple[Path, ...], network: EmbeddingModel
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the file, and how many files were skipped."""
    rows: list[dict[str, Any]] = []
    skipped = 0
    with (
        DecoderProcess(settings.imaging) as decoder,
        click.progressbar(dicom_files(paths), label="Embedding", **on_terminal()) as bar,
    ):
        for path in bar:
            try:
                uid = read_header(path, []).sop_instance_uid
                frames = decoder.decode(path, network.description.preprocessing)
            except (InvalidObjectError, PixelError, OSError) as error:
                click.echo(f"\nskipped {path}: {error}", err=True)
                skipped += 1
                continue
            rows += [_row(uid, frame) for frame in frame_vectors(frames, network)]
    return rows, skipped


def _row(sop_instance_uid: str, frame: FrameVectors) -> dict[str, Any]:
    """Return one row of the file: array name to value."""
    row: dict[str, Any] = {
        "sop_instance_uid": sop_instance_uid,
        "frame_number": frame.frame_number,
        **frame.spaces,
    }
    if frame.label is not None:
        row["label"], row["probability"] = frame.label, np.float32(frame.probability or 0)
    if frame.code is not None:
        row["code"] = np.frombuffer(frame.code, dtype=np.uint8)
    return row


def model_in_use(settings: Settings) -> Path:
    """Return the node's model; without a node the shipped one."""
    try:
        stores = open_stores(settings, create=False)
    except NoCatalogError:
        return shipped_model()
    try:
        return stores.active_model_file()
    finally:
        stores.close()
