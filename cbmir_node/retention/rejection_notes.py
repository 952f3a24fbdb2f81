"""Rejection notes: Key Object Selections that say that objects must not be used any more.

IHE Radiology, Imaging Object Change Management (IOCM), transaction RAD-66. The titles are those of
context group 7011 (PS3.16) that reject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from cbmir_node.archive.header import is_uid
from cbmir_node.catalog.retention.tombstones import Cause

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
"""Key Object Selection Document Storage."""

CAUSE_OF_TITLE: dict[str, Cause] = {
    "113001": "rejected",  # Rejected for Quality Reasons
    "113037": "rejected",  # Rejected for Patient Safety Reasons
    "113038": "rejected",  # Incorrect Modality Worklist Entry
    "113039": "deleted",  # Data Retention Policy Expired
}
"""Code Value of the document title, coding scheme DCM, to what becomes of the objects."""


@dataclass(frozen=True)
class RejectionNote:
    """What a rejection note says.

    Attributes
    ----------
    cause : {"deleted", "rejected"}
        Whether the objects may come again.
    title : str
        Code and meaning of the document title.
    objects : tuple of (str, str)
        SOP Instance UID and Study Instance UID of each object it names.
    """

    cause: Cause
    title: str
    objects: tuple[tuple[str, str], ...]


def read_rejection_note(path: Path) -> RejectionNote | None:
    """Read a validated Key Object Selection; None when its title does not reject.

    What is rejected is what Current Requested Procedure Evidence Sequence (0040,A375) references,
    except the note itself.
    """
    note = dcmread(
        path,
        specific_tags=[
            "SOPInstanceUID",
            "ConceptNameCodeSequence",
            "CurrentRequestedProcedureEvidenceSequence",
        ],
    )
    titles = list(note.get("ConceptNameCodeSequence") or [])
    code = str(titles[0].get("CodeValue", "")) if titles else ""
    scheme = str(titles[0].get("CodingSchemeDesignator", "")) if titles else ""
    if scheme != "DCM" or code not in CAUSE_OF_TITLE:
        return None
    own = str(note.get("SOPInstanceUID", ""))
    objects = dict(pair for pair in _references(note) if pair[0] != own)
    title = f"{code} {titles[0].get('CodeMeaning', '')}".strip()
    return RejectionNote(CAUSE_OF_TITLE[code], title, tuple(objects.items()))


def _references(note: Dataset) -> Iterator[tuple[str, str]]:
    for study in note.get("CurrentRequestedProcedureEvidenceSequence") or []:
        for series in study.get("ReferencedSeriesSequence") or []:
            for reference in series.get("ReferencedSOPSequence") or []:
                uid = str(reference.get("ReferencedSOPInstanceUID", ""))
                if is_uid(uid):
                    yield uid, str(study.get("StudyInstanceUID", ""))
