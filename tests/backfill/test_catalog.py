"""What `pull` asks the catalogue, on both databases."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import ColumnElement, insert, update

from cbmir_node.catalog import pulls, schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.reception.group_commit import GroupCommit
from cbmir_node.catalog.reception.records import make_record
from cbmir_node.catalog.work.requests import NOT_KEPT
from tests.objects import make_object


def register(catalog: Catalog, study: str, series: str, sop: str) -> None:
    attributes = make_object(StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=sop)
    commit = GroupCommit(catalog, 1)
    try:
        commit.commit(
            make_record(
                attributes,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                has_pixels=True,
                path=f"{sop}.dcm",
                size_bytes=1,
                content_sha256=sop,
                source="TEST",
                received_at=0.0,
            ),
            "keep",
        )
    finally:
        commit.close()


def _is(sop: str) -> ColumnElement[bool]:
    return schema.instances.c.sop_instance_uid == sop


def test_progress_is_kept_for_each_pacs(catalog: Catalog) -> None:
    assert pulls.pulled_study(catalog, "PACS", "1.2") is None
    pulls.record_pulled(catalog, "PACS", "1.2", "failed", reason="hung up")
    pulls.record_pulled(catalog, "PACS", "1.2", "fetched", instances=7)
    pulls.record_pulled(catalog, "OTHER", "1.2", "failed", reason="hung up")
    assert pulls.pulled_study(catalog, "PACS", "1.2") == pulls.PulledStudy("fetched", 7, 2)
    assert pulls.pulled_study(catalog, "OTHER", "1.2") == pulls.PulledStudy("failed", 0, 1)


def test_a_study_that_lost_an_image_here_since_is_told(catalog: Catalog) -> None:
    for study in ("1.2", "1.3"):
        pulls.record_pulled(catalog, "PACS", study, "fetched", instances=7)
    with catalog.write() as connection:
        for sop, study, when in (("9.1", "1.2", time.time()), ("9.2", "1.3", 0.0)):
            connection.execute(
                insert(schema.deleted_objects).values(
                    sop_instance_uid=sop,
                    study_instance_uid=study,
                    cause="rejected",
                    deleted_at=when,
                )
            )
    found = [pulls.pulled_study(catalog, "PACS", study) for study in ("1.2", "1.3")]
    assert [study is not None and study.reduced for study in found] == [True, False]


def test_a_study_here_is_what_is_known_and_what_was_taken_away(catalog: Catalog) -> None:
    register(catalog, "1.2", "1.2.1", "1.2.1.1")
    register(catalog, "1.2", "1.2.1", "1.2.1.2")
    register(catalog, "1.2", "1.2.2", "1.2.2.1")
    register(catalog, "1.3", "1.2.2", "1.3.1.1")
    with catalog.write() as connection:
        connection.execute(update(schema.instances).values(path="").where(_is("1.2.2.1")))
        for sop, cause in (("9.1", "deleted"), ("1.2.1.2", "rejected")):  # its row is still there
            connection.execute(
                insert(schema.deleted_objects).values(
                    sop_instance_uid=sop, study_instance_uid="1.2", cause=cause, deleted_at=0.0
                )
            )
    here = pulls.study_here(catalog, "1.2")
    assert here.series == {"1.2.1": {"1.2.1.1"}, "1.2.2": {"1.2.2.1"}}
    assert (here.deleted, here.rejected) == ({"9.1"}, {"1.2.1.2"})
    assert here.without_file == {"1.2.2.1"}
    assert not pulls.study_here(catalog, "1.4").known


@pytest.mark.parametrize(("state", "reason"), [("pending", ""), ("failed", NOT_KEPT)])
def test_only_what_a_model_in_use_waits_for_waits_for_its_pixels(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, state: str, reason: str
) -> None:
    monkeypatch.setattr(pulls, "_LARGEST_READ", 1)
    registry = ModelRegistry(catalog)
    registry.use(registry.add("a" * 64, "tiny", "1", {"embedding": 4}))
    for number in range(1, 5):
        register(catalog, f"1.{number}", f"1.{number}.1", f"1.{number}.1.1")
    instances, work = schema.instances.c, schema.work.c
    with catalog.write() as connection:
        connection.execute(update(schema.work).values(state=state, reason=reason))
        for number, values in (
            (1, {"state": "embedded"}),
            (2, {"reason": "damaged", "state": "failed"}),
        ):
            connection.execute(update(schema.work).where(work.instance == number).values(**values))
        connection.execute(update(schema.instances).where(instances.id != 4).values(path=""))
    assert list(pulls.studies_without_pixels(catalog)) == ["1.3"]
    waiting = pulls.instances_without_pixels(catalog, "1.3")
    assert [one.sop_instance_uid for one in waiting] == ["1.3.1.1"]
    assert pulls.instances_without_pixels(catalog, "1.4") == []
