"""Forty pictures of four patterns, small enough to train on in seconds."""

import csv

import numpy as np
import pytest
from PIL import Image

PATTERNS = ("bars", "boards", "discs", "stripes")
SPLITS = ("train",) * 6 + ("val",) * 2 + ("test",) * 2


def _pattern(name: str, random: np.random.Generator) -> np.ndarray:
    height, width = 64 + int(random.integers(0, 40)), 64 + int(random.integers(0, 40))
    y, x = np.mgrid[:height, :width]
    period = random.integers(10, 16)
    bright = {
        "bars": x // period % 2,
        "stripes": y // period % 2,
        "boards": (x // period + y // period) % 2,
        "discs": (x - width / 2) ** 2 + (y - height / 2) ** 2 < (2 * period) ** 2,
    }[name]
    return (40 + 160 * bright + random.integers(0, 30, (height, width))).astype(np.uint8)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patterns")
    random = np.random.default_rng(0)
    rows = []
    for name in PATTERNS:
        for number, split in enumerate(SPLITS):
            file = f"{name}-{number}.png"
            Image.fromarray(_pattern(name, random)).save(folder / file)
            finding = ("", "odd", "even")[0 if name == "discs" else 1 + number % 2]
            rows.append(
                {
                    "file": file,
                    "label": name,
                    "modality": "OT",
                    "body_part": "NONE",
                    "finding": finding,
                    "patient_id": f"{name}-{number}",
                    "split": split,
                }
            )
    path = folder / "manifest.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
