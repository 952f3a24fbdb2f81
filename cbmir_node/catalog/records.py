"""From a received object's attributes to the rows that describe it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue

from cbmir_node.catalog.keys import KEYS, LEVELS, Level, keys_of

_AGE = re.compile(r"(\d{1,3})([DWMY])")
_UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
_NOT_REPRESENTATIVE = frozenset({"LOCALIZER", "SCOUT", "DERIVED"})
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LONGEST_TEXT = 1024  # no VR kept here is longer, and PostgreSQL indexes no value of several kB

RECORD_KEYWORDS: tuple[str, ...] = tuple(key.keyword for key in KEYS)
"""What must be read from an object to make its record."""


@dataclass(frozen=True)
class InstanceRecord:
    """Everything the catalogue writes down about one received object.

    Attributes
    ----------
    attributes : dict
        Per level, column name to text.
    identity : str
        What makes the patient one: PatientID and issuer, or the study when there is no ID.
    age_years : float or None
        PatientAge, or the time from birth to study.
    representative : bool
        Whether the image may stand for its study: no localizer, derived image or secondary capture.
    """

    attributes: dict[Level, dict[str, str]]
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
    return {
        level: {key.column: attribute_text(dataset, key.keyword) for key in keys_of(level)}
        for level in LEVELS
    }


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
    if dictionary_VR(keyword) == "PN":
        text = "=".join(group.rstrip("^ ") for group in text.split("="))  # PS3.5 6.2.1.1
    # PostgreSQL stores no NUL, and no encoding knows lone surrogates
    text = text.replace("\0", "").strip(" ").encode("utf-8", "replace").decode("utf-8")
    return text[:_LONGEST_TEXT]


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


def is_representative(image_type: str, sop_class_uid: str) -> bool:
    """Tell whether an image may stand for its study.

    Image Type value 1 tells originals from derived images, value 3 localizers
    (PS3.3 C.7.6.1.1.2). A secondary capture, single or multi-frame, is a picture of a screen.
    """
    if sop_class_uid == _SECONDARY_CAPTURE or sop_class_uid.startswith(f"{_SECONDARY_CAPTURE}."):
        return False
    return not _NOT_REPRESENTATIVE & set(image_type.upper().split("\\"))
