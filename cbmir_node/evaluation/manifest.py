"""The list of images to measure with: a CSV file and the pictures it names."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.items import Items, StrArray

REQUIRED = ("file", "label", "patient_id")
OPTIONAL = ("finding", "split", "study")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Manifest:
    """A manifest's rows.

    Attributes
    ----------
    files : tuple of Path
        One picture each, 8-bit grey or RGB.
    items : Items
    splits : array of str [N]
        ``train``, ``val`` or ``test``.
    digest : str
        Changes when a row or a picture file changes.
    """

    files: tuple[Path, ...]
    items: Items
    splits: StrArray
    digest: str


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    path : Path
        CSV file with a header naming at least ``file`` (relative to the manifest's folder),
        ``label`` and ``patient_id``. ``finding`` may be absent; without ``split`` every row is
        ``test``; without ``study`` a patient's images of one label are a study. Other columns are
        ignored.

    Raises
    ------
    ConfigurationError
        A column, a value or a picture is missing, or a patient is in two splits.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            absent = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if absent:
                raise ConfigurationError(
                    f"{path} lacks the column(s) {', '.join(absent)}; needed are "
                    f"{', '.join(REQUIRED)}, and {', '.join(OPTIONAL)} are read where present"
                )
            rows = [_checked(path, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} is no CSV file in UTF-8: {error}") from error
    if not rows:
        raise ConfigurationError(f"{path} has a header but no rows")
    files = tuple(path.parent / row["file"] for row in rows)
    labels, findings, patients, splits, studies = (
        np.array([row[name] for row in rows])
        for name in ("label", "finding", "patient_id", "split", "study")
    )
    _check_split_by_patient(path, patients, splits)
    return Manifest(files, Items(labels, findings, patients, studies), splits, _digest(rows, files))


def _checked(manifest: Path, line: int, row: dict[str, str | None]) -> dict[str, str]:
    values = {name: (row.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
    for name in REQUIRED:
        if not values[name]:
            raise ConfigurationError(f"{manifest} line {line}: column {name} is empty")
    if "split" not in row:
        values["split"] = "test"
    if values["split"] not in SPLITS:
        raise ConfigurationError(
            f"{manifest} line {line}: split is {values['split']!r}, not one of {', '.join(SPLITS)}"
        )
    # two patients' studies of one name, or two labels of one study, are different things to find
    values["study"] = "\t".join((values["patient_id"], values["label"], values["study"]))
    return values


def _check_split_by_patient(manifest: Path, patients: StrArray, splits: StrArray) -> None:
    pairs = np.unique(np.stack([patients, splits], axis=1), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    if (counts > 1).any():
        raise ConfigurationError(
            f"{manifest}: patient {names[counts > 1][0]} is in two splits; split by patient, or "
            "the scores are those of memory"
        )


def _digest(rows: list[dict[str, str]], files: tuple[Path, ...]) -> str:
    """Hash the rows with each picture's size and time; a missing picture ends here."""
    content = hashlib.sha256()
    for row, file in zip(rows, files, strict=True):
        try:
            status = file.stat()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the picture {file}: {error.strerror}; paths are relative to the "
                "manifest's folder"
            ) from error
        content.update(f"{sorted(row.items())} {status.st_size} {status.st_mtime_ns}\n".encode())
    return content.hexdigest()


def read_picture(file: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture file to grey [H, W] or RGB [H, W, 3].

    Raises
    ------
    ConfigurationError
        It is no picture.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode == "L" else "RGB"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the picture {file}: {error}") from error
