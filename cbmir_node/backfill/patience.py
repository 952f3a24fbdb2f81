"""Waits for a PACS that is away for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cbmir_node.backfill.pace import Pace
from cbmir_node.backfill.pacs import Answer, ListedInstance, ListedSeries, OtherPacs, StudyQuery
from cbmir_node.dicom.client.fetch import Retrieval, Retrieved
from cbmir_node.errors import PeerUnreachableError

Result = TypeVar("Result")


class PatientPacs:
    """A PACS that is asked again, after a pause, when it cannot be reached.

    Before its first answer it is not: then the address is wrong rather than the PACS away.

    Parameters
    ----------
    pacs : OtherPacs
        The PACS.
    pace : Pace
        Waits.
    pauses_s : sequence of float
        How long before each further try, seconds.
    """

    def __init__(
        self, pacs: OtherPacs, pace: Pace, pauses_s: Sequence[float] = (30, 60, 120, 240)
    ) -> None:
        self._pacs = pacs
        self._pace = pace
        self._pauses_s = tuple(pauses_s)
        self._has_answered = False

    @property
    def name(self) -> str:
        """What progress is filed under."""
        return self._pacs.name

    @property
    def needs_sop_classes(self) -> bool:
        """Whether a retrieval should name SOP classes."""
        return self._pacs.needs_sop_classes

    def studies(self, query: StudyQuery) -> Answer:
        """Search for studies."""
        return self._patiently(lambda: self._pacs.studies(query))

    def series(self, study_instance_uid: str) -> list[ListedSeries]:
        """List the series of a study."""
        return self._patiently(lambda: self._pacs.series(study_instance_uid))

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[ListedInstance]:
        """List the instances of a series."""
        return self._patiently(
            lambda: self._pacs.instances(study_instance_uid, series_instance_uid)
        )

    def fetch(self, retrieval: Retrieval, on_image: Callable[[], None]) -> Retrieved:
        """Fetch objects into the archive."""
        return self._patiently(lambda: self._pacs.fetch(retrieval, on_image))

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        for pause_s in self._pauses_s if self._has_answered else ():
            try:
                return ask()
            except PeerUnreachableError as error:
                self._pace.pause(pause_s, str(error))
        result = ask()
        self._has_answered = True
        return result
