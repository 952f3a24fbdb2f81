"""Deletion: what was asked for goes, everything else stays, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom import Dataset
from sqlalchemy import select

from cbmir_node.archive.store import Archive
from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.selection import studies_of_patient, study_named
from cbmir_node.catalog.retention.tombstones import bury_studies
from cbmir_node.cli import main
from cbmir_node.node import open_search
from cbmir_node.retention import removal
from cbmir_node.retention.deletion import delete_studies
from cbmir_node.stores import Stores
from cbmir_node.verification import Verification
from tests.objects import make_object
from tests.retention.conftest import (
    OpenStores,
    apply_retention,
    assert_sound,
    buried,
    column,
    count,
    embed,
    study_of,
    uids,
)
from tests.small_node import archive_file, keep, vectors_of_each

HIERARCHY = (schema.patients, schema.studies, schema.series, schema.instances)


class Crash(BaseException):
    """What ends a process at a chosen place."""


def uids_of(datasets: list[Dataset]) -> set[str]:
    return {str(dataset.SOPInstanceUID) for dataset in datasets}


def delete_study(stores: Stores, dataset: Dataset) -> None:
    study = study_named(stores.catalog, dataset.StudyInstanceUID)
    delete_studies(stores.catalog, stores.archive, [study])


def bury_study(stores: Stores, dataset: Dataset) -> None:
    study = study_named(stores.catalog, dataset.StudyInstanceUID)
    bury_studies(stores.catalog, [study.row], "test")


def test_a_deleted_study_leaves_nothing_but_its_tombstones(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "AT_ONCE", 2)
    going, same_patient = study_of(5, PatientID="P1"), study_of(2, PatientID="P1")
    other = study_of(2)
    keep(stores, tmp_path, *going, *same_patient, *other)
    embed(stores)
    index = open_search(stores, writable=True).active_cache()
    folder = archive_file(stores, going[0].SOPInstanceUID).parent
    delete_study(stores, going[0])
    assert uids(stores) == uids_of([*same_patient, *other])
    assert buried(stores) == dict.fromkeys(uids_of(going), "deleted")
    assert [count(stores, table) for table in HIERARCHY] == [2, 2, 4, 4]
    assert vectors_of_each(stores) == dict.fromkeys(uids(stores), 1)
    index.catch_up()
    assert len(index) == 4
    assert not folder.exists()
    assert_sound(stores)
    delete_study(stores, other[0])
    assert [count(stores, table) for table in HIERARCHY] == [1, 1, 2, 2]


def test_what_was_deleted_may_come_again(stores: Stores, tmp_path: Path) -> None:
    study = study_of(3)
    keep(stores, tmp_path, *study)
    delete_study(stores, study[0])
    keep(stores, tmp_path, study[1])
    assert uids(stores) == {study[1].SOPInstanceUID}
    assert buried(stores) == dict.fromkeys(uids_of([study[0], study[2]]), "deleted")
    embed(stores)
    assert_sound(stores)


def test_what_arrives_after_the_command_stays(stores: Stores, tmp_path: Path) -> None:
    """New objects of the study, and those that are sent again before they are removed."""
    study = study_of(4)
    keep(stores, tmp_path, *study[:3])
    bury_study(stores, study[0])
    keep(stores, tmp_path, study[1], study[3])
    apply_retention(stores)
    assert uids(stores) == uids_of([study[1], study[3]])
    assert buried(stores) == dict.fromkeys(uids_of([study[0], study[2]]), "deleted")
    assert_sound(stores)


@pytest.mark.parametrize(
    ("crash", "by"),
    [
        ("buried", "repair"),
        ("before unlink", "duty"),
        ("before unlink", "repair"),
        ("after unlink", "duty"),
    ],
)
def test_an_interrupted_deletion_is_finished_by_who_comes_next(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str, by: str
) -> None:
    study, other = study_of(5), study_of(1)
    keep(stores, tmp_path, *study, *other)
    embed(stores)
    monkeypatch.setattr(removal, "AT_ONCE", 3)

    def die(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        if crash == "before unlink":
            patch.setattr(Archive, "remove_for_good", die)
        elif crash == "after unlink":
            patch.setattr(removal, "forget_unused", die)
        if crash == "buried":
            bury_study(stores, study[0])
        else:
            with pytest.raises(Crash):
                delete_study(stores, study[0])
    verification = Verification(stores)
    found = verification.findings()
    assert {finding.kind for finding in found} == {"removal not finished"}
    if by == "duty":
        apply_retention(stores)
    else:
        assert verification.repair(found) == found
    assert uids(stores) == uids_of(other)
    assert_sound(stores)


def test_a_file_of_a_deleted_object_is_never_taken_in_again(stores: Stores, tmp_path: Path) -> None:
    """Whether a power cut brought it back or its sender was cut off."""
    (dataset,) = study_of(1)
    (uid,) = keep(stores, tmp_path, dataset)
    file = archive_file(stores, uid)
    copy = shutil.copy(file, tmp_path / "copy.dcm")
    delete_study(stores, dataset)
    file.parent.mkdir()
    shutil.copy(copy, file)
    verification = Verification(stores)
    assert len(verification.repair(verification.findings())) == 1
    assert uids(stores) == set()
    assert_sound(stores)


def test_a_study_that_lost_its_last_object_to_a_replacement_goes(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(archive={"duplicates": "replace"})
    first, second = make_object(SOPInstanceUID="1.2.3"), make_object(SOPInstanceUID="1.2.3")
    keep(stores, tmp_path, first, second)
    assert column(stores, schema.studies.c.study_instance_uid) == [second.StudyInstanceUID]
    apply_retention(stores)
    assert [count(stores, table) for table in HIERARCHY] == [1, 1, 1, 1]
    assert_sound(stores)


def test_where_nothing_is_to_be_removed_nobody_waits_for_it(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node looks every few seconds: without the lock that writers share, and by an index."""
    keep(stores, tmp_path, make_object())

    def refuse(_: Catalog) -> None:
        raise Crash

    monkeypatch.setattr(Catalog, "write", refuse)
    apply_retention(stores)
    if stores.catalog.is_sqlite:
        instance = schema.deleted_objects.c.instance
        query = select(instance).where(instance > 0).order_by(instance)
        text = str(query.compile(stores.catalog.engine, compile_kwargs={"literal_binds": True}))
        with stores.catalog.read() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
        assert "SEARCH deleted_objects USING COVERING INDEX ix_deleted_objects_instance" in plan


