"""The files of an evaluation: JSON, Markdown and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import PixelError
from cbmir_node.evaluation.archive import ArchiveImages
from cbmir_node.evaluation.items import Items
from cbmir_node.evaluation.manifest import Manifest, read_picture
from cbmir_node.evaluation.measurement import Measured
from cbmir_node.evaluation.plots import plots
from cbmir_node.evaluation.result import Evaluation
from cbmir_node.evaluation.sheet import MOST_OF_A_CLASS, SheetRow
from cbmir_node.evaluation.tables import left_out_text, text_tables
from cbmir_node.evaluation.text import TextTable
from cbmir_node.imaging.decoder_process import DecoderProcess

_SIDE = 96
_JPEG_QUALITY = 70
_TITLES = {
    "coarse": "Class",
    "finding": "Finding within the class",
}


@dataclass(frozen=True)
class Thumbnails:
    """Where the pictures of the sheet come from.

    Attributes
    ----------
    items : Items
    picture : callable
        Position → uint8 [H, W] or [H, W, 3], or ``None`` where it cannot be shown.
    """

    items: Items
    picture: Callable[[int], npt.NDArray[np.uint8] | None]


def picture_thumbnails(manifest: Manifest) -> Thumbnails:
    """Take the pictures from a manifest's files."""
    return Thumbnails(manifest.items, lambda position: read_picture(manifest.files[position]))


@contextmanager
def archive_thumbnails(images: ArchiveImages, settings: ImagingSettings) -> Iterator[Thumbnails]:
    """Decode the pictures of an archive, in a process that may die."""
    with DecoderProcess(settings) as decoder:

        def picture(position: int) -> npt.NDArray[np.uint8] | None:
            path, frame_number = images.files[position]
            try:
                frames = {frame.frame_number: frame.pixels for frame in decoder.pictures(path)}
            except (PixelError, OSError):  # the object may be gone or damaged by now
                return None
            return frames.get(frame_number)

        yield Thumbnails(images.items, picture)


def write_files(measured: Measured, folder: Path, thumbnails: Thumbnails) -> Path:
    """Write ``evaluation.json``, ``evaluation.md`` and ``report.html``.

    Returns
    -------
    Path
        The report.
    """
    evaluation = measured.evaluation
    tables = text_tables(evaluation)
    report = folder / "report.html"
    (folder / "evaluation.json").write_text(evaluation.to_json(), encoding="utf-8")
    (folder / "evaluation.md").write_text(markdown(evaluation, tables), encoding="utf-8")
    report.write_text(_html(measured, tables, thumbnails), encoding="utf-8")
    return report


def markdown(evaluation: Evaluation, tables: list[TextTable]) -> str:
    """Return the tables as Markdown."""
    parts = [" ".join(filter(None, [_data_text(evaluation), left_out_text(evaluation)]))]
    for table in tables:
        lines = [f"| {' | '.join(row)} |" for row in [table.head, *table.rows]]
        lines.insert(1, f"|{' --- |' * len(table.head)}")
        parts += [f"### {table.title}", "\n".join(lines), *([table.note] if table.note else [])]
    return "\n\n".join(parts) + "\n"


def _data_text(evaluation: Evaluation) -> str:
    data = evaluation.data
    source = f"{data['split']} images" if data["kind"] == "manifest" else "images of the archive"
    text = (
        f"{data['queries']} {source} of {data['patients']} patients, {data['studies']} studies and "
        f"{len(data['classes'])} classes"
    )
    seen = data["database"].get("P")
    return f"{text}; {seen} images of earlier splits for protocol P." if seen else f"{text}."


def _html(measured: Measured, tables: list[TextTable], thumbnails: Thumbnails) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (optional)

    evaluation = measured.evaluation
    environment = Environment(
        loader=PackageLoader("cbmir_node.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    own = [entry.name for entry in evaluation.models if entry.role == "model"]
    return environment.get_template("report.html.j2").render(
        title=", ".join(own),
        program=evaluation.program,
        data_text=_data_text(evaluation),
        left_out=left_out_text(evaluation),
        judged=evaluation.judged,
        ignored=evaluation.data.get("ignored_findings", []),
        models=evaluation.models,
        reference=evaluation.reference,
        tables=tables,
        plots=list(plots(evaluation)),
        sheet_model=own[0],
        most=MOST_OF_A_CLASS,
        sheets=[
            {"title": title, "cases": [_case(row, thumbnails) for row in rows]}
            for task, title in _TITLES.items()
            if (rows := [row for row in measured.sheet if row.task == task])
        ],
    )


def _case(row: SheetRow, thumbnails: Thumbnails) -> list[dict[str, str]]:
    """Return the query and its answers as the template shows them."""
    items = thumbnails.items
    shown = [(row.query, "asked", "")]
    shown += [
        (at, "right" if right else "wrong", "✓" if right else "✗") for at, right in row.answers
    ]
    case = [
        {
            "uri": _jpeg(thumbnails.picture(position)),
            "kind": kind,
            "mark": mark,
            "caption": _caption(items, position, row),
        }
        for position, kind, mark in shown
    ]
    case[0]["caption"] = f"asks: {case[0]['caption']}, AP {row.average_precision:.3f}"
    return case


def _caption(items: Items, position: int, row: SheetRow) -> str:
    if row.task == "coarse":
        return str(items.labels[position])
    finding = str(items.findings[position])
    return f"{items.labels[position]} {finding}" if position == row.query else finding


def _jpeg(picture: npt.NDArray[np.uint8] | None) -> str:
    if picture is None:
        return ""
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
