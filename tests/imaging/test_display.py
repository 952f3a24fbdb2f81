"""From stored values to the picture: LUTs, windows, padding, palettes."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from cbmir_node.errors import PixelError
from cbmir_node.imaging.pictures import pictures
from cbmir_node.imaging.windows import Window
from tests.imaging.image_objects import CT, colours, ramp, write_object


def line(*values: int, dtype: type = np.int16) -> np.ndarray:
    return np.array([values], dtype=dtype)


def dataset(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def lut(first: int, bits: int, entries: list[int], vr: str = "US") -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    if vr == "OW":
        item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", entries)
    return item


def test_linear_window_by_the_formula_of_the_standard(show):
    """PS3.3 C.11.2.1.2.1, note: centre 2048 and width 4096 show 0 as black and 4095 as white."""
    found = show(line(0, 2047, 4095), WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(found, [[0, 127, 255]])
    np.testing.assert_array_equal(
        show(line(-1, 0, 1), WindowCenter=0, WindowWidth=1), [[0, 255, 255]]
    )


def test_linear_exact_and_sigmoid():
    values = np.array([-10.0, 0.0, 10.0, 1e9])
    exact = Window(0, 20, "LINEAR_EXACT").brightness(values)
    np.testing.assert_allclose(exact, [0, 0.5, 1, 1])
    sigmoid = Window(0, 20, "SIGMOID").brightness(values)
    np.testing.assert_allclose(sigmoid, [0.119203, 0.5, 0.880797, 1], atol=1e-6)


def test_voi_lut_function_is_read(show):
    values = line(-10, 0, 10)
    window = {"WindowCenter": 0, "WindowWidth": 20}
    np.testing.assert_array_equal(
        show(values, **window, VOILUTFunction="LINEAR_EXACT"), [[0, 128, 255]]
    )
    np.testing.assert_array_equal(
        show(values, **window, VOILUTFunction="SIGMOID"), [[30, 128, 225]]
    )


def test_rescale_comes_before_the_window(show):
    found = show(
        line(0, 500, 1000),
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=0.5,
        WindowWidth=2001,
    )
    np.testing.assert_array_equal(found, [[0, 128, 255]])


def test_the_first_usable_window_of_several(show):
    values = line(0, 50, 100, 1000)
    np.testing.assert_array_equal(
        show(values, WindowCenter=[50.5, 500], WindowWidth=[101, 1000]), [[0, 128, 255, 255]]
    )
    np.testing.assert_array_equal(
        show(values, WindowCenter=[7, 50.5], WindowWidth=[0, 101]), [[0, 128, 255, 255]]
    )


@pytest.mark.parametrize("width", [0, -400, "", None])
def test_an_invalid_window_is_as_good_as_none(show, width):
    stored = ramp()
    elements = {} if width is None else {"WindowWidth": width}
    np.testing.assert_array_equal(
        show(stored, BitsStored=12, WindowCenter=100, **elements), show(stored, BitsStored=12)
    )


def test_a_window_that_shows_nothing_is_as_good_as_none(show):
    stored = ramp(top=600)
    elsewhere = {"WindowCenter": 30000, "WindowWidth": 10}
    np.testing.assert_array_equal(show(stored, **elsewhere), show(stored))
    calibrated = {"SOPClassUID": CT, "Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -2000}
    assert len(np.unique(show(stored, **calibrated))) > 20  # all below the CT default


def test_a_narrow_window_over_small_scaled_values(show):
    found = show(
        line(0, 500, 1000),
        RescaleSlope=0.0005,
        RescaleIntercept=0,
        WindowCenter=0.25,
        WindowWidth=0.5,
    )
    np.testing.assert_array_equal(found, [[0, 128, 255]])


def test_linear_over_float_pixels_is_exact(show):
    values = np.array([[0, 0.25, 0.5, 1]], np.float32)
    found = show(values, WindowCenter=0.5, WindowWidth=1, VOILUTFunction="LINEAR")
    np.testing.assert_array_equal(found, [[0, 64, 128, 255]])


def test_ct_without_window_is_shown_as_soft_tissue(show):
    stored = line(0, 864, 1064, 1264, 3000)  # -1024, -160, 40, 240, 1976 HU
    calibrated = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    expected = [[0, 0, 128, 255, 255]]
    np.testing.assert_array_equal(show(stored, **calibrated, RescaleType="HU"), expected)
    np.testing.assert_array_equal(show(stored, **calibrated), expected)
    assert show(stored, **calibrated, RescaleType="US")[0, 1] > 60


def test_percentiles_ignore_a_few_hot_pixels(show):
    stored = ramp(100, 100, top=1000)
    expected = show(stored)
    stored[50, :10] = 60000
    found = show(stored)
    assert (found[50, :10] == 255).all()
    found[50, :10] = expected[50, :10]
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_a_picture_that_is_nearly_all_background_keeps_its_signal(show):
    stored = np.zeros((64, 64), np.uint16)
    stored[3, 4:6] = 500, 1000
    found = show(stored)
    assert list(found[3, 4:6]) == [128, 255]


def test_8_bits_are_shown_as_stored(show):
    stored = (ramp(top=255) // 3).astype(np.uint8)
    np.testing.assert_array_equal(show(stored), stored)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_constant_picture_is_no_division_by_zero(show, photometric, dtype):
    found = show(
        np.full((5, 6), 17, dtype),
        PhotometricInterpretation=photometric,
        Modality="CT",
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    assert found.shape == (5, 6)
    assert (found == 0).all()


def test_monochrome1_is_inverted(show):
    stored = ramp()
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    upright = show(stored, **window).astype(int)
    for shape in ({}, {"PresentationLUTShape": "INVERSE"}):
        inverted = show(stored, PhotometricInterpretation="MONOCHROME1", **window, **shape)
        assert np.abs(255 - upright - inverted).max() <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("elements", "padded"),
    [
        ({"PixelPaddingValue": -2000}, [-2000]),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}, [-2000, -1950, -1900]),
        ({"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2000}, [-2000, -1950, -1900]),
    ],
)
def test_padding_is_black_and_does_not_move_the_window(show, photometric, elements, padded):
    stored = ramp().astype(np.int16)
    label = {"PhotometricInterpretation": photometric}
    expected = show(stored, **label)
    stored[0, : len(padded)] = padded
    found = show(stored, **label, **elements)
    assert (found[0, : len(padded)] == 0).all()
    assert np.abs(found[1:].astype(int) - expected[1:]).max() <= 1


def test_padding_written_with_the_wrong_sign(tmp_path):
    stored = ramp().astype(np.int16)
    stored[0] = -2000
    path = write_object(tmp_path / "o.dcm", stored, PixelPaddingValue=-2000)
    expected = pictures(path, 1)[0].pixels
    tag = b"\x28\x00\x20\x01SS\x02\x00"
    content = path.read_bytes()
    assert content.count(tag) == 1
    path.write_bytes(content.replace(tag, tag.replace(b"SS", b"US")))
    np.testing.assert_array_equal(pictures(path, 1)[0].pixels, expected)
    assert (expected[0] == 0).all()


def test_a_picture_of_padding_only(show):
    assert (show(np.full((4, 4), 63, np.uint16), PixelPaddingValue=63) == 0).all()


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_modality_lut(show, vr):
    table = lut(10, 16, [0, 1000, 4000], vr)
    found = show(
        line(0, 10, 11, 12, 99, dtype=np.uint16),
        ModalityLUTSequence=[table],
        WindowCenter=2000.5,
        WindowWidth=4001,
        RescaleSlope=5,  # the LUT wins
        RescaleIntercept=7,
    )
    np.testing.assert_array_equal(found, [[0, 0, 64, 255, 255]])


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_lut_is_preferred_to_a_window_and_maps_rescaled_values(show, vr):
    found = show(
        line(0, 1, 2, 3),
        RescaleSlope=1,
        RescaleIntercept=-1,
        VOILUTSequence=[lut(-1, 12, [4095, 2048, 0], vr)],
        WindowCenter=1,
        WindowWidth=2,
    )
    np.testing.assert_array_equal(found, [[255, 128, 0, 0]])


def test_big_endian_lut(tmp_path):
    item = Dataset()
    item.LUTDescriptor = [3, 0, 16]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "OW", np.array([0, 32768, 65535], ">u2").tobytes())
    path = write_object(
        tmp_path / "o.dcm",
        line(0, 1, 2, dtype=np.uint16),
        syntax=ExplicitVRBigEndian,
        VOILUTSequence=[item],
    )
    np.testing.assert_array_equal(pictures(path, 1)[0].pixels, [[0, 128, 255]])


def test_8_bit_lut_entries_packed_two_to_a_word(show):
    item = Dataset()
    item.LUTDescriptor = [4, 0, 8]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "US", [0x4000, 0xFF80])
    found = show(line(0, 1, 2, 3, dtype=np.uint16), VOILUTSequence=[item])
    np.testing.assert_array_equal(found, [[0, 64, 128, 255]])


@pytest.mark.parametrize(
    "broken",
    [
        dataset(LUTExplanation="no table"),
        lut(0, 0, [1, 2]),
        lut(0, 12, [0, 0]),
    ],
    ids=["empty", "no depth", "no contrast"],
)
def test_an_unusable_voi_lut_gives_way_to_the_window(show, broken):
    found = show(line(0, 50, 100), VOILUTSequence=[broken], WindowCenter=50.5, WindowWidth=101)
    np.testing.assert_array_equal(found, [[0, 128, 255]])


def test_functional_groups_are_read_per_frame_then_shared(tmp_path):
    frames = np.stack([line(0, 50, 100)] * 2)
    first = dataset(
        FrameVOILUTSequence=[dataset(WindowCenter=100.5, WindowWidth=201)],
        PixelValueTransformationSequence=[dataset(RescaleSlope=1, RescaleIntercept=0)],
    )
    shared = dataset(
        FrameVOILUTSequence=[dataset(WindowCenter=200.5, WindowWidth=401)],
        PixelValueTransformationSequence=[dataset(RescaleSlope=2, RescaleIntercept=0)],
    )
    path = write_object(
        tmp_path / "o.dcm",
        frames,
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=[first, dataset(FrameContentSequence=[Dataset()])],
        SharedFunctionalGroupsSequence=[shared],
        RescaleSlope=77,
        RescaleIntercept=5,
        WindowCenter=3,
        WindowWidth=2,
    )
    for picture in pictures(path, 2):
        np.testing.assert_array_equal(picture.pixels, [[0, 64, 128]])


@pytest.mark.parametrize(
    "elements", [{"RescaleSlope": 0, "RescaleIntercept": 5}, {"RescaleSlope": 2}]
)
def test_an_unusable_rescale(show, elements):
    found = show(line(0, 50, 100), WindowCenter=100.5, WindowWidth=201, **elements)
    np.testing.assert_array_equal(
        found, [[0, 64, 128]] if "RescaleIntercept" in elements else [[0, 128, 255]]
    )


def palette(bits: int, entries: list[tuple[int, int, int]], first: int = 0) -> dict[str, object]:
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for position, colour in enumerate(("Red", "Green", "Blue")):
        table = np.array([entry[position] for entry in entries], f"<u{(bits + 7) // 8}")
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes().ljust(
            table.nbytes + table.nbytes % 2, b"\0"
        )
    return elements


RGB_ENTRIES = [(0, 0, 0), (255, 0, 10), (0, 200, 255)]


def test_8_and_16_bit_palettes(show):
    stored = line(0, 1, 2, 7, dtype=np.uint8)
    expected = [[*RGB_ENTRIES, RGB_ENTRIES[-1]]]
    np.testing.assert_array_equal(show(stored, **palette(8, RGB_ENTRIES)), expected)
    deep = [tuple(257 * value for value in entry) for entry in RGB_ENTRIES]
    np.testing.assert_array_equal(show(stored, **palette(16, deep)), expected)
    # 16 bits declared, entries of 8
    np.testing.assert_array_equal(show(stored, **palette(16, RGB_ENTRIES)), expected)


def test_a_palette_that_does_not_begin_at_zero(show):
    stored = line(5, 100, 101, 102, dtype=np.uint16)
    found = show(stored, **palette(16, [tuple(257 * v for v in e) for e in RGB_ENTRIES], first=100))
    np.testing.assert_array_equal(found, [[RGB_ENTRIES[0], *RGB_ENTRIES]])


def test_more_palette_entries_than_8_bits_can_count(show):
    stored = line(0, 300, 700, 999, dtype=np.uint16)
    entries = [(n // 4, 0, 255 - n // 4) for n in range(1000)]
    found = show(stored, **palette(8, entries))
    np.testing.assert_array_equal(found, [[entries[n] for n in (0, 300, 700, 999)]])


def test_segmented_palette(show):
    """PS3.3 C.7.9.2: a discrete segment of one entry, then a linear one of 255 up to the top."""
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, top in (("Red", 65535), ("Green", 0), ("Blue", 65535)):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = np.array(
            [0, 1, 0, 1, 255, top], "<u2"
        ).tobytes()
    found = show(line(0, 128, 255, dtype=np.uint8), **elements)
    np.testing.assert_array_equal(found, [[[0, 0, 0], [128, 0, 128], [255, 0, 255]]])


def test_a_missing_palette_is_named(show):
    elements = palette(8, RGB_ENTRIES)
    del elements["GreenPaletteColorLookupTableData"]
    with pytest.raises(PixelError, match="green palette is missing"):
        show(line(0, 1, dtype=np.uint8), **elements)


def test_a_supplemental_palette_leaves_the_grey_image_grey(show):
    stored = (ramp() >> 4).astype(np.uint8)
    elements = palette(8, RGB_ENTRIES) | {"PhotometricInterpretation": "MONOCHROME2"}
    np.testing.assert_array_equal(show(stored, PixelPresentation="COLOR", **elements), stored)


def test_windows_do_not_touch_colour(show):
    stored = colours()
    np.testing.assert_array_equal(show(stored, WindowCenter=10, WindowWidth=5), stored)
