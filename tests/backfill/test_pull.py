"""A pull fetches what is missing and nothing twice, from a PACS that misbehaves."""

from __future__ import annotations

import time
from datetime import date

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import delete, insert, select, update

from cbmir_node.backfill.dimse import DimsePacs
from cbmir_node.backfill.walk import Selection, StudyWalk
from cbmir_node.catalog import schema
from cbmir_node.dicom.client.fetch import storage_contexts
from cbmir_node.errors import OutOfSpaceError, PeerRefusedError, PeerUnreachableError
from cbmir_node.stores import Stores
from tests.backfill.conftest import Puller, stored_uids
from tests.backfill.scripted_pacs import running_scripted_pacs
from tests.objects import make_object
from tests.small_node import archive_file


def make_study(images: int = 3, **values: object) -> list[Dataset]:
    study, series = generate_uid(), generate_uid()
    return [
        make_object(
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            PatientID="P",
            InstanceNumber=number,
            **values,
        )
        for number in range(1, images + 1)
    ]


def uids(*datasets: Dataset) -> list[str]:
    return sorted(str(dataset.SOPInstanceUID) for dataset in datasets)


def states(stores: Stores) -> dict[str, tuple[str, int]]:
    table = schema.pulled_studies.c
    with stores.catalog.read() as connection:
        rows = connection.execute(select(table.study_instance_uid, table.state, table.attempts))
        return {uid: (state, attempts) for uid, state, attempts in rows}


@pytest.mark.parametrize("counts", [True, False])
def test_a_second_pull_fetches_only_what_is_new(stores, puller: Puller, counts):
    old, new = make_study(StudyDate="20230101"), make_study(2)
    with running_scripted_pacs(*old) as pacs:
        pacs.counts = counts
        assert puller(pacs).fetched == 1
        pacs.datasets += new
        old.append(make_study(1)[0])  # the study has grown
        old[-1].StudyInstanceUID = old[0].StudyInstanceUID
        old[-1].StudyDate = "20230101"
        pacs.datasets.append(old[-1])
        progress = puller(pacs)
        assert (progress.fetched, progress.present) == (2, 0)
        assert puller(pacs).present == 2
    assert stored_uids(stores) == uids(*old, *new)
    assert set(pacs.sent.values()) == {1}


def test_an_image_that_is_missing_in_a_series_is_asked_for_alone(stores, puller: Puller):
    objects = make_study(5)
    with running_scripted_pacs(*objects[:4]) as pacs:
        puller(pacs)
        pacs.datasets = objects
        progress = puller(pacs)
    assert (progress.fetched, progress.images) == (1, 1)
    assert pacs.retrieved[-1].QueryRetrieveLevel == "IMAGE"
    assert set(pacs.sent.values()) == {1}


@pytest.mark.parametrize("limit_status", [0xA700, 0xFE00, 0xC001, 0x0000])
def test_a_limit_of_answers_hides_no_study(limit_status):
    studies = [
        make_object(StudyDate=f"202401{day:02}", StudyTime=f"{day:02}0000", size=4)
        for day in range(1, 13)
        for _ in range(2)
    ]
    with running_scripted_pacs(*studies) as scripted:
        scripted.limit, scripted.limit_status = 11, limit_status
        pacs = DimsePacs(scripted.peer, None, by="get", ae_title="CBMIR", timeout=10)
        selection = Selection(study_date="20240101-20240131")
        listed = list(StudyWalk(pacs, selection, date(2024, 1, 31)))
    assert sorted(study.study_instance_uid for study in listed) == sorted(
        study.StudyInstanceUID for study in studies
    )


def test_a_study_that_always_fails_is_named_and_holds_nothing_up(stores, puller: Puller):
    bad, good = make_study(StudyDate="20240202"), make_study(StudyDate="20240101")
    uid = str(bad[0].StudyInstanceUID)
    with running_scripted_pacs(*bad, *good) as pacs:
        pacs.behaviour[uid] = ["refuse"] * 3
        progress = puller(pacs)
        assert (progress.fetched, set(progress.failures)) == (1, {uid})
        assert "0xC001" in progress.failures[uid]
        assert states(stores)[uid] == ("failed", 3)
        assert puller(pacs).failures == {}  # the next pull tries it again
    assert states(stores)[uid] == ("fetched", 4)
    assert stored_uids(stores) == uids(*bad, *good)


@pytest.mark.parametrize("trouble", ["abort", "hang"])
def test_what_came_before_a_breakdown_is_not_fetched_again(stores, puller: Puller, trouble):
    objects = make_study(4)
    with running_scripted_pacs(*objects) as pacs:
        pacs.behaviour[str(objects[0].StudyInstanceUID)] = [trouble]
        progress = puller(pacs, timeout=1)
        pacs.released.set()
    assert (progress.fetched, progress.images, progress.failures) == (1, 4, {})
    assert set(pacs.sent.values()) == {1}
    assert stored_uids(stores) == uids(*objects)


def test_what_was_deleted_stays_away_and_what_was_rejected_always_does(stores, puller: Puller):
    objects = make_study(4)
    names = uids(*objects)
    with running_scripted_pacs(*objects) as pacs:
        puller(pacs)
        with stores.catalog.write() as connection:
            for uid, cause in zip(names, ("deleted", "rejected"), strict=False):
                connection.execute(
                    delete(schema.instances).where(schema.instances.c.sop_instance_uid == uid)
                )
                connection.execute(
                    insert(schema.deleted_objects).values(
                        sop_instance_uid=uid,
                        study_instance_uid=objects[0].StudyInstanceUID,
                        cause=cause,
                        deleted_at=0.0,
                    )
                )
            connection.execute(delete(schema.pulled_studies))  # the counts decide
        assert puller(pacs).present == 1
        assert stored_uids(stores) == names[2:]
        progress = puller(pacs, again=True)
        assert (progress.fetched, progress.images) == (1, 1)
    assert stored_uids(stores) == sorted([names[0], *names[2:]])


