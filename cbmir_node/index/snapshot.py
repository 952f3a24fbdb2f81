"""Durable copies of an index on disk, so that a restart need not read every vector again.

``FOLDER/<model sha256>/<space>-<metric>/generation-<number>/`` holds ``vectors.npy`` (float32
[n, D], or uint8 [n, B / 8] for codes, memory-mapped when read), ``ids.npy`` (int64 [n]) and
``snapshot.json``. A generation is written under another name, synced, and renamed: the highest
number is always complete, and a crash leaves the old one or the new one. Only one process may
write; any number may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cbmir_node.durable import sync_folder
from cbmir_node.errors import SnapshotError
from cbmir_node.index.protocol import Metric
from cbmir_node.index.rows import Rows

_VECTORS, _IDS, _DESCRIPTION = "vectors.npy", "ids.npy", "snapshot.json"
_GENERATION = re.compile(r"generation-(\d{8})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".unfinished-"
_READ_ATTEMPTS = 5


@dataclass(frozen=True)
class SpaceIdentity:
    """Which vectors an index holds; vectors of different identities never mix.

    Attributes
    ----------
    model_sha256 : str
        Digest of the ONNX file.
    space : str
        Its output: ``embedding`` or ``embedding.<layer>``; codes are kept with ``embedding``.
    metric : {"cosine", "euclidean", "hamming"}
    dimension : int
        Length of the vectors; of codes, their bytes.
    """

    model_sha256: str
    space: str
    metric: Metric
    dimension: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers: uint8 for codes, else float32."""
        return np.dtype(np.uint8 if self.metric == "hamming" else np.float32)

    def folder(self, root: Path) -> Path:
        """Return where the snapshots of this space lie under `root`."""
        return root / self.model_sha256 / f"{quote(self.space, safe='')}-{self.metric}"


@dataclass(frozen=True)
class Snapshot:
    """What a generation held: its rows and how far in the catalogue it had come."""

    rows: Rows
    last_vector_row: int
    last_removal_row: int


