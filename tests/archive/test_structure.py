"""A data set that is not whole is refused, whatever pydicom would make of it."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from cbmir_node.archive.structure import MAX_DEPTH, has_pixel_data
from cbmir_node.errors import InvalidObjectError
from tests.objects import make_object

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def encoded(dataset: Dataset, syntax: UID, *, undefined: bool = False) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax.is_implicit_VR
    buffer.is_little_endian = syntax.is_little_endian
    if undefined:
        for element in dataset:
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def nested(depth: int) -> Dataset:
    dataset = Dataset()
    dataset.SeriesDescription = "bottom"
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedSeriesSequence = [dataset]
        outer["ReferencedSeriesSequence"].is_undefined_length = True
        dataset.is_undefined_length_sequence_item = True
        dataset = outer
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("undefined", [False, True])
def test_whole_data_sets_pass(syntax: UID, undefined: bool) -> None:
    item = make_object(PixelData=b"\1\0")  # pixels inside an item are not the object's own
    dataset = make_object(PixelData=None, IconImageSequence=[item])
    assert not has_pixel_data(encoded(dataset, syntax, undefined=undefined), 0, syntax)
    assert has_pixel_data(encoded(make_object(), syntax), 0, syntax)


def test_encapsulated_pixels_pass() -> None:
    dataset = make_object(PixelData=encapsulate([b"\xff\x4f" * 50, b"\xff\x4f" * 31]))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    data = encoded(dataset, JPEG2000Lossless)
    assert has_pixel_data(data, 0, JPEG2000Lossless)
    with pytest.raises(InvalidObjectError, match="truncated"):
        has_pixel_data(data[:-9], 0, JPEG2000Lossless)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_truncation_inside_an_element_is_noticed(syntax: UID) -> None:
    data = encoded(make_object(ReferencedImageSequence=[make_object(PixelData=None)]), syntax)
    boundaries = 0
    for end in range(1, len(data)):
        try:
            has_pixel_data(data[:end], 0, syntax)
        except InvalidObjectError:
            continue
        boundaries += 1  # cut exactly between two elements: nothing in the bytes tells
    assert boundaries < 60


def test_unknown_vr_of_undefined_length_is_an_implicit_sequence() -> None:
    inner = encoded(make_object(PixelData=None), ImplicitVRLittleEndian)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    data = struct.pack("<HH2sHL", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF) + item + end
    assert not has_pixel_data(data, 0, ExplicitVRLittleEndian)


def test_depth_is_bounded() -> None:
    syntax = ExplicitVRLittleEndian
    assert not has_pixel_data(encoded(nested(MAX_DEPTH - 1), syntax), 0, syntax)
    with pytest.raises(InvalidObjectError, match="nested deeper"):
        has_pixel_data(encoded(nested(MAX_DEPTH + 1), syntax), 0, syntax)
    endless = struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    endless += struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(InvalidObjectError, match="nested deeper"):
        has_pixel_data(endless * 200_000, 0, syntax)


def test_padding_at_the_end_passes_and_garbage_does_not() -> None:
    data = encoded(make_object(), ExplicitVRLittleEndian)
    assert has_pixel_data(data + bytes(500), 0, ExplicitVRLittleEndian)
    with pytest.raises(InvalidObjectError):
        has_pixel_data(data + b"\x01" * 500, 0, ExplicitVRLittleEndian)
    with pytest.raises(InvalidObjectError, match="empty"):
        has_pixel_data(b"", 0, ExplicitVRLittleEndian)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_random_bytes_are_judged_not_followed(data: bytes, syntax: UID) -> None:
    try:
        has_pixel_data(BytesIO(data).getvalue(), 0, syntax)
    except InvalidObjectError:
        return
    # what passes must at least begin with an element that fits
    assert len(data) >= 8 or not any(data)
