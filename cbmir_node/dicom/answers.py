"""The identifiers of C-FIND responses (PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR

from cbmir_node.catalog.keys import Level
from cbmir_node.dicom.keys import tag_of

CHARACTER_SET = "ISO_IR 192"
"""Specific Character Set of UTF-8, for what is not ASCII."""

_NUMBER_RANGES = {"IS": (-(2**31), 2**31 - 1), "US": (0, 65535)}
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def make_answer(
    values: Mapping[str, str], requested: Iterable[str], level: Level, retrieve_ae_title: str
) -> Dataset:
    """Return one response identifier.

    Parameters
    ----------
    values : mapping of str to str
        Catalogue text by keyword, several values joined by backslash.
    requested : iterable of str
        Keywords asked for; those without a value are answered empty.
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
        Query/Retrieve Level.
    retrieve_ae_title : str
        From where the objects can be retrieved.
    """
    answer = Dataset()
    answer.QueryRetrieveLevel = level
    answer.RetrieveAETitle = retrieve_ae_title
    answer.InstanceAvailability = "ONLINE"
    for keyword in requested:
        answer.add(_element(keyword, values.get(keyword, "")))
    if any(not value.isascii() for value in values.values()):
        answer.SpecificCharacterSet = CHARACTER_SET
    return answer


def _element(keyword: str, text: str) -> DataElement:
    """Make an element of catalogue text; what does not fit the VR is left out.

    The catalogue keeps what senders wrote, so one bad value must not break an answer.
    """
    vr = dictionary_VR(keyword)
    if vr in _NUMBER_RANGES:
        return DataElement(tag_of(keyword), vr, _numbers(text, *_NUMBER_RANGES[vr]) or None)
    if vr not in _TEXT_VRS:  # only text follows Specific Character Set
        text = text.encode("ascii", "replace").decode()
    return DataElement(tag_of(keyword), vr, text or None)


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
