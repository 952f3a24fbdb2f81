"""What an ordinary or similarity query asks, whichever protocol brought it."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword

from cbmir_node.catalog.keys import Level


@dataclass(frozen=True)
class QueryKeys:
    """Keys of a C-FIND identifier or of a QIDO-RS request.

    Attributes
    ----------
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
        What is asked for.
    matching : dict of str to str
        Keyword to text of each supported key that restricts the answer; one inside a sequence is
        named ``Sequence.Attribute``.
    requested : tuple of str
        Keywords of all supported keys to return, in the order of their tags; a sequence that is
        wanted whole by its own keyword, otherwise as in `matching`.
    has_unsupported : bool
        Whether a standard key was sent that is neither matched nor, without a value to match,
        returned.
    character_set : tuple of str
        Specific Character Set of the request; empty for the default repertoire.
    """

    level: Level
    matching: dict[str, str]
    requested: tuple[str, ...]
    has_unsupported: bool = False
    character_set: tuple[str, ...] = ()


def is_definite(keyword: str, value: str) -> bool:
    """Tell whether a key's value names something, rather than matching a pattern or anything."""
    if dictionary_VR(keyword) == "UI":
        value = value.strip(" ")
    return bool(value) and not any(sign in value for sign in "*?")


def tag_of(keyword: str) -> int:
    """Return the tag of a standard keyword."""
    tag = tag_for_keyword(keyword)
    assert tag is not None  # noqa: S101  keywords come from the catalogue's table
    return tag
