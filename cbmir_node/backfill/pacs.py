"""What `pull` asks of another PACS, whichever protocol it speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from pydicom import Dataset

from cbmir_node.dicom.client.fetch import Retrieval, Retrieved


@dataclass(frozen=True)
class StudyQuery:
    """A search for studies; empty values match everything.

    Attributes
    ----------
    study_date, study_time : str
        Value or range (PS3.4 C.2.2.2.5).
    modality : str
        One that the study contains.
    patient_id, study_instance_uid : str
    undated : bool
        Keep only the studies without a date, which no range finds.
    """

    study_date: str = ""
    study_time: str = ""
    modality: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    undated: bool = False


@dataclass(frozen=True)
class ListedStudy:
    """A study as a PACS lists it.

    Attributes
    ----------
    study_date, study_time : str
        ``YYYYMMDD`` and ``HHMMSS…``, or empty.
    modalities, sop_classes : tuple of str
        What it contains; empty where the PACS does not say.
    instances : int
        How many; 0 where the PACS does not count.
    """

    study_instance_uid: str
    study_date: str = ""
    study_time: str = ""
    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    instances: int = 0


@dataclass(frozen=True)
class ListedSeries:
    """A series as a PACS lists it; `instances` is 0 where the PACS does not count."""

    series_instance_uid: str
    modality: str = ""
    instances: int = 0


@dataclass(frozen=True)
class ListedInstance:
    """An instance as a PACS lists it; its SOP class is empty where the PACS does not say."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""


@dataclass(frozen=True)
class Answer:
    """The studies that match a query.

    Attributes
    ----------
    studies : list of ListedStudy
    limited : bool
        Whether the PACS says that there are more. Not each that has a limit says so.
    unreadable : int
        How many more it listed, but in a way that cannot be read.
    """

    studies: list[ListedStudy]
    limited: bool = False
    unreadable: int = 0


class OtherPacs(Protocol):
    """Another PACS.

    Every method raises `PeerUnreachableError` when the PACS cannot be asked now, and
    `PeerRefusedError` when it never answers what is asked; `fetch` also `OutOfSpaceError`.
    """

    @property
    def name(self) -> str:
        """What progress is filed under."""

    @property
    def needs_sop_classes(self) -> bool:
        """Whether a retrieval should name SOP classes."""

    def studies(self, query: StudyQuery) -> Answer:
        """Search for studies."""

    def series(self, study_instance_uid: str) -> list[ListedSeries]:
        """List the series of a study."""

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[ListedInstance]:
        """List the instances of a series."""

    def fetch(self, retrieval: Retrieval, on_image: Callable[[], None]) -> Retrieved:
        """Fetch objects into the archive; `on_image` is called as they come and may take time."""


STUDY_KEYS = ("SOPClassesInStudy", "NumberOfStudyRelatedInstances")
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
INSTANCE_KEYS = ("SOPInstanceUID", "SOPClassUID")
"""What has to be asked for to be returned, beside the matching keys."""


def read_date(text: str) -> date | None:
    """Return the date of a DA value; None where it is none."""
    try:
        return datetime.strptime(text.strip(), "%Y%m%d").date()
    except ValueError:
        return None


def listed_study(answer: Dataset) -> ListedStudy:
    """Read a STUDY level answer; a date that is none counts as absent."""
    study_date = _text(answer, "StudyDate").replace(".", "")  # as ACR-NEMA wrote dates
    return ListedStudy(
        _text(answer, "StudyInstanceUID"),
        study_date if read_date(study_date) else "",
        _text(answer, "StudyTime").replace(":", ""),
        _texts(answer, "ModalitiesInStudy"),
        _texts(answer, "SOPClassesInStudy"),
        _number(answer, "NumberOfStudyRelatedInstances"),
    )


def listed_series(answer: Dataset) -> ListedSeries:
    """Read a SERIES level answer."""
    return ListedSeries(
        _text(answer, "SeriesInstanceUID"),
        _text(answer, "Modality"),
        _number(answer, "NumberOfSeriesRelatedInstances"),
    )


def listed_instance(answer: Dataset, series_instance_uid: str) -> ListedInstance:
    """Read an IMAGE level answer."""
    return ListedInstance(
        series_instance_uid, _text(answer, "SOPInstanceUID"), _text(answer, "SOPClassUID")
    )


def _texts(answer: Dataset, keyword: str) -> tuple[str, ...]:
    value = answer.get(keyword)
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return tuple(str(part).strip() for part in values if part)


def _text(answer: Dataset, keyword: str) -> str:
    return "".join(_texts(answer, keyword)[:1])


def _number(answer: Dataset, keyword: str) -> int:
    text = _text(answer, keyword)
    return int(text) if text.isdecimal() else 0
