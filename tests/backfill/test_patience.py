"""A PACS that is away, and a study that it does not survive, are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cbmir_node.backfill.pace import Pace
from cbmir_node.backfill.pacs import Answer, ListedStudy, StudyQuery
from cbmir_node.backfill.patience import PatientPacs
from cbmir_node.backfill.plans import Plan
from cbmir_node.backfill.pull import Pull
from cbmir_node.dicom.client.fetch import Retrieval, Retrieved
from cbmir_node.errors import OutOfSpaceError, PeerUnreachableError


class Waits:
    """A clock that only remembers how long somebody waited."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[str] = []
        self.pace = Pace(tell=self.told.append, monotonic=lambda: self.seconds, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class FlakyPacs:
    """Is away for the named studies, as often as it says."""

    name = "PACS"
    needs_sop_classes = False

    def __init__(self, **away: int) -> None:
        self.away = away
        self.fetched: list[str] = []

    def studies(self, query: StudyQuery) -> Answer:
        self._answer("list")
        return Answer([])

    def fetch(self, retrieval: Retrieval, on_image: Callable[[], None]) -> Retrieved:
        self._answer(retrieval.study_instance_uid)
        self.fetched.append(retrieval.study_instance_uid)
        on_image()
        return Retrieved(1)

    def _answer(self, what: str) -> None:
        if self.away.get(what, 0):
            self.away[what] -= 1
            raise PeerUnreachableError("it is away")


class Everything:
    """Plans to fetch each study whole."""

    def plan(self, study: ListedStudy) -> Plan:
        return Plan((Retrieval(study.study_instance_uid),), 1)

    def lacking(self, study: ListedStudy, plan: Plan) -> str:
        return ""

    def record(self, study: ListedStudy, problem: str) -> None:
        pass


class Archive:
    def __init__(self, *room: bool) -> None:
        self.room = list(room)

    def has_room(self) -> bool:
        return self.room.pop(0) if self.room else True


def pull(pacs: Any, waits: Waits, archive: Archive, *, waits_for_room: bool = False) -> Pull:
    return Pull(pacs, Everything(), archive, waits.pace, waits_for_room=waits_for_room)  # type: ignore[arg-type]


def studies(*names: str) -> list[ListedStudy]:
    return [ListedStudy(name) for name in names]


def test_before_its_first_answer_nobody_waits_for_it():
    waits = Waits()
    pacs = PatientPacs(FlakyPacs(list=1), waits.pace)
    with pytest.raises(PeerUnreachableError):
        pacs.studies(StudyQuery())
    assert waits.seconds == 0


def test_later_an_outage_is_waited_out_and_told():
    waits = Waits()
    flaky = FlakyPacs(b=2)
    pacs = PatientPacs(flaky, waits.pace, pauses_s=(30, 60, 120))
    run = pull(pacs, waits, Archive())
    run.run(studies("a", "b", "c"))
    assert flaky.fetched == ["a", "b", "c"]
    assert waits.seconds == 90
    assert waits.told[0] == "it is away; waiting for 30 s"


def test_a_study_that_the_pacs_does_not_survive_is_one_failure():
    waits = Waits()
    flaky = FlakyPacs(b=99)
    run = pull(flaky, waits, Archive())
    run.run(studies("a", "b", "c"))
    assert flaky.fetched == ["a", "c"]
    assert run.progress.failures == {"b": "it is away"}


def test_a_pacs_that_stays_away_ends_the_pull():
    flaky = FlakyPacs(b=99, c=99)
    run = pull(flaky, Waits(), Archive())
    with pytest.raises(PeerUnreachableError):
        run.run(studies("a", "b", "c", "d"))
    assert flaky.fetched == ["a"]


def test_room_is_waited_for_where_something_makes_it():
    waits = Waits()
    flaky = FlakyPacs()
    run = pull(flaky, waits, Archive(False, False, False), waits_for_room=True)
    run.run(studies("a"))
    assert flaky.fetched == ["a"]
    assert 0 < waits.seconds < 60
    with pytest.raises(OutOfSpaceError, match="goes on where it stopped"):
        pull(flaky, waits, Archive(False)).run(studies("b"))
    with pytest.raises(OutOfSpaceError):
        pull(flaky, waits, Archive(*[False] * 1000), waits_for_room=True).run(studies("b"))
    assert waits.seconds < 4000
