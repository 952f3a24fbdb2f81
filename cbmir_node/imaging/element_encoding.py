"""Data elements from one encoding to another, their values untouched (PS3.5 section 7 and Annex A).

Only headers are written anew and numbers byte-swapped. Nothing is decoded and encoded again, so
a value that breaks its VR, or its character set, arrives as it was sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple, cast

import numpy as np
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

Element = RawDataElement | DataElement

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LONGEST_SHORT: Final = 0xFFFF
_PIXEL_REPRESENTATION: Final = 0x00280103

_SIZE_OF_NUMBER: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}


class Encoding(NamedTuple):
    """How a transfer syntax encodes elements."""

    implicit: bool
    little: bool


def encoding_of(transfer_syntax: str) -> Encoding:
    """Return the encoding of a transfer syntax; compressed ones are Explicit VR Little Endian."""
    return Encoding(
        implicit=transfer_syntax == ImplicitVRLittleEndian,
        little=transfer_syntax != ExplicitVRBigEndian,
    )


class ElementWriter:
    """Writes elements in one encoding.

    Group lengths are left out (retired, and wrong now). Sequences get undefined length. A nested
    sequence with compressed pixels, an icon, is left out: only Icon Image Sequence may have them,
    and no image needs one (PS3.3 C.7.6.1.1.6).

    Parameters
    ----------
    out : file
        Open for writing.
    target : Encoding
        What to write.
    """

    def __init__(self, out: BinaryIO, target: Encoding) -> None:
        self._out = out
        self._target = target
        self._order = "<" if target.little else ">"
        self._signed = False

    def write(self, elements: Iterable[Element]) -> None:
        """Write elements as pydicom reads them, in the order of their tags."""
        for element in sorted(elements, key=lambda element: element.tag):
            if element.tag.element == 0:
                continue
            if element.tag == _PIXEL_REPRESENTATION and isinstance(element, RawDataElement):
                self._signed = any(element.value or b"")
            self._write(element)

    def write_header(self, tag: int, vr: str, length: int) -> None:
        """Write tag, VR and length of an element (PS3.5 section 7.1)."""
        group, number = tag >> 16, tag & 0xFFFF
        if self._target.implicit:
            header = struct.pack(f"{self._order}HHL", group, number, length)
        elif vr in EXPLICIT_VR_LENGTH_32:
            header = struct.pack(f"{self._order}HH2sHL", group, number, vr.encode(), 0, length)
        else:
            header = struct.pack(f"{self._order}HH2sH", group, number, vr.encode(), length)
        self._out.write(header)

    def _write(self, element: Element) -> None:
        vr = element.VR or self._vr_of(element.tag)
        if isinstance(element, DataElement):  # a sequence of undefined length, parsed already
            self._write_sequence(element.tag, cast(Iterable[Dataset], element.value))
        elif element.length == UNDEFINED_LENGTH:
            pass  # private fragments, which exist in compressed transfer syntaxes only
        elif vr == "SQ":
            self._write_sequence(element.tag, _items(element))
        else:
            value = element.value or b""
            if element.is_little_endian != self._target.little:
                value = byte_swapped(value, vr)
            if len(value) > _LONGEST_SHORT and vr not in EXPLICIT_VR_LENGTH_32:
                vr = "UN"  # PS3.5 section 6.2.2
            self.write_header(element.tag, vr, len(value))
            self._out.write(value)

    def _write_sequence(self, tag: int, items: Iterable[Dataset]) -> None:
        item_elements = [list(item.values()) for item in items]
        if any(_has_fragments(elements) for elements in item_elements):
            return
        self.write_header(tag, "SQ", UNDEFINED_LENGTH)
        for elements in item_elements:
            self._write_delimiter(_ITEM, UNDEFINED_LENGTH)
            self.write(elements)
            self._write_delimiter(_ITEM_END)
        self._write_delimiter(_SEQUENCE_END)

    def _write_delimiter(self, tag: tuple[int, int], length: int = 0) -> None:
        self._out.write(struct.pack(f"{self._order}HHL", *tag, length))

    def _vr_of(self, tag: int) -> str:
        """Return the VR of an element that came without one."""
        try:
            vr = dictionary_VR(tag)
        except KeyError:  # private, or of a newer standard
            return "UN"
        if vr == "US or SS":
            return "SS" if self._signed else "US"
        return "OW" if " or " in vr else vr  # words all of them, bytes only when compressed


def byte_swapped(value: bytes, vr: str) -> bytes:
    """Return the numbers of a value in the other byte order."""
    size = _SIZE_OF_NUMBER.get(vr, 1)
    whole = len(value) - len(value) % size
    return (
        np.frombuffer(value[:whole], f"V{size}").view(f"u{size}").byteswap().tobytes()
        + (value[whole:])
    )


def _items(element: RawDataElement) -> Iterable[Dataset]:
    value = element.value or b""
    implicit, little = element.is_implicit_VR or not element.VR, element.is_little_endian
    return read_sequence(BytesIO(value), implicit, little, len(value), default_encoding)


def _has_fragments(item: Iterable[Element]) -> bool:
    return any(
        isinstance(element, RawDataElement) and element.length == UNDEFINED_LENGTH
        for element in item
    )
