"""Why: the classes of an image, and the overlay that shows where the model looked."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.imaging.pictures import pictures
from cbmir_node.presentation.explanations import Explanations, best_predictions
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.presentation.saliency import saliency_overlay
from cbmir_node.stores import Stores
from tests.models import build_model
from tests.objects import make_object, write

STRETCH = Preprocessing(32, 32, 1, "stretch", (127.0,), (128.0,))
PAD = Preprocessing(32, 32, 1, "pad", (127.0,), (128.0,))


def overlay(values: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    png = saliency_overlay(values.astype(np.float32), size, preprocessing)
    with Image.open(BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        return np.asarray(image).astype(int)


def test_the_overlay_is_strongest_where_the_model_looked(tmp_path: Path) -> None:
    values = np.zeros((8, 8))
    values[1, 6] = 1
    shown = overlay(values, (200, 400), STRETCH)
    assert shown.shape == (160, 320, 4)
    row, column = np.unravel_index(shown[..., 3].argmax(), shown.shape[:2])
    assert abs(row / 160 - 1.5 / 8) < 0.02
    assert abs(column / 320 - 6.5 / 8) < 0.02
    assert shown[-1, 0, 3] == 0
    assert 150 < shown[..., 3].max() < 255  # the picture stays visible
    luminance = shown[..., :3] @ [0.2126, 0.7152, 0.0722]
    order = np.argsort(shown[..., 3], axis=None)
    assert np.all(np.diff(luminance.ravel()[order]) > -3)  # more is lighter, whatever the hue


def test_what_padding_added_is_cut_off() -> None:
    values = np.zeros((8, 8))
    values[:2], values[6:] = 9, 9  # above and below a picture of 2 : 1
    values[2:6, 4:] = 1
    shown = overlay(values, (100, 200), PAD)
    assert shown.shape == (160, 320, 4)
    assert shown[:, :120, 3].max() == 0
    assert shown[:, 200:, 3].min() == 204


def test_a_picture_thinner_than_a_cell_has_an_overlay() -> None:
    assert overlay(np.eye(4), (2, 300), PAD).shape == (2, 320, 4)


def test_a_map_that_says_nothing_hides_nothing() -> None:
    for values in (np.ones((4, 4)), np.full((4, 4), np.nan)):
        assert overlay(values, (10, 10), STRETCH)[..., 3].max() == 0


def test_predictions_are_those_of_the_frame(
    stores: Stores, decoders: DecoderPool, network: ActiveNetwork, tmp_path: Path
) -> None:
    values = np.arange(256, dtype=np.int16).reshape(16, 16)
    frames = np.stack([values, values[::-1], values.T])
    path = write(make_object(NumberOfFrames=3, PixelData=frames.tobytes()), tmp_path / "a.dcm")
    explanations = Explanations(network, decoders)
    model = network.get()
    for number in (1, 2, 3):
        picture = pictures(path, 3)[number - 1].pixels
        inputs = network_input(picture, model.description.preprocessing)[np.newaxis]
        probabilities = model.embed(inputs).probabilities
        assert probabilities is not None
        found = explanations.predictions(path, number)
        assert [one.probability for one in found] == sorted(probabilities[0].tolist())[::-1]
        assert {one.label for one in found} == set(model.description.labels)
    png = explanations.saliency(path, 2)
    assert png is not None
    with Image.open(BytesIO(png)) as image:
        assert image.size == (320, 320)


def test_at_most_five_classes_are_shown() -> None:
    probabilities = np.linspace(0.02, 0.2, 7, dtype=np.float32)[np.newaxis]
    found = best_predictions(np.concatenate([probabilities, probabilities]), list("ABCDEFG"))
    assert [one.label for one in found] == list("GFEDC")
    assert found[0].probability == pytest.approx(0.2)


def test_after_a_switch_the_new_model_answers(
    stores: Stores, decoders: DecoderPool, network: ActiveNetwork, tmp_path: Path
) -> None:
    explanations = Explanations(network, decoders)
    first = network.get()
    assert network.get() is first
    path = write(make_object(), tmp_path / "a.dcm")
    mute = build_model(tmp_path / "mute.onnx", name="mute", classes=0, saliency=False)
    assert stores.use(stores.install(mute)) == "active"  # nothing was received yet
    assert network.get().description.name == "mute"
    assert explanations.predictions(path, 1) == []
    assert explanations.saliency(path, 1) is None
