"""A PACS in this process that misbehaves on purpose, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from cbmir_node.dicom.client.association import Peer

LEVEL_KEYS = {
    "STUDY": ("StudyInstanceUID", "StudyDate", "StudyTime", "PatientID"),
    "SERIES": ("SeriesInstanceUID", "StudyInstanceUID", "Modality"),
    "IMAGE": ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID"),
}
"""Keys of each level, the unique one first."""


class ScriptedPacs:
    """Serves objects by C-FIND and C-GET.

    Attributes
    ----------
    limit : int or None
        Answers to one C-FIND at most.
    limit_status : int
        How it says so; 0 for not at all.
    behaviour : dict of str to list of str
        Study Instance UID to what happens to each request for it in turn: ``refuse``, or ``abort``
        or ``hang`` after the first object; then it is served.
    sent : Counter
        How often each object was sent.
    asked : list of (str, Dataset)
        Level and identifier of each C-FIND.
    counts : bool
        Whether it counts instances and lists SOP classes.
    hangs_up : bool
        Whether a C-FIND ends the association.
    """

    def __init__(self, *datasets: Dataset) -> None:
        self.datasets = list(datasets)
        self.limit: int | None = None
        self.limit_status = 0xA700
        self.behaviour: dict[str, list[str]] = {}
        self.sent: Counter[str] = Counter()
        self.asked: list[tuple[str, Dataset]] = []
        self.retrieved: list[Dataset] = []
        self.counts = True
        self.hangs_up = False
        self.released = threading.Event()
        self.peer = Peer("PACS", "127.0.0.1", 0)

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if self.hangs_up:
            event.assoc.abort()
            return
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        self.asked.append((level, asked))
        found: dict[str, list[Dataset]] = {}
        key = LEVEL_KEYS[level][0]
        for dataset in self.datasets:
            if all(_fits(dataset, asked, keyword) for keyword in LEVEL_KEYS[level]):
                found.setdefault(str(dataset[key].value), []).append(dataset)
        for number, group in enumerate(found.values()):
            if number == self.limit:
                yield self.limit_status, None
                return
            yield 0xFF00, self._answer(level, group)

    def _answer(self, level: str, group: list[Dataset]) -> Dataset:
        answer = Dataset()
        answer.QueryRetrieveLevel = level
        for keyword in LEVEL_KEYS[level]:
            setattr(answer, keyword, group[0].get(keyword, ""))
        if self.counts and level == "STUDY":
            answer.NumberOfStudyRelatedInstances = len(group)
            answer.SOPClassesInStudy = sorted({str(one.SOPClassUID) for one in group})
        if self.counts and level == "SERIES":
            answer.NumberOfSeriesRelatedInstances = len(group)
        return answer

    def get(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        self.retrieved.append(asked)
        script = self.behaviour.get(str(asked.StudyInstanceUID), [])
        what = script.pop(0) if script else "serve"
        wanted = [one for one in self.datasets if _is_asked(one, asked)]
        yield len(wanted)
        if what == "refuse":
            yield 0xC001, None
            return
        for number, dataset in enumerate(wanted):
            if what == "hang" and number:
                self.released.wait(30)
                return
            if what == "abort" and number:
                event.assoc.abort()
                return
            self.sent[str(dataset.SOPInstanceUID)] += 1
            yield 0xFF00, dataset

    def move(self, event: Any) -> Iterator[Any]:
        """Know no destination (0xA801)."""
        yield None, None


def _is_asked(dataset: Dataset, asked: Dataset) -> bool:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        value = asked.get(keyword)
        values = [value] if isinstance(value, str) else list(value or ())
        if values and dataset[keyword].value not in values:
            return False
    return True


def _fits(dataset: Dataset, asked: Dataset, keyword: str) -> bool:
    wanted, value = str(asked.get(keyword, "") or ""), str(dataset.get(keyword, "") or "")
    first, dash, last = wanted.partition("-")
    if not wanted:
        return True
    if not dash or keyword not in ("StudyDate", "StudyTime"):
        return value == wanted
    return bool(value) and (not first or value >= first) and (not last or value <= last)


@contextmanager
def running_scripted_pacs(*datasets: Dataset) -> Iterator[ScriptedPacs]:
    """Run one on a free port of loopback."""
    pacs = ScriptedPacs(*datasets)
    entity = AE(ae_title="PACS")
    for model in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        entity.add_supported_context(model)
    entity.add_supported_context(CTImageStorage, scu_role=False, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, pacs.find),
            (evt.EVT_C_GET, pacs.get),
            (evt.EVT_C_MOVE, pacs.move),
        ],
    )
    pacs.peer = Peer("PACS", "127.0.0.1", server.server_address[1])
    try:
        yield pacs
    finally:
        pacs.released.set()
        server.shutdown()
