"""From a received object's attributes to the rows that describe it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import date

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue

from cbmir_node.catalog.keys import KEYS, LEVELS, SEQUENCES, Key, Level, SequenceKey, keys_of
from cbmir_node.catalog.query.moments import moments
from cbmir_node.catalog.query.person_names import folded_groups
from cbmir_node.catalog.reception.representation import is_representative

_AGE = re.compile(r"(\d{1,3})([DWMY])")
_UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
# longer than any value of the VRs kept here, and short enough for an index of PostgreSQL
_LONGEST_VALUE = 256
_LONGEST_LIST = 1024  # of values, which no index holds
# a sequence that takes longer to read than an object should, and more items than anybody matches
_LONGEST_SEQUENCE_BYTES = 1 << 16
_MOST_ITEMS = 64
_OLD_DATE = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
_OLD_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?")

RECORD_KEYWORDS: tuple[str, ...] = (
    *(key.keyword for key in KEYS),
    *(sequence.keyword for sequence in SEQUENCES),
)
"""What must be read from an object to make its record."""


@dataclass(frozen=True)
class InstanceRecord:
    """Everything the catalogue writes down about one received object.

    Attributes
    ----------
    attributes : dict
        Per level, column name to text.
    items : dict
        Per sequence with items (its keyword), the columns of each item.
    identity : str
        What makes the patient one: PatientID and issuer, or the study when there is no ID.
    age_years : float or None
        PatientAge, or the time from birth to study.
    representative : bool
        Whether the image may stand for its study: no localizer, derived image or secondary capture.
    forward_to : tuple of str
        AE titles that the object is to be sent on to.
    """

    attributes: dict[Level, dict[str, str]]
    items: dict[str, list[dict[str, str]]]
    identity: str
    age_years: float | None
    representative: bool
    transfer_syntax_uid: str
    has_pixels: bool
    path: str
    size_bytes: int
    content_sha256: str
    source: str
    received_at: float
    forward_to: tuple[str, ...] = ()

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the object."""
        return self.attributes["IMAGE"]["sop_instance_uid"]


def make_record(
    dataset: Dataset,
    *,
    transfer_syntax_uid: str,
    has_pixels: bool,
    path: str,
    size_bytes: int,
    content_sha256: str,
    source: str,
    received_at: float,
) -> InstanceRecord:
    """Describe a stored object for the catalogue."""
    attributes = read_attributes(dataset)
    return InstanceRecord(
        attributes=attributes,
        items=read_items(dataset),
        identity=patient_identity(attributes),
        age_years=age_in_years(
            attributes["STUDY"]["patient_age"],
            attributes["PATIENT"]["patient_birth_date"],
            attributes["STUDY"]["study_date"],
        ),
        representative=is_representative(
            attributes["IMAGE"]["image_type"], attributes["IMAGE"]["sop_class_uid"]
        ),
        transfer_syntax_uid=transfer_syntax_uid,
        has_pixels=has_pixels,
        path=path,
        size_bytes=size_bytes,
        content_sha256=content_sha256,
        source=source,
        received_at=received_at,
    )


def read_attributes(dataset: Dataset) -> dict[Level, dict[str, str]]:
    """Return what the catalogue keeps of a data set: per level, column name to text."""
    return {level: _columns(dataset, keys_of(level)) for level in LEVELS}


def read_items(dataset: Dataset) -> dict[str, list[dict[str, str]]]:
    """Return what the catalogue keeps of sequences: per sequence, the columns of each item."""
    found = {sequence.keyword: _items(dataset, sequence) for sequence in SEQUENCES}
    return {keyword: items for keyword, items in found.items() if items}


def value_columns(key: Key, text: str) -> dict[str, str]:
    """Return the columns that hold a value: as it was read, and in the forms that are matched."""
    columns = {key.column: text}
    if key.vr == "PN":
        columns |= zip(key.forms, folded_groups(text).values(), strict=True)
    elif key.vr == "DT":
        try:
            columns |= zip(key.forms, moments(text), strict=True)
        except ValueError:  # nothing is earlier or later than what is no date-time
            columns |= dict.fromkeys(key.forms, "")
    return columns


