"""Eviction: pixels go by the rules, never what something waits for; tags and vectors answer on."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import select, update

from cbmir_node.archive.store import Archive
from cbmir_node.catalog import schema
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.catalog.retention.eviction import KEPT, evictable
from cbmir_node.catalog.statistics import count_states
from cbmir_node.node import open_intake, open_search
from cbmir_node.retention import eviction
from cbmir_node.search.query import Example, SimilarityQuery
from cbmir_node.stores import Stores
from cbmir_node.verification import Verification
from cbmir_node.worker import Worker
from tests.models import build_model
from tests.objects import make_object, write
from tests.retention.conftest import (
    NONE,
    OpenStores,
    apply_retention,
    assert_sound,
    embed,
    uids,
    work_off,
)
from tests.small_node import archive_file, drain, keep, states, vectors_of_each

DAY = 86400.0


def kept(stores: Stores) -> set[str]:
    """Return the SOP Instance UIDs that have their pixels here."""
    query = select(schema.instances.c.sop_instance_uid).where(schema.instances.c.path != "")
    with stores.catalog.read() as connection:
        return set(connection.execute(query).scalars())


def change(stores: Stores, uid: str, **values: Any) -> None:
    with stores.catalog.write() as connection:
        connection.execute(
            update(schema.instances)
            .where(schema.instances.c.sop_instance_uid == uid)
            .values(**values)
        )


def accept(stores: Stores, folder: Path, dataset: Dataset) -> StoreOutcome:
    intake = open_intake(stores)
    try:
        return intake.accept_file(write(dataset, folder / "again.dcm")).outcome
    finally:
        intake.close()


def other_content(dataset: Dataset) -> Dataset:
    changed = deepcopy(dataset)
    changed.SeriesDescription = "other content"
    return changed


def test_without_pixels_the_node_still_finds_what_is_alike(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    """The whole way with ``retain = "none"``: store, embed, evict, search, the same again."""
    stores = open_stores_with(retention=NONE)
    datasets = [make_object() for _ in range(4)]
    keep(stores, tmp_path, *datasets)
    apply_retention(stores)
    assert len(kept(stores)) == 4  # nothing goes before it is embedded
    work_off(stores)
    apply_retention(stores)
    assert kept(stores) == set()
    assert list(stores.archive.files()) == []
    assert_sound(stores)
    assert len(find(stores.catalog, "STUDY", {"PatientName": "doe*"}, ["StudyInstanceUID"], 9)) == 4
    example = Example("STUDY", str(datasets[0].StudyInstanceUID))
    answer = open_search(stores, writable=True).answer(SimilarityQuery([example]))
    assert len(answer.matches) == 3
    # again: nothing is needed of it, nothing is stored
    assert accept(stores, tmp_path, datasets[0]) is StoreOutcome.DUPLICATE
    assert list(stores.archive.files()) == []
    # until another model needs it
    following = stores.install(build_model(tmp_path / "next.onnx", seed=1))
    assert stores.use(following) == "next"
    assert accept(stores, tmp_path, datasets[0]) is StoreOutcome.DUPLICATE
    assert kept(stores) == {datasets[0].SOPInstanceUID}
    apply_retention(stores)
    assert len(kept(stores)) == 1
    with Worker(stores) as worker:
        drain(worker, following)
    assert count_states(stores.catalog, following.row)["embedded"] == 1
    apply_retention(stores)
    assert kept(stores) == set()
    assert_sound(stores)


def test_what_something_waits_for_is_not_evicted(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(retention=NONE)
    _, forwarded, failed = keep(stores, tmp_path, *(make_object() for _ in range(3)))
    embed(stores, [failed])
    (pending,) = keep(stores, tmp_path, make_object())
    assert states(stores, [failed, pending]) == ["failed", "pending"]
    forwards = {"destination": "PEER", "state": "pending", "requested_at": 0, "due_at": 0}
    instance = select(schema.instances.c.id).where(schema.instances.c.sop_instance_uid == forwarded)
    with stores.catalog.write() as connection:
        row = connection.execute(instance).scalar_one()
        connection.execute(schema.forwards.insert().values(instance=row, **forwards))
    # what was refused or given up may be the only copy
    for state in ("pending", "refused", "given_up"):
        with stores.catalog.write() as connection:
            connection.execute(update(schema.forwards).values(state=state))
        apply_retention(stores)
        assert kept(stores) == {forwarded, failed, pending}
    with stores.catalog.write() as connection:
        connection.execute(update(schema.forwards).values(state="sent"))
    apply_retention(stores)
    assert kept(stores) == {failed, pending}
    assert_sound(stores)


def test_without_a_model_everything_waits_for_one(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(retention=NONE)
    keep(stores, tmp_path, make_object())
    embed(stores)
    with stores.catalog.write() as connection:
        connection.execute(update(schema.models).values(state="installed"))
    apply_retention(stores)
    assert len(kept(stores)) == 1


def test_pixels_go_after_their_days_and_come_back_for_as_many(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(retention={"retain": "days", "days": 10})
    old, failed, young = [make_object() for _ in range(3)]
    keep(stores, tmp_path, old, failed, young)
    embed(stores, [failed.SOPInstanceUID])
    for dataset in (old, failed):
        change(stores, dataset.SOPInstanceUID, received_at=time.time() - 10.1 * DAY)
    change(stores, young.SOPInstanceUID, received_at=time.time() - 9.9 * DAY)
    apply_retention(stores)
    assert kept(stores) == {young.SOPInstanceUID}
    assert accept(stores, tmp_path, old) is StoreOutcome.DUPLICATE
    apply_retention(stores)
    assert kept(stores) == {young.SOPInstanceUID, old.SOPInstanceUID}
    assert dcmread(archive_file(stores, old.SOPInstanceUID)).PixelData == old.PixelData
    assert states(stores, [old.SOPInstanceUID]) == ["embedded"]
    assert_sound(stores)


def test_the_quota_takes_the_oldest_and_some_more(
    open_stores_with: OpenStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "AT_ONCE", 2)
    stores = open_stores_with()
    arrived = keep(stores, tmp_path, *(make_object() for _ in range(10)))
    embed(stores)
    mebibyte = 1 << 20
    for number, uid in enumerate(arrived):
        # the younger the row, the older the reception
        change(stores, uid, size_bytes=mebibyte, received_at=time.time() - number * 60)
    limited = open_stores_with(retention={"quota_gib": 10 / 1024})
    apply_retention(limited)
    assert kept(stores) == set(arrived)
    limited = open_stores_with(retention={"quota_gib": 7.5 / 1024})
    apply_retention(limited)
    assert kept(stores) == set(arrived[:7])  # 7.5 MiB less 5 %
    assert vectors_of_each(stores) == dict.fromkeys(arrived, 1)


def test_what_arrived_at_the_same_moment_goes_batch_by_batch(
    open_stores_with: OpenStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch goes on behind the last one, also past what may not go."""
    monkeypatch.setattr(eviction, "AT_ONCE", 2)
    stores = open_stores_with(retention=NONE)
    arrived = keep(stores, tmp_path, *(make_object() for _ in range(7)))
    embed(stores, failing=arrived[2:4])
    for uid in arrived:
        change(stores, uid, size_bytes=1, received_at=1.1)
    first = evictable(stores.catalog, 2.0, 2, failed_too=False)
    behind = evictable(stores.catalog, 2.0, 9, failed_too=False, after=first[-1])
    assert [len(first), len(behind)] == [2, 3]
    assert not set(first) & set(behind)
    apply_retention(stores)
    assert kept(stores) == set(arrived[2:4])


