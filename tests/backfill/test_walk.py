"""The walk lists every study once, newest first, whatever a PACS does to its answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import pytest

from cbmir_node.backfill.pacs import Answer, ListedSeries, ListedStudy, StudyQuery
from cbmir_node.backfill.walk import Selection, StudyWalk
from cbmir_node.errors import PeerRefusedError

TODAY = date(2024, 3, 1)


@dataclass
class ListedPacs:
    """Answers from a list; only what a walk asks for is there."""

    listed: list[ListedStudy]
    limit: int | None = None
    tells: bool = False
    modality_is_a_key: bool = True
    returns_modalities: bool = True
    ignores_time: bool = False
    ignores_date: bool = False
    asked: list[StudyQuery] = field(default_factory=list)
    name: str = "PACS"

    def studies(self, query: StudyQuery) -> Answer:
        self.asked.append(query)
        if query.modality and not self.modality_is_a_key:
            raise PeerRefusedError("0xA900")
        found = [study for study in self.listed if self._matches(study, query)]
        if self.limit is not None and len(found) > self.limit:
            return Answer(found[: self.limit], limited=self.tells)
        return Answer(found)

    def _matches(self, study: ListedStudy, query: StudyQuery) -> bool:
        if query.undated:
            return not study.study_date
        in_days = self.ignores_date or _in_range(study.study_date, query.study_date)
        in_time = self.ignores_time or _in_range(study.study_time, query.study_time)
        fits = not self.returns_modalities or query.modality in ("", *study.modalities)
        of_patient = not query.patient_id or query.patient_id == study.study_instance_uid
        return in_days and in_time and fits and of_patient

    def series(self, study_instance_uid: str) -> list[ListedSeries]:
        return [ListedSeries("1", "MR" if study_instance_uid.startswith("mr") else "CT")]


def _in_range(value: str, wanted: str) -> bool:
    first, dash, last = wanted.partition("-")
    last = last if dash else first
    return not wanted or (
        value != "" and (not first or value >= first) and (not last or value <= last)
    )


def study(number: int, day: date, minute: int = 0, **values: object) -> ListedStudy:
    time = f"{minute // 60:02}{minute % 60:02}30"
    return ListedStudy(f"{number}", f"{day:%Y%m%d}", time, **values)  # type: ignore[arg-type]


def walked(pacs: ListedPacs, **selection: object) -> list[str]:
    return told(pacs, **selection)[0]


def told(pacs: ListedPacs, **selection: object) -> tuple[list[str], list[str]]:
    """Return what is found, and what is told of it."""
    said: list[str] = []
    walk = StudyWalk(pacs, Selection(**selection), TODAY, said.append)  # type: ignore[arg-type]  # a stand-in
    return [found.study_instance_uid for found in walk], said


@pytest.fixture
def hospital() -> list[ListedStudy]:
    """Return studies of three years, 400 of them on one busy day, 90 within an hour of it."""
    some = [study(n, TODAY - timedelta(days=3 * n)) for n in range(300)]
    busy = [study(1000 + n, date(2023, 5, 4), n * 3) for n in range(400)]
    rush = [study(2000 + n, date(2023, 5, 4), 600 + n % 60) for n in range(90)]
    return [*some, *busy, *rush]


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("limit", [20, 100, None])
def test_every_study_is_listed_once_and_the_newest_first(hospital, limit, tells):
    pacs = ListedPacs(hospital, limit, tells)
    found = walked(pacs)
    assert sorted(found) == sorted(study.study_instance_uid for study in hospital)
    dates = {study.study_instance_uid: (study.study_date, study.study_time) for study in hospital}
    assert [dates[uid] for uid in found] == sorted((dates[uid] for uid in found), reverse=True)


def test_a_pacs_without_a_limit_is_asked_little(hospital):
    pacs = ListedPacs(hospital)
    walked(pacs)
    assert len(pacs.asked) < 150


@pytest.mark.parametrize("ignored", ["ignores_time", "ignores_date"])
@pytest.mark.parametrize("tells", [True, False])
def test_a_pacs_that_does_not_narrow_is_not_asked_for_ever(hospital, ignored, tells):
    pacs = ListedPacs(hospital, 100, tells, **{ignored: True})
    found, said = told(pacs)
    assert len(found) == len(set(found))
    assert len(pacs.asked) < 500
    assert len(said) == tells
    assert not tells or "more may be missing" in said[0]


def test_open_ends_reach_wrong_clocks_and_studies_without_a_date():
    odd = [
        study(1, date(1850, 1, 1)),
        study(2, date(2099, 1, 1)),
        ListedStudy("3"),
        study(4, TODAY),
    ]
    assert walked(ListedPacs(odd), undated=True) == ["2", "4", "1", "3"]
    assert walked(ListedPacs(odd, limit=1, tells=True), undated=True) == ["2", "4", "1", "3"]


def test_the_whole_pacs_is_listed_only_for_who_asks_for_it(hospital):
    pacs = ListedPacs([*hospital, ListedStudy("undated")])
    assert "undated" not in walked(pacs)
    assert all(query.study_date and not query.undated for query in pacs.asked)


def test_an_unreadable_answer_is_told():
    pacs = ListedPacs([study(1, TODAY)])
    answer = pacs.studies
    pacs.studies = lambda query: replace(answer(query), unreadable=1)  # type: ignore[method-assign]  # for this test
    assert told(pacs) == (["1"], ["the PACS lists studies in a way that cannot be read"])


@pytest.mark.parametrize(
    ("study_date", "expected"),
    [
        ("20240201-", ["9", "3", "2"]),
        ("20240201-20240229", ["2"]),
        ("-20240131", ["1"]),
        ("20240210", ["2"]),
        ("20240211", []),
    ],
)
def test_a_range_of_dates_is_kept_to(study_date, expected):
    listed = [
        study(1, date(2024, 1, 31)),
        study(2, date(2024, 2, 10)),
        study(3, TODAY),
        study(9, date(2030, 1, 1)),
        ListedStudy("undated"),
    ]
    assert walked(ListedPacs(listed), study_date=study_date) == expected


@pytest.mark.parametrize(
    "peculiarity",
    [{}, {"modality_is_a_key": False}, {"returns_modalities": False}],
)
def test_modalities_are_found_out_where_a_pacs_does_not_match_them(peculiarity):
    known = peculiarity.get("returns_modalities", True)
    listed = [
        study(1, TODAY, modalities=("CT", "SR") if known else ()),
        ListedStudy("mr2", "20240101", "", ("MR",) if known else ()),
        study(3, TODAY - timedelta(days=400), modalities=("US",) if known else ()),
    ]
    pacs = ListedPacs(listed, **peculiarity)
    # the list of series says CT where the PACS lists no modalities
    assert walked(pacs, modalities=("MR", "XA")) == ["mr2"]


def test_named_studies_and_a_patient_take_one_query_each():
    pacs = ListedPacs([study(1, TODAY), study(2, TODAY)])
    assert walked(pacs, patient_id="2") == ["2"]
    assert told(pacs, studies=("7",)) == (["1"], [])  # it ignores the key
    assert len(pacs.asked) == 2
    pacs.listed = []
    assert told(pacs, studies=("8",)) == ([], ["PACS has no study 8"])
    assert [query.study_date for query in pacs.asked] == ["", "", ""]