def _columns(dataset: Dataset, keys: tuple[Key, ...]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for key in keys:
        text = attribute_text(dataset, key.keyword)
        columns |= value_columns(key, text[: _longest(key.keyword)])
    return columns


def _items(dataset: Dataset, sequence: SequenceKey) -> list[dict[str, str]]:
    """Return the columns of a sequence's items, without empty ones."""
    raw = dataset.get_item(sequence.keyword)
    value = getattr(raw, "value", None)
    if not value or (isinstance(value, bytes) and len(value) > _LONGEST_SEQUENCE_BYTES):
        return []
    try:
        items = list(dataset[sequence.keyword].value)[:_MOST_ITEMS]
        found = [_columns(item, sequence.items) for item in items]
    except Exception:  # pydicom raises many kinds on what is no sequence
        return []
    return [columns for columns in found if any(columns.values())]


def attribute_text(dataset: Dataset, keyword: str) -> str:
    """Return an attribute's value as catalogue text: values joined by backslash, padding removed.

    A value that breaks its VR is kept as far as it can be read: finding a sloppily written object
    is worth more than refusing it.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises many kinds on values that break their VR
        value = getattr(dataset.get_item(keyword), "value", b"") or b""
    if value is None:
        return ""
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace")
    elif isinstance(value, (MultiValue, list)):
        text = "\\".join(str(item).strip(" \0") for item in value)
    else:
        text = str(value)
    vr = _vr(keyword)
    if vr == "PN":
        text = "=".join(group.rstrip("^ ") for group in text.split("="))  # PS3.5 6.2.1.1
    # PostgreSQL stores no NUL, and no encoding knows lone surrogates
    text = text.replace("\0", "").strip(" ").encode("utf-8", "replace").decode("utf-8")
    return _written_plainly(text, vr)


@functools.cache
def _vr(keyword: str) -> str:
    """Look up a VR once: it costs more than reading the value."""
    return dictionary_VR(keyword)


@functools.cache
def _longest(keyword: str) -> int:
    return _LONGEST_VALUE if dictionary_VM(keyword) == "1" else _LONGEST_LIST


def _written_plainly(text: str, vr: str) -> str:
    """Return a date or time without the delimiters of ACR-NEMA, an integer without zeros."""
    if vr == "DA":
        return _OLD_DATE.sub(r"\1\2\3", text)
    if vr == "TM" and _OLD_TIME.fullmatch(text):
        return text.replace(":", "")
    if vr == "IS" and _INTEGER.fullmatch(text):
        return str(int(text))
    return text


def patient_identity(attributes: dict[Level, dict[str, str]]) -> str:
    """Return what tells this patient from all others."""
    patient_id = attributes["PATIENT"]["patient_id"]
    if not patient_id:
        return f"study:{attributes['STUDY']['study_instance_uid']}"
    return f"id:{patient_id}\\{attributes['PATIENT']['issuer_of_patient_id']}"


def age_in_years(age: str, birth_date: str, study_date: str) -> float | None:
    """Return the patient's age at the study.

    Parameters
    ----------
    age : str
        PatientAge (VR AS: ``045Y``, ``003M``…).
    birth_date, study_date : str
        VR DA. They stand in for an absent age, which grows by one on each birthday: on March 1st
        for those born on February 29th, in years that lack it.
    """
    found = _AGE.fullmatch(age)
    if found:
        return int(found[1]) / _UNITS_PER_YEAR[found[2]]
    try:
        born = date.fromisoformat(birth_date)
        studied = date.fromisoformat(study_date)
    except ValueError:
        return None
    if studied < born:
        return None
    years = studied.year - born.year - (studied < _birthday(born, studied.year))
    since_birthday = studied - _birthday(born, born.year + years)
    return years + since_birthday.days / 366  # never a whole year before the birthday


def _birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:  # February 29th
        return date(year, 3, 1)
