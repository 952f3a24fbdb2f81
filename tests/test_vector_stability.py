"""The same picture, however it travels, is the same vector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cbmir_node.config import EmbeddingSettings, ImagingSettings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import shipped_model
from cbmir_node.imaging.decoder_process import DecoderProcess
from tests.imaging.image_objects import LOSSLESS, write_object


@pytest.fixture(scope="module")
def network() -> EmbeddingModel:
    return EmbeddingModel.load(shipped_model(), EmbeddingSettings())


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    with DecoderProcess(ImagingSettings()) as process:
        yield process


def anatomy() -> np.ndarray:
    """Return a 12-bit picture with bone, tissue, air and noise, like a CT slice."""
    y, x = np.mgrid[0:256, 0:256] / 128 - 1
    radius = np.hypot(x, y * 1.2)
    picture = np.where(radius < 0.8, 1040, 20)
    picture = np.where((radius > 0.7) & (radius < 0.8), 2000, picture)
    picture = np.where(np.hypot(x - 0.2, y) < 0.15, 1010, picture)
    noise = np.random.default_rng(0).normal(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 4095).astype(np.uint16)


def embed(network: EmbeddingModel, decoder: DecoderProcess, path: Path) -> np.ndarray:
    (frame,) = decoder.decode(path, network.description.preprocessing)
    (vector,) = network.embed(frame.values[None]).spaces["embedding"]
    return vector / np.linalg.norm(vector)


def test_every_lossless_transfer_syntax_gives_the_same_vector(
    network: EmbeddingModel, decoder: DecoderProcess, tmp_path: Path
) -> None:
    tags = {
        "BitsStored": 12,
        "HighBit": 11,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "WindowCenter": 40,
        "WindowWidth": 400,
        "Modality": "CT",
    }
    plain = embed(network, decoder, write_object(tmp_path / "plain.dcm", anatomy(), **tags))
    for syntax, encode in LOSSLESS.items():
        path = write_object(
            tmp_path / f"{syntax}.dcm", anatomy(), syntax=syntax, encode=encode, **tags
        )
        assert float(embed(network, decoder, path) @ plain) >= 0.9999, syntax


def test_a_changed_window_changes_the_vector_little(
    network: EmbeddingModel, decoder: DecoderProcess, tmp_path: Path
) -> None:
    """Less than half as much as another picture does; `evaluate --windows` has figures."""
    tags = {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": -1024, "RescaleSlope": 1}

    def windowed(center: int, width: int, picture: np.ndarray) -> np.ndarray:
        path = tmp_path / f"{center}-{width}-{picture[0, 0]}.dcm"
        window = {"WindowCenter": center, "WindowWidth": width}
        return embed(network, decoder, write_object(path, picture, **tags, **window))

    usual = windowed(40, 400, anatomy())
    other_picture = windowed(40, 400, np.tile(anatomy()[::4, ::4], (4, 4)))
    for center, width in ((40, 350), (40, 450), (60, 400), (20, 400)):
        changed = windowed(center, width, anatomy())
        assert 1 - float(changed @ usual) < (1 - float(other_picture @ usual)) / 2
