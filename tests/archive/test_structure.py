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

from cbmir_node.archive import structure
from cbmir_node.archive.structure import (
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_LEADING_ELEMENTS,
    check_structure,
)
from cbmir_node.errors import InvalidObjectError
from tests.objects import make_object

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
EMPTY = struct.pack("<HHL", 0x0009, 0x1001, 0)
MODALITY = struct.pack("<HHL2s", 0x0008, 0x0060, 2, b"CT")
SEQUENCE = struct.pack("<HHL", 0x0008, 0x1115, 0xFFFFFFFF)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
FRAGMENTS = struct.pack("<HHL", 0x7FE0, 0x0010, 0xFFFFFFFF)


def has_pixel_data(data: bytes, start: int, syntax: UID) -> bool:
    return check_structure(data, start, syntax).has_pixels


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
    for padding in (3, 500, 1 << 16):
        assert has_pixel_data(data + bytes(padding), 0, ExplicitVRLittleEndian)
    with pytest.raises(InvalidObjectError):
        has_pixel_data(data + b"\x01" * 500, 0, ExplicitVRLittleEndian)
    with pytest.raises(InvalidObjectError, match="empty"):
        has_pixel_data(b"", 0, ExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_zeros_are_refused_where_they_begin(syntax: UID) -> None:
    data = encoded(make_object(), syntax)
    with pytest.raises(InvalidObjectError, match=rf"\(0000,0000\) .* at byte {len(data)}$"):
        has_pixel_data(data + bytes(32 << 20), 0, syntax)


def test_floods_of_empty_elements_are_bounded() -> None:
    syntax = ImplicitVRLittleEndian
    assert not has_pixel_data(EMPTY * MAX_ELEMENTS, 0, syntax)
    with pytest.raises(InvalidObjectError, match="more than 1000000 elements"):
        has_pixel_data(EMPTY * (MAX_ELEMENTS + 1), 0, syntax)


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        (SEQUENCE, ITEM + ITEM_END, SEQUENCE_END),
        (SEQUENCE + ITEM, EMPTY, ITEM_END + SEQUENCE_END),
        (b"", SEQUENCE + SEQUENCE_END, b""),
        (FRAGMENTS, struct.pack("<HHL", 0xFFFE, 0xE000, 0), SEQUENCE_END),
    ],
    ids=["items", "elements of an item", "sequences", "fragments"],
)
def test_whatever_repeats_is_counted(
    monkeypatch: pytest.MonkeyPatch, before: bytes, repeated: bytes, after: bytes
) -> None:
    monkeypatch.setattr(structure, "MAX_ELEMENTS", 1000)
    check_structure(before + repeated * 998 + after, 0, ImplicitVRLittleEndian)
    with pytest.raises(InvalidObjectError, match="more than 1000 elements"):
        check_structure(before + repeated * 1001 + after, 0, ImplicitVRLittleEndian)


def test_the_end_of_the_wanted_attributes_is_found_in_any_order() -> None:
    wanted = frozenset({0x00080060})
    for data, end in {
        EMPTY: 0,
        MODALITY: len(MODALITY),
        EMPTY + MODALITY + EMPTY: len(EMPTY + MODALITY),
        MODALITY + EMPTY + MODALITY + EMPTY: len(MODALITY + EMPTY + MODALITY),
        SEQUENCE + ITEM + MODALITY + ITEM_END + SEQUENCE_END: 0,  # another data set's
        struct.pack("<HHL", 0x7FE0, 0x0010, 0) + MODALITY: 0,
    }.items():
        assert check_structure(data, 0, ImplicitVRLittleEndian, wanted).attributes_end == end


@pytest.mark.parametrize(
    "flood",
    [
        EMPTY * MAX_LEADING_ELEMENTS + MODALITY,
        # the attribute itself is the flood
        struct.pack("<HHL", 0x0008, 0x0060, 0xFFFFFFFF)
        + (ITEM + ITEM_END) * MAX_LEADING_ELEMENTS
        + SEQUENCE_END,
    ],
    ids=["before", "inside"],
)
def test_few_elements_may_precede_a_wanted_attribute(flood: bytes) -> None:
    wanted = frozenset({0x00080060})
    assert check_structure(flood, 0, ImplicitVRLittleEndian)
    assert check_structure(MODALITY + EMPTY * 60_000, 0, ImplicitVRLittleEndian, wanted)
    with pytest.raises(InvalidObjectError, match="behind more than 50000 elements"):
        check_structure(flood, 0, ImplicitVRLittleEndian, wanted)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_random_bytes_are_judged_not_followed(data: bytes, syntax: UID) -> None:
    try:
        has_pixel_data(BytesIO(data).getvalue(), 0, syntax)
    except InvalidObjectError:
        return
    # what passes must at least begin with an element that fits
    assert len(data) >= 8 or not any(data)
