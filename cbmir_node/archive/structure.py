"""Whether a byte stream is a complete data set.

pydicom reads what it can and does not complain about a data set that ends too early. Before an
object is acknowledged its element headers are walked to the last byte, without recursion, so that
a truncated, random or endlessly nested data set is refused (PS3.5 section 7). Elements are counted:
a few kilobytes deflated can hold millions of empty ones, and each costs time.
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

MAX_ELEMENTS = 1_000_000
"""More elements and items outside explicit-length sequences are refused; each takes about 1 µs.

Real objects have up to some 100 000: frames of whole slides and functional groups.
"""

MAX_LEADING_ELEMENTS = 50_000
"""More of them before the end of the last wanted attribute are refused.

pydicom reads these, and takes up to 17 µs for each. Long sequences follow the attributes that
describe the object: functional groups (5200), structure sets (3006), content items (0040).
"""

FIRST_PIXEL_DATA_TAG = 0x7FE00008
"""Float Pixel Data, the first element that is no longer a description (PS3.6)."""

Bytes = bytes | memoryview | mmap.mmap

_MAX_PADDING = 1 << 16
_LAST_COMMAND_TAG = 0x0000FFFF  # PS3.7 E.1: group 0000 is for messages; zeros would pass for it

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
class Structure:
    """What the walk over a complete data set has shown.

    Attributes
    ----------
    has_pixels : bool
        Whether Pixel Data, Float Pixel Data or Double Float Pixel Data is present.
    attributes_end : int
        Offset behind the last wanted attribute; the data set's start where there is none.
    """

    has_pixels: bool
    attributes_end: int


class _Encoding:
    """How element headers are encoded (PS3.5 section 7.1)."""

    def __init__(self, *, implicit: bool, order: str) -> None:
        self.implicit = implicit
        self.short = struct.Struct(f"{order}HH2sH").unpack_from
        self.length = struct.Struct(f"{order}L").unpack_from


@dataclass
class _Level:
    """An open sequence, item or the data set itself, and where it must end."""

    kind: str  # "dataset", "item", "sequence" or "fragments"
    end: int | None  # None: ended by a delimiter
    encoding: _Encoding


def check_structure(
    data: Bytes, start: int, transfer_syntax: UID, wanted: frozenset[int] = frozenset()
) -> Structure:
    """Check the structure of a data set from its first element to its last.

    Parameters
    ----------
    data : buffer
        The file, or anything that slices like bytes (a memory map).
    start : int
        Offset of the data set's first element.
    transfer_syntax : UID
        How it is encoded; deflated data must be inflated first.
    wanted : frozenset of int
        Tags of the attributes that will be read; those behind Pixel Data do not count.

    Raises
    ------
    InvalidObjectError
        The data set is empty, truncated, nested too deeply, has too many elements, or is no data
        set at all.
    """
    encoding = _Encoding(
        implicit=transfer_syntax == ImplicitVRLittleEndian,
        order="<" if transfer_syntax.is_little_endian else ">",
    )
    found = in_wanted = behind_attributes = False
    attributes_end = start
    number = 0
    for number, (depth, tag, position) in enumerate(_walk(data, start, len(data), encoding), 1):
        if number > MAX_ELEMENTS:
            raise InvalidObjectError(f"the data set has more than {MAX_ELEMENTS} elements")
        if depth == 0:
            if in_wanted:
                attributes_end = position
            behind_attributes = behind_attributes or tag >= FIRST_PIXEL_DATA_TAG
            in_wanted = tag in wanted and not behind_attributes
            found = found or tag in _PIXEL_DATA_TAGS
        if in_wanted and number > MAX_LEADING_ELEMENTS:
            raise InvalidObjectError(
                f"the attributes that describe the object lie behind more than "
                f"{MAX_LEADING_ELEMENTS} elements"
            )
    if number == 0:
        raise InvalidObjectError("the data set is empty")
    return Structure(found, len(data) if in_wanted else attributes_end)


def _walk(
    data: Bytes, position: int, size: int, encoding: _Encoding
) -> Iterator[tuple[int, int, int]]:
    """Yield (depth, tag, offset) of every element outside explicit-length sequences."""
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
        start = position
        tag, vr, length, position = _element_header(data, start, size, level.encoding)
        if tag in (_ITEM_END, _SEQUENCE_END):
            _close(levels, tag, position)
            continue
        yield len(levels) - 1, tag, start
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
        if tag <= _LAST_COMMAND_TAG:
            raise InvalidObjectError(
                f"the command element {_name(tag)} stands in the data set at byte {start}"
            )


def _only_padding(data: Bytes, position: int, size: int) -> bool:
    """Tell whether only zeros are left: some writers fill the last disk block."""
    return size - position <= _MAX_PADDING and not any(data[position:size])


def _element_header(
    data: Bytes, position: int, size: int, encoding: _Encoding
) -> tuple[int, bytes, int, int]:
    """Read tag, VR and length (PS3.5 section 7.1); return them and the value's position."""
    group, element, vr, length = encoding.short(data, position)
    tag = group << 16 | element
    if encoding.implicit or group == 0xFFFE:
        (length,) = encoding.length(data, position + 4)
        return tag, b"", length, position + 8
    if vr in _SHORT_VRS:
        return tag, vr, length, position + 8
    if vr in _LONG_VRS:
        if position + 12 > size:
            raise InvalidObjectError(f"the data set is truncated at byte {position}")
        (length,) = encoding.length(data, position + 8)
        return tag, vr, length, position + 12
    # Some writers put implicit VR elements into explicit VR sequences; pydicom copes, so do we
    if vr.isalpha() and vr.isupper():
        raise InvalidObjectError(f"element {_name(tag)} has the unknown VR {vr!r}")
    (length,) = encoding.length(data, position + 4)
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
