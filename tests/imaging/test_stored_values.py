"""Reading the Image Pixel Module and native pixels: every depth, and what writers get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from cbmir_node.errors import NoPixelsError, PixelError
from cbmir_node.imaging.pictures import pictures
from tests.imaging.image_objects import LOSSLESS, colours, ramp, write_object

IMAGES = [
    pytest.param((ramp() >> 4).astype(np.uint8), {}, id="8 bits"),
    pytest.param(ramp(), {"BitsStored": 12}, id="12 bits"),
    pytest.param(ramp(top=65535), {}, id="16 bits"),
    pytest.param(ramp().astype(np.int16) - 2000, {}, id="signed 16 bits"),
    pytest.param(ramp().astype(np.uint32) * 1000, {}, id="32 bits"),
    pytest.param(ramp().astype(np.int32) * 1000 - 10**6, {}, id="signed 32 bits"),
    pytest.param(colours(), {}, id="RGB"),
    pytest.param(colours().astype(np.uint16) * 257, {}, id="16 bit RGB"),
]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(("stored", "elements"), IMAGES)
def test_every_native_syntax_gives_the_same_picture(show, syntax, stored, elements):
    expected = show(stored, **elements)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(show(stored, syntax=syntax, **elements), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels(show, dtype):
    expected = show(ramp(top=65535))
    values = ramp(top=65535).astype(dtype) / 1000 - 30
    found = show(values, BitsStored=None, HighBit=None, PixelRepresentation=None)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_not_a_number_is_black_and_does_not_move_the_window(show):
    values = ramp(top=65535).astype(np.float32)
    expected = show(values)
    for broken in (np.nan, np.inf, -np.inf):
        damaged = values.copy()
        damaged[0, -1] = broken
        found = show(damaged)
        assert found[0, -1] == 0
        assert np.abs(found.astype(int) - expected)[1:].max() <= 1
    assert (show(np.full((4, 4), np.nan, np.float32)) == 0).all()


def test_one_bit_pixels(show):
    bits = np.zeros((2, 16, 24), bool)
    bits[0, 2:9, 3:7] = True
    bits[1, :, 20:] = True
    found = show(
        bits.astype(np.uint8),
        NumberOfFrames=2,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelData=pack_bits(bits.astype(np.uint8)),
    )
    np.testing.assert_array_equal(found, bits[1] * 255)  # of two frames, one: the second
    deflated = show(
        bits[0],
        syntax="1.2.840.10008.1.2.8.1",
        encode=LOSSLESS["1.2.840.10008.1.2.8.1"],
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
    )
    np.testing.assert_array_equal(deflated, bits[0] * 255)


def test_values_in_the_high_bits(show):
    """High Bit 15 with 12 bits stored, as old writers did."""
    expected = show(ramp(), BitsStored=12)
    found = show(ramp() << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(found, expected)
    signed = ramp().astype(np.int16) - 2048
    window = {"WindowCenter": 0, "WindowWidth": 4096}
    np.testing.assert_array_equal(
        show(signed << 4, BitsStored=12, HighBit=15, **window), show(signed, **window)
    )


def test_colour_by_plane(show):
    stored = colours()
    planes = np.ascontiguousarray(stored.transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(show(stored, PlanarConfiguration=1, PixelData=planes), stored)


def test_ybr_full_is_converted(show):
    """A full-range conversion: black, white, and pure red by PS3.3 C.7.6.3.1.2."""
    stored = np.array([[[0, 128, 128], [255, 128, 128], [76, 85, 255]]], np.uint8)
    found = show(stored, PhotometricInterpretation="YBR_FULL").astype(int)
    assert np.abs(found - [[[0, 0, 0], [255, 255, 255], [254, 0, 0]]]).max() <= 1


def test_native_ybr_full_422_subsampled_and_mislabelled(show):
    stored = np.full((2, 4, 3), 128, np.uint8)
    stored[..., 0] = [[10, 60, 110, 160], [20, 70, 120, 170]]
    expected = stored[..., :1].repeat(3, axis=2)
    label = {"PhotometricInterpretation": "YBR_FULL_422"}
    pairs = stored.reshape(-1, 2, 3)
    shared = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1)
    np.testing.assert_array_equal(show(stored, PixelData=shared.tobytes(), **label), expected)
    np.testing.assert_array_equal(show(stored, **label), expected)


@pytest.mark.parametrize("label", ["YBR_RCT", "YBR_ICT"])
def test_decompressed_jpeg_2000_that_kept_its_label_is_rgb(show, label):
    stored = colours()
    np.testing.assert_array_equal(show(stored, PhotometricInterpretation=label), stored)


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelRepresentation": None},
        {"BitsStored": None, "HighBit": None},
        {"SamplesPerPixel": None},
        {"PhotometricInterpretation": None},
        {"NumberOfFrames": 0, "PixelData": ramp(top=65535).tobytes()},
    ],
    ids=lambda elements: next(iter(elements)),
)
def test_a_missing_element_with_one_sensible_reading(show, elements):
    stored = ramp(top=65535)
    frames = stored[np.newaxis] if "NumberOfFrames" in elements else stored
    np.testing.assert_array_equal(show(frames, **elements), show(stored))


def test_us_written_as_four_bytes(tmp_path):
    path = write_object(tmp_path / "o.dcm", ramp(top=65535))
    expected = pictures(path, 1)[0].pixels
    content = path.read_bytes()
    short = b"\x28\x00\x00\x01US\x02\x00\x10\x00"
    assert content.count(short) == 1
    path.write_bytes(content.replace(short, b"\x28\x00\x00\x01US\x04\x00\x10\x00\x00\x00"))
    assert list(dcmread(path).BitsAllocated) == [16, 0]
    np.testing.assert_array_equal(pictures(path, 1)[0].pixels, expected)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": None}, "Rows is missing"),
        ({"Rows": 0}, "Rows x Columns is 0 x 32"),
        ({"BitsAllocated": None, "BitsStored": None}, "BitsAllocated is missing"),
        ({"BitsAllocated": 12}, "BitsAllocated is 12"),
        ({"BitsStored": 17}, "BitsStored is 17 of 16"),
        ({"PixelRepresentation": 2}, "must be 0 or 1"),
        ({"SamplesPerPixel": 3}, "3 samples per pixel do not fit MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB"}, "1 samples per pixel do not fit RGB"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV cannot be shown"),
        ({"PixelData": b"\0" * 100}, "Pixel Data has 100 bytes, 1536 are needed"),
        ({"Rows": 65535, "Columns": 65535}, "larger than the limit"),
        ({"Rows": 4096, "Columns": 4096}, "Pixel Data has 1536 bytes, 33554432 are needed"),
    ],
)
def test_an_unusable_header_is_named(show, elements, reason):
    with pytest.raises(PixelError, match=reason):
        show(ramp(), **elements)


def test_number_of_frames_that_is_no_number(tmp_path):
    path = write_object(tmp_path / "o.dcm", ramp()[np.newaxis], NumberOfFrames=1)
    path.write_bytes(
        path.read_bytes().replace(b"(\x00\x08\x00IS\x02\x001 ", b"(\x00\x08\x00IS\x02\x001A")
    )
    with pytest.raises(PixelError, match="NumberOfFrames is not a number"):
        pictures(path, 1)


def test_encapsulated_pixels_under_a_native_syntax(tmp_path):
    syntax = "1.2.840.10008.1.2.4.80"
    path = write_object(tmp_path / "o.dcm", ramp(), syntax=syntax, encode=LOSSLESS[syntax])
    native = b"1.2.840.10008.1.2.1".ljust(len(syntax), b"\0")
    path.write_bytes(path.read_bytes().replace(syntax.encode(), native))
    with pytest.raises(PixelError, match="encapsulated although the transfer syntax is native"):
        pictures(path, 1)


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage: its pixels are labels"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage: its pixels are labels"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "RT Dose Storage: its pixels are doses"),
        ("1.2.840.10008.5.1.4.1.1.66", "Raw Data Storage: its pixels are raw data"),
    ],
)
def test_pixels_that_are_no_picture(show, sop_class, reason):
    with pytest.raises(NoPixelsError, match=reason):
        show(ramp(), SOPClassUID=sop_class)


@pytest.mark.parametrize("elements", [{"PixelData": None}, {"PixelData": b""}], ids=["no", "empty"])
def test_objects_without_pixels(show, elements):
    with pytest.raises(NoPixelsError, match="Secondary Capture Image Storage: there is no Pixel"):
        show(ramp(), **elements)


def test_files_that_are_no_objects(tmp_path):
    path = tmp_path / "x"
    for content in (b"", b"hello, this is no DICOM object at all", b"\0" * 128 + b"DICM"):
        path.write_bytes(content)
        with pytest.raises(PixelError):
            pictures(path, 1)
    with pytest.raises(PixelError, match="FileNotFoundError"):
        pictures(tmp_path / "absent", 1)


def test_a_file_cut_anywhere_gives_the_picture_or_a_pixel_error(tmp_path):
    whole = write_object(
        tmp_path / "o.dcm",
        ramp(),
        syntax="1.2.840.10008.1.2.5",
        encode=LOSSLESS["1.2.840.10008.1.2.5"],
    ).read_bytes()
    path = tmp_path / "cut.dcm"
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(PixelError):
            pictures(path, 1)
