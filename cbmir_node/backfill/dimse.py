"""Another PACS that speaks DIMSE: C-FIND, and C-GET or C-MOVE."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from cbmir_node.backfill.pacs import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Answer,
    ListedInstance,
    ListedSeries,
    StudyQuery,
    listed_instance,
    listed_series,
    listed_study,
)
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.fetch import Retrieval, Retrieved, get, move
from cbmir_node.dicom.client.find import Query, querying
from cbmir_node.intake import Intake


class DimsePacs:
    """A PACS behind an AE title.

    Parameters
    ----------
    peer : Peer
        Its address.
    intake : Intake
        Where C-GET puts objects.
    by : {"get", "move"}
        How objects come: over our own association, or from the PACS to the running node.
    ae_title : str
        Our title, and the destination of C-MOVE.
    timeout : float
        Longest wait for an answer or an object, seconds.
    """

    def __init__(
        self,
        peer: Peer,
        intake: Intake,
        *,
        by: Literal["get", "move"],
        ae_title: str,
        timeout: float,
    ) -> None:
        self._peer = peer
        self._intake = intake
        self._by = by
        self._ae_title = ae_title
        self._timeout = timeout

    @property
    def name(self) -> str:
        """The AE title: host and port may change."""
        return self._peer.ae_title

    @property
    def needs_sop_classes(self) -> bool:
        """C-GET proposes presentation contexts of them; C-MOVE leaves that to the PACS."""
        return self._by == "get"

    def studies(self, query: StudyQuery) -> Answer:
        """Search for studies (PS3.4 C.6.2.1.2)."""
        keys = {
            "StudyInstanceUID": query.study_instance_uid,
            "StudyDate": query.study_date,
            "StudyTime": query.study_time,
            "PatientID": query.patient_id,
            "ModalitiesInStudy": query.modality,
            **dict.fromkeys(STUDY_KEYS, ""),
        }
        with self._querying() as asked:
            studies = [
                study
                for study in map(listed_study, asked.find("STUDY", keys))
                if study.study_instance_uid and not (query.undated and study.study_date)
            ]
            return Answer(studies, asked.limited, asked.unreadable)

    def series(self, study_instance_uid: str) -> list[ListedSeries]:
        """List the series of a study."""
        keys = {"StudyInstanceUID": study_instance_uid, **dict.fromkeys(SERIES_KEYS, "")}
        with self._querying() as asked:
            return [listed_series(answer) for answer in asked.find("SERIES", keys)]

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[ListedInstance]:
        """List the instances of a series."""
        keys = {
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": series_instance_uid,
            **dict.fromkeys(INSTANCE_KEYS, ""),
        }
        with self._querying() as asked:
            return [
                listed_instance(answer, series_instance_uid) for answer in asked.find("IMAGE", keys)
            ]

    def fetch(self, retrieval: Retrieval, on_image: Callable[[], None]) -> Retrieved:
        """Fetch by C-GET or C-MOVE."""
        if self._by == "get":
            return get(
                self._peer,
                retrieval,
                self._intake,
                calling_ae_title=self._ae_title,
                timeout=self._timeout,
                on_image=on_image,
            )
        done = move(
            self._peer,
            retrieval,
            self._ae_title,
            calling_ae_title=self._ae_title,
            timeout=self._timeout,
        )
        for _ in range(done.images):
            on_image()
        return done

    def _querying(self) -> AbstractContextManager[Query]:
        return querying(self._peer, calling_ae_title=self._ae_title, timeout=self._timeout)