@pytest.mark.parametrize("again", [True, False])
def test_what_a_correction_put_in_the_place_of_a_rejected_image_comes(
    stores, puller: Puller, again
):
    """The PACS hides the rejected image, so that it counts as many as before."""
    objects = make_study(4)
    with running_scripted_pacs(*objects[:3]) as pacs:
        puller(pacs)
        with stores.catalog.write() as connection:
            rejected = str(objects[0].SOPInstanceUID)
            connection.execute(
                insert(schema.deleted_objects).values(
                    sop_instance_uid=rejected,
                    study_instance_uid=objects[0].StudyInstanceUID,
                    cause="rejected",
                    deleted_at=time.time(),
                )
            )
            connection.execute(
                delete(schema.instances).where(schema.instances.c.sop_instance_uid == rejected)
            )
        pacs.datasets = objects[1:]
        assert puller(pacs, again=again).images == 1
        asked = len(pacs.asked)
        assert puller(pacs).present == 1
        assert {level for level, _ in pacs.asked[asked:]} == {"STUDY"}
    assert stored_uids(stores) == uids(*objects[1:])


def test_a_lost_file_comes_again_where_files_are_kept(stores, puller: Puller):
    objects = make_study(3)
    lost = uids(*objects)[0]
    with running_scripted_pacs(*objects) as pacs:
        puller(pacs)
        archive_file(stores, lost).unlink()
        with stores.catalog.write() as connection:  # as `verify --repair` does
            connection.execute(
                update(schema.instances)
                .where(schema.instances.c.sop_instance_uid == lost)
                .values(path="")
            )
        assert puller(pacs, again=True).present == 1  # evicted, for all that it knows
        assert puller(pacs, keeps_files=True).present == 1
        assert puller(pacs, again=True, keeps_files=True).images == 1
    assert stored_uids(stores) == uids(*objects)
    assert archive_file(stores, lost).exists()


def test_a_pacs_that_hangs_up_on_a_query_may_not_know_us(stores, puller: Puller):
    with running_scripted_pacs() as pacs:
        pacs.hangs_up = True
        with pytest.raises(PeerUnreachableError, match="knows the AE title CBMIR and allows"):
            puller(pacs)


def test_pixels_that_are_not_kept_come_back_for_a_model_that_waits(stores, puller: Puller):
    first, second = make_study(3), make_study(2)
    instances, work = schema.instances.c, schema.work.c
    with running_scripted_pacs(*first, *second) as pacs:
        puller(pacs)
        for uid in uids(*first, *second):
            archive_file(stores, uid).unlink()
        waits = select(instances.id).where(instances.sop_instance_uid.in_(uids(*first)))
        with stores.catalog.write() as connection:
            connection.execute(update(schema.instances).values(path=""))
            connection.execute(
                update(schema.work).where(work.instance.not_in(waits)).values(state="embedded")
            )
        assert puller(pacs).present == 2  # known, so not missing
        progress = puller(pacs, evicted=True)
    assert (progress.fetched, progress.images) == (1, 3)
    assert stored_uids(stores) == uids(*first)


def test_a_full_disk_ends_the_pull_and_keeps_what_came(stores, puller: Puller, monkeypatch):
    objects = make_study(4)
    with running_scripted_pacs(*objects) as pacs:
        room = iter([True] * 4)  # before the retrieval, then for two objects and one more look
        monkeypatch.setattr(type(stores.archive), "has_room", lambda _: next(room, False))
        with pytest.raises(OutOfSpaceError, match="free space"):
            puller(pacs)
        monkeypatch.undo()
        kept = stored_uids(stores)
        assert 0 < len(kept) < 4
        puller(pacs)
    assert stored_uids(stores) == uids(*objects)


def test_an_unknown_move_destination_ends_the_pull_with_advice(stores, puller: Puller):
    with (
        running_scripted_pacs(*make_study()) as pacs,
        pytest.raises(PeerRefusedError, match="does not know CBMIR"),
    ):
        puller(pacs, by="move")


def test_a_wrong_address_is_told_at_once(stores, puller: Puller):
    with running_scripted_pacs() as pacs:
        pass
    begin = time.monotonic()
    with pytest.raises(PeerUnreachableError, match="check host and port"):
        puller(pacs)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("classes", [1, 3, 40, 100, 200])
def test_contexts_fit_an_association_and_leave_room_for_transfer_syntaxes(classes):
    sop_classes = [f"1.2.3.{number}" for number in range(classes)]
    contexts = storage_contexts(sop_classes)
    assert len(contexts) <= 127
    for sop_class in sop_classes[:127]:
        offered = [c.transfer_syntax for c in contexts if c.abstract_syntax == sop_class]
        flat = [uid for group in offered for uid in group]
        assert len(flat) == len(set(flat)) == 31
        assert "1.2.840.10008.1.2.1" in offered[0]
    assert len(contexts) == min(29, 127 // min(classes, 127)) * min(classes, 127)
    only = storage_contexts(sop_classes[:2], ["1.2.840.10008.1.2.5"])
    assert [context.transfer_syntax for context in only] == [["1.2.840.10008.1.2.5"]] * len(only)
