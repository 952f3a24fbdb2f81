"""Elements that are read as they stand: most of any header (PS3.18 section F.2.3).

pydicom takes some 50 µs for an element, and the series of a CT has a million of them. What it
would do more about than to split a text or to unpack numbers is left to it.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement

_TEXTS: Final = frozenset({"AE", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI"})
_SINGLE_TEXTS: Final = frozenset({"LT", "ST", "UR", "UT"})
_NUMBER_TEXTS: Final = {"DS": float, "IS": int}
_ALL_TEXTS: Final = _TEXTS | _SINGLE_TEXTS | {*_NUMBER_TEXTS, "PN"}
_NUMBERS: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}
_ESCAPE: Final = b"\x1b"


def plain_json(element: RawDataElement) -> dict[str, Any] | None:
    """Return the DICOM JSON of an element, or None where pydicom must look at it."""
    vr = element.VR or _vr_of(element.tag)
    value = element.value
    if not value:
        return None
    if vr in _NUMBERS:
        return _numbers(vr, value, "<" if element.is_little_endian else ">")
    # ASCII is the same in every character set, but after an escape sequence (PS3.5 6.1.2.5)
    if vr in _ALL_TEXTS and value.isascii() and _ESCAPE not in value:
        return _texts(vr, value.rstrip(b" \0").decode("ascii"))
    return None


def _texts(vr: str, text: str) -> dict[str, Any] | None:
    parts = [text] if vr in _SINGLE_TEXTS else text.split("\\")
    if any(not part or part != part.strip(" \0\r\n\t\f") for part in parts):
        return None
    if vr in _NUMBER_TEXTS:
        return _number_texts(vr, parts)
    if vr == "PN":
        names = [{"Alphabetic": part} for part in parts]
        return None if "=" in text else {"vr": vr, "Value": names}
    return {"vr": vr, "Value": parts}


def _vr_of(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:  # private, or of a newer standard
        return "UN"


def _numbers(vr: str, value: bytes, order: str) -> dict[str, Any] | None:
    code = _NUMBERS[vr]
    number, rest = divmod(len(value), struct.calcsize(f"<{code}"))
    if rest:
        return None
    return {"vr": vr, "Value": list(struct.unpack(f"{order}{number}{code}", value))}


def _number_texts(vr: str, parts: list[str]) -> dict[str, Any] | None:
    try:
        return {"vr": vr, "Value": [_NUMBER_TEXTS[vr](part) for part in parts]}
    except ValueError:
        return None
