"""The DICOM attributes that the catalogue keeps, and at which level of the hierarchy.

One table drives three things: the columns of the schema, what is read from a received object, and
which keys a C-FIND can match and return (PS3.4 C.6.1.1 and C.6.2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydicom.datadict import dictionary_VR, tag_for_keyword

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
LEVELS: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
StudyRootLevel = Literal["STUDY", "SERIES", "IMAGE"]
"""Levels of the Study Root model (PS3.4 C.6.2.1): those that images can be looked for at."""


@dataclass(frozen=True)
class Key:
    """One attribute of the catalogue.

    Attributes
    ----------
    keyword : str
        As in PS3.6, for example ``StudyInstanceUID``.
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
        The table it lives in.
    column : str
        Its column.
    vr : str
        Its value representation; decides how it is matched.
    """

    keyword: str
    level: Level

    @cached_property
    def column(self) -> str:
        """Column name: the keyword in snake case."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.keyword)
        return words.lower()

    @cached_property
    def vr(self) -> str:
        """Value representation of PS3.6."""
        return dictionary_VR(self.keyword)

    @property
    def tag(self) -> int:
        """Tag of PS3.6 as a number."""
        tag = tag_for_keyword(self.keyword)
        assert tag is not None  # the table below is checked by a test  # noqa: S101
        return tag

    @property
    def forms(self) -> tuple[str, ...]:
        """Columns that hold the value once more, in the forms in which it is matched."""
        suffixes = {"PN": NAME_GROUPS, "DT": MOMENTS}.get(self.vr, ())
        return tuple(f"{self.column}_{suffix}" for suffix in suffixes)


_KEYWORDS: dict[Level, tuple[str, ...]] = {
    "PATIENT": (
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
    ),
    "STUDY": (
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
        "PatientAge",
        "InstitutionName",
    ),
    "SERIES": (
        "SeriesInstanceUID",
        "Modality",
        "BodyPartExamined",
        "SeriesNumber",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "Laterality",
        "ProtocolName",
        "Manufacturer",
        "StationName",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
    ),
    "IMAGE": (
        "SOPInstanceUID",
        "SOPClassUID",
        "InstanceNumber",
        "ImageType",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "BitsAllocated",
        "PhotometricInterpretation",
        "ContentDate",
        "ContentTime",
        "AcquisitionNumber",
        "AcquisitionDateTime",
    ),
}

NAME_GROUPS = ("alphabetic", "ideographic", "phonetic")
"""Component groups of a person name (PS3.5 6.2.1.1); each is kept once more, folded, to match."""

MOMENTS = ("first", "last")
"""A date-time (VR DT) is kept once more as the first and last microsecond that it can mean."""


@dataclass(frozen=True)
class SequenceKey:
    """A sequence whose items can be matched (PS3.4 C.2.2.2.6).

    Attributes
    ----------
    keyword : str
        Of the sequence.
    level : {"STUDY", "SERIES"}
        What has the sequence.
    items : tuple of Key
        What is kept of each item.
    table : str
        Where.
    """

    keyword: str
    level: Level
    items: tuple[Key, ...]
    table: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The keys of its items as PS3.18 6.7.1.1.1 names them: ``Sequence.Attribute``."""
        return tuple(f"{self.keyword}.{key.keyword}" for key in self.items)


def _sequence(keyword: str, level: Level, table: str, *items: str) -> SequenceKey:
    return SequenceKey(keyword, level, tuple(Key(item, level) for item in items), table)


SEQUENCES: tuple[SequenceKey, ...] = (
    _sequence(
        *("ProcedureCodeSequence", "STUDY", "procedure_codes"),
        *("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
    ),
    _sequence(
        *("RequestAttributesSequence", "SERIES", "request_attributes"),
        *("RequestedProcedureID", "ScheduledProcedureStepID", "AccessionNumber"),
    ),
)

KEYS: tuple[Key, ...] = tuple(
    Key(keyword, level) for level, keywords in _KEYWORDS.items() for keyword in keywords
)
KEY_BY_KEYWORD: dict[str, Key] = {key.keyword: key for key in KEYS}
SEQUENCE_BY_KEYWORD: dict[str, SequenceKey] = {one.keyword: one for one in SEQUENCES}
UNIQUE_KEY: dict[Level, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
"""The unique key attribute of each level (PS3.4 C.2.2.1.1)."""


def keys_of(level: Level) -> tuple[Key, ...]:
    """Return the keys kept at `level`."""
    return tuple(key for key in KEYS if key.level == level)
