"""Matches of a query as data sets: identifiers of C-FIND responses (PS3.4 C.4.1.1.3.2), QIDO-RS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag, Tag

from cbmir_node.answers.character_sets import answer_character_set
from cbmir_node.answers.query_keys import QueryKeys, tag_of
from cbmir_node.catalog.keys import SEQUENCE_BY_KEYWORD
from cbmir_node.catalog.query.hierarchy import Match
from cbmir_node.config import Settings

_NUMBER_RANGES = {"IS": (-(2**31), 2**31 - 1), "US": (0, 65535)}
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def make_answer(match: Match, keys: QueryKeys, settings: Settings) -> Dataset:
    """Return what is answered of one match.

    Parameters
    ----------
    match : Match
        Catalogue text; what was asked for and has no value is answered empty.
    keys : QueryKeys
        What was asked for, and in which character set.
    settings : Settings
        Names who retrieves the objects: the node, or whoever has what is not kept here.
    """
    answer = Dataset()
    answer.QueryRetrieveLevel = keys.level
    elsewhere = settings.retention.retrieve_from
    retrieved_here = match.kept or elsewhere is None
    answer.RetrieveAETitle = settings.dicom.ae_title if retrieved_here else elsewhere
    answer.InstanceAvailability = "ONLINE" if match.kept or elsewhere else "UNAVAILABLE"
    for keyword, wanted in _grouped(keys.requested).items():
        if keyword in SEQUENCE_BY_KEYWORD:
            items = match.items.get(keyword, [])
            sequence = [_item(item, wanted or tuple(item)) for item in items]
            answer.add(DataElement(_tag_and_vr(keyword)[0], "SQ", sequence))
        else:
            answer.add(_element(keyword, match.values.get(keyword, "")))
    character_set = answer_character_set(_texts(match, keys), keys.character_set)
    if character_set:
        answer.SpecificCharacterSet = list(character_set)
    return answer


def _grouped(requested: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the elements to answer, each sequence with the keywords wanted of its items."""
    wanted: dict[str, tuple[str, ...]] = {}
    for path in requested:
        keyword, _, inside = path.partition(".")
        wanted[keyword] = (*wanted.get(keyword, ()), *([inside] if inside else []))
    return wanted


def _texts(match: Match, keys: QueryKeys) -> Iterator[str]:
    """Yield the text of an answer that follows Specific Character Set."""
    for keyword, text in match.values.items():
        if _tag_and_vr(keyword)[1] in _TEXT_VRS:
            yield text
    for path in keys.requested:
        for item in match.items.get(path.partition(".")[0], []):
            yield from item.values()


def _item(values: Mapping[str, str], keywords: tuple[str, ...]) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        item.add(_element(keyword, values.get(keyword, "")))
    return item


def _element(keyword: str, text: str) -> DataElement:
    """Make an element of catalogue text; what does not fit the VR is left out.

    The catalogue keeps what senders wrote, so one bad value must not break an answer.
    """
    tag, vr = _tag_and_vr(keyword)
    if vr in _NUMBER_RANGES:
        return DataElement(tag, vr, _numbers(text, *_NUMBER_RANGES[vr]) or None)
    if vr not in _TEXT_VRS and not text.isascii():  # only text follows Specific Character Set
        text = text.encode("ascii", "replace").decode()
    return DataElement(tag, vr, text or None)


@cache  # pydicom searches its dictionary each time
def _tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    return Tag(tag_of(keyword)), dictionary_VR(keyword)


def _numbers(text: str, low: int, high: int) -> list[int]:
    numbers = []
    for part in text.split("\\"):
        try:
            number = int(part)
        except ValueError:
            continue
        if low <= number <= high:
            numbers.append(number)
    return numbers
