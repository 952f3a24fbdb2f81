"""Whether a byte stream is a complete data set.

pydicom reads what it can and does not complain about a data set that ends too early. Before an
object is acknowledged its element headers are walked to the last byte, without recursion, so that
a truncated, random or endlessly nested data set is refused (PS3.5 section 7).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.uid import UID, ImplicitVRLittleEndian

from cbmir_node.errors import InvalidObjectError

MAX_DEPTH = 64
"""Sequences nested deeper than this are refused; real objects stay below ten."""

Bytes = bytes | memoryview | mmap.mmap

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT_VRS = frozenset(
    (
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT"),
        *(b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    )
)


@dataclass(frozen=True)
class _Encoding:
    implicit: bool
    order: str  # struct's byte order


@dataclass
class _Level:
    """An open sequence, item or the data set itself, and where it must end."""

    kind: str  # "dataset", "item", "sequence" or "fragments"
    end: int | None  # None: ended by a delimiter
    encoding: _Encoding


def has_pixel_data(data: Bytes, start: int, transfer_syntax: UID) -> bool:
    """Check the structure of a data set and tell whether it carries pixels.

    Parameters
    ----------
    data : buffer
        The file, or anything that slices like bytes (a memory map).
    start : int
        Offset of the data set's first element.
    transfer_syntax : UID
        How it is encoded; deflated data must be inflated first.

    Returns
    -------
    bool
        Whether Pixel Data, Float Pixel Data or Double Float Pixel Data is present.

    Raises
    ------
    InvalidObjectError
        The data set is empty, truncated, nested too deeply, or no data set at all.
    """
    encoding = _Encoding(
        implicit=transfer_syntax == ImplicitVRLittleEndian,
        order="<" if transfer_syntax.is_little_endian else ">",
    )
    found = False
    empty = True
    for depth, tag in _walk(data, start, len(data), encoding):
        empty = False
        found = found or (depth == 0 and tag in _PIXEL_DATA_TAGS)
    if empty:
        raise InvalidObjectError("the data set is empty")
    return found


def _walk(data: Bytes, position: int, size: int, encoding: _Encoding) -> Iterator[tuple[int, int]]:
    """Yield (depth, tag) of every element outside explicit-length sequences."""
    levels = [_Level("dataset", size, encoding)]
    while levels:
        level = levels[-1]
        if level.end is not None and position >= level.end:
            levels.pop()
            continue
        if len(levels) == 1 and _only_padding(data, position, size):
            return
        if position + 8 > size:
            raise InvalidObjectError(f"the data set is truncated at byte {position}")
        tag, vr, length, position = _element_header(data, position, size, level.encoding)
        if tag in (_ITEM_END, _SEQUENCE_END):
            _close(levels, tag, position)
            continue
        yield len(levels) - 1, tag
        opened = _opens(tag, vr, length, level)
        if opened is not None:
            levels.append(opened)
            if len(levels) > 2 * MAX_DEPTH:
                raise InvalidObjectError(f"sequences are nested deeper than {MAX_DEPTH}")
        else:
            position += length
            if position > (level.end if level.end is not None else size):
                raise InvalidObjectError(
                    f"the data set is truncated: element {_name(tag)} needs {length} bytes, "
                    f"{size - position + length} are left"
                )


def _only_padding(data: Bytes, position: int, size: int) -> bool:
    """Tell whether only zeros are left: some writers fill the last disk block."""
    return size - position <= 4096 and not any(data[position:size])


def _element_header(
    data: Bytes, position: int, size: int, encoding: _Encoding
) -> tuple[int, bytes, int, int]:
    """Read tag, VR and length (PS3.5 section 7.1); return them and the value's position."""
    order = encoding.order
    group, element = struct.unpack_from(f"{order}HH", data, position)
    tag = group << 16 | element
    if encoding.implicit or group == 0xFFFE:
        (length,) = struct.unpack_from(f"{order}L", data, position + 4)
        return tag, b"", length, position + 8
    vr = bytes(data[position + 4 : position + 6])
    if vr in _SHORT_VRS:
        (length,) = struct.unpack_from(f"{order}H", data, position + 6)
        return tag, vr, length, position + 8
    if vr in _LONG_VRS:
        if position + 12 > size:
            raise InvalidObjectError(f"the data set is truncated at byte {position}")
        (length,) = struct.unpack_from(f"{order}L", data, position + 8)
        return tag, vr, length, position + 12
    # Some writers put implicit VR elements into explicit VR sequences; pydicom copes, so do we
    if vr.isalpha() and vr.isupper():
        raise InvalidObjectError(f"element {_name(tag)} has the unknown VR {vr!r}")
    (length,) = struct.unpack_from(f"{order}L", data, position + 4)
    return tag, b"", length, position + 8


def _opens(tag: int, vr: bytes, length: int, level: _Level) -> _Level | None:
    """Return the level an element opens, or None when its value can be skipped."""
    if tag == _ITEM:
        if level.kind not in ("sequence", "fragments"):
            raise InvalidObjectError("an item stands outside a sequence: not a DICOM data set")
        if level.kind == "sequence" and length == _UNDEFINED:
            return _Level("item", None, level.encoding)
        return None
    if level.kind in ("sequence", "fragments"):
        raise InvalidObjectError(f"element {_name(tag)} stands where an item must be")
    if length != _UNDEFINED:
        return None
    if tag in _PIXEL_DATA_TAGS or vr in (b"OB", b"OW"):
        return _Level("fragments", None, level.encoding)
    # PS3.5 6.2.2: UN of undefined length is an implicit VR little endian sequence
    encoding = _Encoding(implicit=True, order="<") if vr == b"UN" else level.encoding
    return _Level("sequence", None, encoding)


def _close(levels: list[_Level], tag: int, position: int) -> None:
    expected = ("item",) if tag == _ITEM_END else ("sequence", "fragments")
    if levels[-1].kind not in expected or levels[-1].end is not None:
        raise InvalidObjectError(f"a delimiter stands alone at byte {position - 8}")
    levels.pop()


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