@pytest.mark.parametrize("duplicates", ["keep", "replace"])
def test_other_content_for_an_evicted_object_is_a_matter_of_policy(
    open_stores_with: OpenStores, tmp_path: Path, duplicates: str
) -> None:
    stores = open_stores_with(retention=NONE, archive={"duplicates": duplicates})
    dataset = make_object()
    (uid,) = keep(stores, tmp_path, dataset)
    embed(stores)
    apply_retention(stores)
    outcome = accept(stores, tmp_path, other_content(dataset))
    if duplicates == "keep":
        assert outcome is StoreOutcome.CONFLICT
        assert kept(stores) == set()
    else:
        assert outcome is StoreOutcome.REPLACED
        assert kept(stores) == {uid}
        assert states(stores, [uid]) == ["pending"]
    assert_sound(stores)


def test_an_eviction_cut_short_is_finished_and_undone_by_nobody(
    open_stores_with: OpenStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_stores_with(retention=NONE)
    keep(stores, tmp_path, make_object(), make_object())
    embed(stores)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "remove_for_good", die)
        with pytest.raises(KeyboardInterrupt):
            apply_retention(stores)
    assert len(list(stores.archive.files())) == 2
    left = [path for path in stores.archive.files() if path]
    # as if a power cut had brought one back whose removal was recorded
    with stores.catalog.write() as connection:
        connection.execute(
            schema.unused_files.delete().where(schema.unused_files.c.path == left[0])
        )
    verification = Verification(stores)
    found = {finding.kind: finding for finding in verification.findings()}
    assert set(found) == {"removal not finished", "file without a row"}
    assert len(verification.repair(list(found.values()))) == 2
    assert kept(stores) == set()
    assert len(uids(stores)) == 2
    assert_sound(stores)


def test_eviction_reads_an_index_of_what_is_kept(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    """A node that has evicted millions must not walk through them every few seconds."""
    stores = open_stores_with()
    if not stores.catalog.is_sqlite:
        pytest.skip("on few rows PostgreSQL prefers to read the table")
    instances = schema.instances.c
    query = select(instances.id).where(KEPT, instances.received_at < 1).order_by("received_at")
    text = str(query.compile(stores.catalog.engine, compile_kwargs={"literal_binds": True}))
    with stores.catalog.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
    assert "ix_instances_kept" in str(plan)
    assert "SORT" not in str(plan).upper()
