"""What people see: rendered frames, thumbnails, and values to be windowed by a viewer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from cbmir_node.errors import SelectionError
from cbmir_node.imaging.frame_values import FrameValues, frame_values
from cbmir_node.imaging.pictures import pictures
from cbmir_node.imaging.rendering import THUMBNAIL, Rendering, render
from tests.imaging.image_objects import colours, ramp, write_object

PNG = Rendering("image/png")
HOUNSFIELD = (ramp(top=3000).astype(np.int16) - 1024).astype(np.int16)
PALETTE = {
    "PhotometricInterpretation": "PALETTE COLOR",
    **{
        f"{colour}PaletteColorLookupTable{part}": value
        for number, colour in enumerate(("Red", "Green", "Blue"))
        for part, value in (
            ("Descriptor", [256, 0, 8]),
            ("Data", bytes((entry * (number + 1)) % 256 for entry in range(256))),
        )
    },
}


def voi_lut(entries: list[int], first: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 8])
    item.add_new("LUTData", "US", entries)
    return item


OBJECTS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "CT": (HOUNSFIELD, {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -24}),
    "MONOCHROME1": (ramp(), {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}),
    "stated window": (ramp(), {"WindowCenter": 1500, "WindowWidth": 800}),
    "fractions": (ramp(), {"RescaleSlope": 0.01, "RescaleIntercept": -3}),
    "padding": (HOUNSFIELD, {"PixelPaddingValue": int(HOUNSFIELD.max())}),
    "float": ((ramp() / np.float32(4e6)).astype(np.float32), {}),
    "32 bits": (ramp().astype(np.uint32) * 1_000_000, {}),
    "LUT": (ramp(), {"VOILUTSequence": [voi_lut(list(range(0, 256, 5)), 1000)]}),
    "falling LUT": (ramp(), {"VOILUTSequence": [voi_lut(list(range(255, -1, -1)), 900)]}),
    "constant": (np.full((8, 8), 7, np.uint16), {}),
    "all padding": (np.full((8, 8), 7, np.uint16), {"PixelPaddingValue": 7}),
    "colour": (colours(), {}),
    "palette": (ramp(top=255).astype(np.uint8), PALETTE),
}


def decoded(file: bytes) -> np.ndarray:
    with Image.open(BytesIO(file)) as image:
        return np.asarray(image)


def windowed(frame: FrameValues) -> np.ndarray:
    """Show values as a viewer in a browser does."""
    if frame.values.ndim == 3:
        return frame.values
    modality = frame.minimum + frame.values * frame.step
    share = np.clip((modality - frame.window_center) / frame.window_width + 0.5, 0, 1)
    return np.rint(255 * (1 - share if frame.inverted else share)).astype(np.uint8)


@pytest.mark.parametrize("kind", OBJECTS)
def test_rendered_and_windowed_by_a_viewer_a_frame_is_its_display_picture(
    tmp_path: Path, kind: str
) -> None:
    stored, elements = OBJECTS[kind]
    path = write_object(tmp_path / "object.dcm", stored, **elements)
    picture = pictures(path, 1)[0].pixels
    np.testing.assert_array_equal(decoded(render(path, 1, PNG)), picture)
    frame = frame_values(path, 1, 4096)
    assert (frame.rows, frame.columns, frame.number_of_frames) == (*stored.shape[:2], 1)
    shown = windowed(frame).astype(int)
    # a table of few entries goes up in steps, and a window in a straight line
    assert np.abs(shown - picture).max() <= (3 if kind == "LUT" else 1)


def test_integers_keep_their_steps_for_a_viewer_to_read_out(tmp_path: Path) -> None:
    path = write_object(tmp_path / "ct.dcm", HOUNSFIELD, RescaleSlope=2, RescaleIntercept=-24)
    frame = frame_values(path, 1, 4096)
    assert frame.values.dtype == np.uint16
    assert (frame.minimum, frame.step) == (HOUNSFIELD.min() * 2.0 - 24, 2.0)
    np.testing.assert_array_equal(frame.minimum + frame.values * frame.step, HOUNSFIELD * 2.0 - 24)


def test_reduced_values_are_means_of_areas(tmp_path: Path) -> None:
    stored = np.zeros((64, 32), np.int16)
    stored[::2] = -200
    stored[:32, :16] = 1000
    path = write_object(tmp_path / "stripes.dcm", stored)
    frame = frame_values(path, 1, 8)
    assert (frame.values.shape, frame.rows, frame.columns) == ((8, 4), 64, 32)
    modality = frame.minimum + frame.values * frame.step
    assert (modality[0, 0], modality[-1, -1]) == (1000, -100)


def test_a_stated_window_is_kept_whatever_its_function(tmp_path: Path) -> None:
    path = write_object(
        *(tmp_path / "mr.dcm", ramp()),
        WindowCenter=1500,
        WindowWidth=800,
        VOILUTFunction="SIGMOID",
    )
    frame = frame_values(path, 1, 4096)
    assert (frame.window_center, frame.window_width, frame.inverted) == (1500, 800, False)


def test_a_wish_for_a_window_is_granted_to_grey_only(tmp_path: Path) -> None:
    grey = write_object(tmp_path / "grey.dcm", HOUNSFIELD, Modality="CT", RescaleSlope=1)
    wish = Rendering("image/png", window=(0.0, 100.0, "LINEAR_EXACT"))
    expected = np.clip((HOUNSFIELD + 50) / 100, 0, 1) * 255
    assert np.abs(decoded(render(grey, 1, wish)) - expected).max() <= 1
    colour = write_object(tmp_path / "colour.dcm", colours())
    np.testing.assert_array_equal(decoded(render(colour, 1, wish)), colours())


def test_one_frame_of_many_is_chosen(tmp_path: Path) -> None:
    stored = np.stack([np.roll(ramp(), 5 * frame, 1) for frame in range(3)])
    path = write_object(tmp_path / "cine.dcm", stored, NumberOfFrames=3)
    shown = pictures(path, 3)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(decoded(render(path, number, PNG)), shown[number - 1].pixels)
    assert frame_values(path, 2, 4096).number_of_frames == 3
    for number in (0, 4):
        with pytest.raises(SelectionError, match="ask for 1 to 3"):
            render(path, number, PNG)
        with pytest.raises(SelectionError, match="ask for 1 to 3"):
            frame_values(path, number, 64)


def test_thumbnails_are_small_jpeg_files_and_never_enlarged(tmp_path: Path) -> None:
    large = write_object(tmp_path / "large.dcm", ramp(300, 600))
    small = write_object(tmp_path / "small.dcm", colours())
    with Image.open(BytesIO(render(large, 1, THUMBNAIL))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (256, 128))
    with Image.open(BytesIO(render(small, 1, THUMBNAIL))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 24))


def test_a_viewport_is_filled_with_the_region_in_its_aspect(tmp_path: Path) -> None:
    stored = ramp(20, 40)
    path = write_object(tmp_path / "wide.dcm", stored)
    whole = decoded(render(path, 1, PNG))
    fitted = decoded(render(path, 1, Rendering("image/png", viewport=(80, 80))))
    assert fitted.shape == (40, 80)
    part = decoded(render(path, 1, Rendering("image/png", region=(30, 5, 20, 10))))
    np.testing.assert_array_equal(part, whole[5:15, 30:40])  # what lies outside is left out
    mirrored = decoded(render(path, 1, Rendering("image/png", region=(30, 5, -10, -10))))
    np.testing.assert_array_equal(mirrored, part[::-1, ::-1])
    with pytest.raises(SelectionError, match="40 x 20"):
        render(path, 1, Rendering(region=(40, 0, 10, 10)))
