"""In which Specific Character Set an answer is written (PS3.5 6.1.2, PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydicom.charset import (
    STAND_ALONE_ENCODINGS,
    convert_encodings,
    custom_encoders,
    decode_bytes,
    default_encoding,
    encode_string,
    python_encoding,
)
from pydicom.valuerep import PN_DELIMS

UTF_8 = "ISO_IR 192"
_PARTS = re.compile(r"[\\=^]")  # values, and groups and components of names, are encoded apart
_LATIN_1 = re.compile("[\u0080-\u00ff]")


def answer_character_set(texts: Iterable[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the Specific Character Set for an answer, empty for the default repertoire.

    Parameters
    ----------
    texts : iterable of str
        All text of the answer.
    asked : sequence of str
        Specific Character Set of the request: what its sender can surely read. It is taken when
        it can express everything, UTF-8 otherwise.
    """
    parts = {part for text in texts for part in _PARTS.split(text) if not part.isascii()}
    if not parts:
        return ()
    return tuple(asked) if _can_express(parts, asked) else (UTF_8,)


def _can_express(parts: Iterable[str], asked: Sequence[str]) -> bool:
    if not asked or any(name not in python_encoding for name in asked):
        return False
    if len(asked) > 1 and any(name in STAND_ALONE_ENCODINGS for name in asked):
        return False
    encodings = convert_encodings(list(asked))
    return all(_survives(part, encodings) for part in parts)


def _survives(part: str, encodings: list[str]) -> bool:
    """Tell whether text is the same when it has been encoded and decoded again."""
    # pydicom takes the default repertoire for Latin-1, which it is not
    if default_encoding in encodings and _LATIN_1.search(part):
        return False
    if not all(any(_has(encoding, sign) for encoding in encodings) for sign in part):
        return False
    return decode_bytes(encode_string(part, encodings), encodings, PN_DELIMS) == part


def _has(encoding: str, sign: str) -> bool:
    try:
        if encoding in custom_encoders:
            custom_encoders[encoding](sign)
        else:
            sign.encode(encoding)
    except UnicodeError:
        return False
    return True
