"""The list of training images: a CSV file and the pictures it names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.errors import ConfigurationError
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.training.settings import TrainingSettings

COLUMNS = ("file", "label", "finding", "patient_id", "split")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelledImage:
    """One row of the manifest.

    Attributes
    ----------
    file : Path
        The picture, 8-bit grey or RGB.
    label, finding : str
        Coarse class; finer class within it, empty where unknown.
    patient_id : str
        Pictures of one patient must share a split.
    split : {"train", "val", "test"}
    """

    file: Path
    label: str
    finding: str
    patient_id: str
    split: str


def read_manifest(path: Path, split: str | None = None) -> list[LabelledImage]:
    """Read a manifest.

    Parameters
    ----------
    path : Path
        CSV file with a header naming at least `COLUMNS`; other columns are ignored. ``file`` is
        relative to the manifest's folder.
    split : str, optional
        Only the rows of this split.

    Raises
    ------
    ConfigurationError
        If a column, a value or every row of the split is missing, or a patient is in two splits.
    """
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise ConfigurationError(f"{path} lacks the column(s) {', '.join(absent)}")
        images = [_labelled_image(path, reader.line_num, row) for row in reader]
    _check_split_by_patient(path, images)
    chosen = [image for image in images if split in (None, image.split)]
    if not chosen:
        raise ConfigurationError(f"{path} has no rows{f' of split {split}' if split else ''}")
    return chosen


def _labelled_image(manifest: Path, line: int, row: dict[str, str]) -> LabelledImage:
    for name in ("file", "label", "patient_id"):
        if not row[name]:
            raise ConfigurationError(f"{manifest} line {line}: column {name} is empty")
    if row["split"] not in SPLITS:
        raise ConfigurationError(
            f"{manifest} line {line}: split is {row['split']!r}, not one of {', '.join(SPLITS)}"
        )
    return LabelledImage(
        manifest.parent / row["file"],
        row["label"],
        row["finding"] or "",
        row["patient_id"],
        row["split"],
    )


def _check_split_by_patient(manifest: Path, images: Sequence[LabelledImage]) -> None:
    split_of: dict[str, str] = {}
    for image in images:
        if split_of.setdefault(image.patient_id, image.split) != image.split:
            raise ConfigurationError(
                f"{manifest}: patient {image.patient_id} is in two splits; split by patient, or "
                "the scores are those of memory"
            )


def used_images(
    manifest: Path, settings: TrainingSettings
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Return the images to train on, and those to validate on (none in a final run).

    Raises
    ------
    ConfigurationError
        Like `read_manifest`; also if a label of the settings has no training image.
    """
    images, held_out = read_manifest(manifest, "train"), read_manifest(manifest, "val")
    if settings.final:
        images, held_out = images + held_out, []
    named = {*settings.ignored_findings, *settings.left_out}
    absent = sorted(named - {image.label for image in images})
    if absent:
        raise ConfigurationError(f"no training image has the label(s) {', '.join(absent)}")
    kept = [image for image in images if image.label not in settings.left_out]
    if not kept:
        raise ConfigurationError("every label is left out; nothing remains to train on")
    return (
        [replace(i, finding="") if i.label in settings.ignored_findings else i for i in kept],
        [image for image in held_out if image.label not in settings.left_out],
    )


def read_picture(file: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture file to grey [H, W] or RGB [H, W, 3].

    Raises
    ------
    ConfigurationError
        If the file is missing or no picture.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode == "L" else "RGB"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the picture {file}: {error}") from error


def load_pictures(
    images: Sequence[LabelledImage], preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    """Decode and resize all pictures into memory, as the node would.

    Returns
    -------
    uint8 [N, C, height, width]
        What `network_input` gives, before mean and standard deviation are applied.
    """
    channels = preprocessing.channels
    plain = replace(preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels)

    def load(image: LabelledImage) -> npt.NDArray[np.uint8]:
        return network_input(read_picture(image.file), plain).astype(np.uint8)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return np.stack(list(pool.map(load, images)))