# --- the command ---


def run_delete(stores: Stores, *options: str, answer: str = "") -> Result:
    settings = stores.settings
    environment = {"CBMIR_CATALOG__URL": settings.catalog_url}
    command = ["delete", "--data-dir", str(settings.data_dir), *options]
    return CliRunner().invoke(main, command, input=answer, env=environment)


def test_the_command_says_what_would_go_and_asks(stores: Stores, tmp_path: Path) -> None:
    study = study_of(3, StudyDate="20190101")
    keep(stores, tmp_path, *study)
    size = sum(column(stores, schema.instances.c.size_bytes))
    uid = study[0].StudyInstanceUID
    amount = f"1 patients, 1 studies, 2 series, 3 instances, {size} bytes of files"
    dry = run_delete(stores, "--study", uid, "--dry-run")
    assert dry.exit_code == 0
    assert amount in dry.output
    refused = run_delete(stores, "--study", uid, answer="n\n")
    assert refused.exit_code == 1
    assert amount in refused.output
    assert len(uids(stores)) == 3
    done = run_delete(stores, "--study", uid, answer="y\n")
    assert "deleted 3 instances" in done.output
    assert uids(stores) == set()
    assert f"no study {uid}" in run_delete(stores, "--study", uid, "--yes").output


def test_the_command_tells_what_was_not_sent_on(stores: Stores, tmp_path: Path) -> None:
    study = study_of(4)
    keep(stores, tmp_path, *study)
    states = [("A", "given_up"), ("B", "pending"), ("A", "sent"), ("A", "refused"), ("B", "sent")]
    rows = zip((1, 1, 2, 3, 3), states, strict=True)
    with stores.catalog.write() as connection:
        for instance, (destination, state) in rows:
            connection.execute(
                schema.forwards.insert().values(
                    instance=instance,
                    destination=destination,
                    state=state,
                    requested_at=0,
                    due_at=0,
                )
            )
    options = ["--study", study[0].StudyInstanceUID, "--dry-run"]
    assert "2 of them were not sent on yet" in run_delete(stores, *options).output
    answer = json.loads(run_delete(stores, *options, "--json").stdout)
    assert answer["selected"]["not_sent_on"] == 2


def test_a_script_is_told_how_to_agree(stores: Stores, tmp_path: Path) -> None:
    study = study_of(1)
    keep(stores, tmp_path, *study)
    done = run_delete(stores, "--study", study[0].StudyInstanceUID)
    assert done.exit_code == 2
    assert "give --yes" in done.output
    assert len(uids(stores)) == 1


def test_only_dated_studies_are_older_than_a_date(stores: Stores, tmp_path: Path) -> None:
    dates = ["20191231", "20200101", "", "0", "19970101"]
    studies = [study_of(1, StudyDate=date) for date in dates]
    keep(stores, tmp_path, *(study[0] for study in studies))
    done = run_delete(stores, "--before", "20200101", "--yes", "--json")
    answer = json.loads(done.stdout)
    assert answer["deleted_instances"] == answer["selected"]["studies"] == 2
    assert answer["without_date"] == 2
    assert sorted(column(stores, schema.studies.c.study_date)) == ["", "0", "20200101"]
    assert run_delete(stores, "--before", "2020", "--yes").exit_code == 2


def test_patients_who_share_an_id_are_told_apart(stores: Stores, tmp_path: Path) -> None:
    here, there = study_of(1, PatientID="7"), study_of(1, PatientID="7", IssuerOfPatientID="B")
    keep(stores, tmp_path, *here, *there)
    done = run_delete(stores, "--patient", "7", "--yes")
    assert done.exit_code == 1
    assert "name its issuer: '', 'B'" in done.output
    assert len(studies_of_patient(stores.catalog, "7", "B")) == 1
    assert run_delete(stores, "--patient", "7", "--issuer", "", "--yes").exit_code == 0
    assert uids(stores) == uids_of(there)