class _Description(BaseModel):
    """Content of ``snapshot.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model_sha256: str
    space: str
    metric: Metric
    dimension: int
    count: int = Field(ge=0)
    last_vector_row: int = Field(ge=0)
    last_removal_row: int = Field(ge=0)
    vectors_bytes: int
    ids_sha256: str


def write_snapshot(
    root: Path,
    identity: SpaceIdentity,
    parts: Sequence[Rows],
    last_vector_row: int,
    last_removal_row: int,
) -> None:
    """Write the live rows of `parts` as a new generation and remove the older ones.

    Raises
    ------
    SnapshotError
        The folder cannot be written; the previous generation still stands.
    """
    folder = identity.folder(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        try:
            count = _write_rows(unfinished, identity, parts)
            description = _Description(
                **asdict(identity),
                count=count,
                last_vector_row=last_vector_row,
                last_removal_row=last_removal_row,
                vectors_bytes=(unfinished / _VECTORS).stat().st_size,
                ids_sha256=_sha256(unfinished / _IDS),
            )
            text = description.model_dump_json(indent=2)
            _write_durably(unfinished / _DESCRIPTION, [text.encode()])
            sync_folder(unfinished)
            older = _generations(folder)
            number = older[-1][0] + 1 if older else 1
            unfinished.rename(folder / f"generation-{number:08d}")
            sync_folder(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for _, path in older:
            shutil.rmtree(path, ignore_errors=True)  # readers keep what they have mapped
    except OSError as error:
        raise SnapshotError(
            f"cannot write the index snapshot in {folder} ({error.strerror or error}): "
            "check free space and permissions; searches go on without it"
        ) from error


def read_snapshot(root: Path, identity: SpaceIdentity) -> Snapshot | None:
    """Open the newest generation, vectors memory-mapped; ``None`` when there is none.

    Raises
    ------
    SnapshotError
        It is damaged, of another format or of another space: rebuild the index.
    """
    folder = identity.folder(root)
    for _ in range(_READ_ATTEMPTS):
        path = folder
        try:
            generations = _generations(folder)
            if not generations:
                return None
            path = generations[-1][1]
            return _read_generation(path, identity)
        except FileNotFoundError as error:
            # A writer may have replaced it between the listing and the opening.
            if path.exists():
                raise SnapshotError(f"the index snapshot {path} lacks {error.filename}") from error
        except (OSError, ValueError, EOFError) as error:
            raise SnapshotError(f"cannot read the index snapshot {path}: {error}") from error
    raise SnapshotError(f"the index snapshots in {folder} are replaced faster than they open")


def remove_snapshots(root: Path, kept: Collection[SpaceIdentity]) -> None:
    """Remove the snapshots of all spaces but these; only the one process that writes may.

    Parameters
    ----------
    root : Path
        Root of all snapshots. Nothing in it that is not named like a digest is touched.
    kept : collection of SpaceIdentity
    """
    folders = {identity.folder(root) for identity in kept}
    models = {folder.parent for folder in folders}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for model in root.iterdir():
            if not _SHA256.fullmatch(model.name):
                continue
            for path in model.iterdir() if model in models else [model]:
                if path not in folders:
                    shutil.rmtree(path, ignore_errors=True)  # readers keep what they have mapped


def _read_generation(path: Path, identity: SpaceIdentity) -> Snapshot:
    try:
        text = (path / _DESCRIPTION).read_bytes()
        description = _Description.model_validate_json(text)
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(str(part) for part in finding["loc"])
        raise SnapshotError(
            f"the index snapshot {path} does not fit this version: {where} {finding['msg']}"
        ) from error
    for name, value in asdict(identity).items():
        found = getattr(description, name)
        if found != value:
            raise SnapshotError(f"the index snapshot {path} is of {name} {found!r}, not {value!r}")
    size = (path / _VECTORS).stat().st_size
    if size != description.vectors_bytes or _sha256(path / _IDS) != description.ids_sha256:
        raise SnapshotError(f"the index snapshot {path} is damaged: its files were changed")
    ids = np.load(path / _IDS, allow_pickle=False)
    vectors = np.asarray(np.lib.format.open_memmap(path / _VECTORS, mode="r"))
    shape = (description.count, identity.dimension)
    if vectors.dtype != identity.dtype or vectors.shape != shape or len(ids) != len(vectors):
        raise SnapshotError(f"the index snapshot {path} is damaged: its files do not fit together")
    rows = Rows.of(ids, vectors)
    return Snapshot(rows, description.last_vector_row, description.last_removal_row)


def _generations(folder: Path) -> list[tuple[int, Path]]:
    """Return number and path of every generation, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        found = [(_GENERATION.fullmatch(path.name), path) for path in folder.iterdir()]
        return sorted((int(match[1]), path) for match, path in found if match)
    return []


def _remove_unfinished(folder: Path) -> None:
    """Clear away what a crash left."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_rows(folder: Path, identity: SpaceIdentity, parts: Sequence[Rows]) -> int:
    """Write both array files; return the number of rows."""
    ids = [part.ids[part.live] for part in parts]
    count = sum(len(piece) for piece in ids)
    _write_array(folder / _IDS, np.dtype(np.int64), (count,), ids)
    chunks = (vectors for part in parts for _, vectors in part.live_chunks())
    _write_array(folder / _VECTORS, identity.dtype, (count, identity.dimension), chunks)
    return count


def _write_array(
    path: Path,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterable[npt.NDArray[Any]],
) -> None:
    """Write a NumPy file piece by piece, so that no second copy is held in memory."""
    header = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        header, {"descr": description, "fortran_order": False, "shape": shape}
    )
    content = (np.ascontiguousarray(piece).data for piece in pieces)
    _write_durably(path, chain([header.getvalue()], content))


def _write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
