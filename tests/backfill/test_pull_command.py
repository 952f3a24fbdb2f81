"""``pull`` as a user gives it: from an Orthanc by every protocol, and killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import Dataset
from pydicom.uid import RLELossless, generate_uid
from sqlalchemy import select

from cbmir_node.backfill.exclusive import only_pull
from cbmir_node.catalog import schema
from cbmir_node.cli import main
from cbmir_node.config import Settings
from cbmir_node.stores import Stores
from tests.backfill.conftest import stored_uids
from tests.backfill.orthanc import PASSWORD, USER, OrthancPacs, running_pacs
from tests.backfill.scripted_pacs import running_scripted_pacs
from tests.conftest import free_port, needs_program
from tests.dicom.peers import until
from tests.end_to_end.conftest import COMMAND, RunningNode
from tests.objects import make_object, write
from tests.small_node import open_small_stores

NODE_PORT = free_port()


def objects_of_a_pacs() -> list[Dataset]:
    """Return studies of several years, one in two transfer syntaxes and one without a date."""
    study, series = generate_uid(), generate_uid()
    head = [
        make_object(
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            PatientID="HEAD",
            InstanceNumber=number,
        )
        for number in range(1, 5)
    ]
    head[3].compress(RLELossless, generate_instance_uid=False)
    return [
        *head,
        *(make_object(StudyDate=f"{year}0506", PatientID=f"Y{year}") for year in range(2016, 2024)),
        make_object(StudyDate=None, PatientID="UNDATED"),
        make_object(Modality="MR", StudyDate="20190203", PatientID="MR"),
    ]


@pytest.fixture(scope="module")
def objects() -> list[Dataset]:
    return objects_of_a_pacs()


@pytest.fixture(scope="module")
def pacs(objects: list[Dataset], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    needs_program("Orthanc", package="orthanc")
    folder = tmp_path_factory.mktemp("pacs") / "orthanc"
    with running_pacs(folder, NODE_PORT) as running:
        running.add(*objects)
        yield running


def uids(objects: list[Dataset]) -> list[str]:
    return sorted(str(one.SOPInstanceUID) for one in objects)


def pull(stores: Stores, *arguments: str, **environment: str) -> tuple[Result, dict[str, Any]]:
    words = ["pull", *arguments, "--json", "--data-dir", str(stores.settings.data_dir)]
    done = CliRunner(env=environment).invoke(main, words, prog_name="cbmir-node")
    return done, json.loads(done.stdout) if done.stdout else {}


def digests(stores: Stores) -> set[tuple[str, str]]:
    instances = schema.instances.c
    with stores.catalog.read() as connection:
        rows = connection.execute(select(instances.content_sha256, instances.transfer_syntax_uid))
        return {(row[0], row[1]) for row in rows}


def test_everything_comes_by_c_get_as_it_is_stored_there(stores, pacs, objects):
    shown, plan = pull(stores, pacs.address, "--undated", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert sum(study["images"] for study in plan["fetch"]) == len(objects)
    assert stored_uids(stores) == []
    done, report = pull(stores, pacs.address, "--undated")
    assert done.exit_code == 0, done.output
    assert (report["fetched"], report["images"]) == (11, len(objects))
    assert stored_uids(stores) == uids(objects)
    assert RLELossless in {syntax for _, syntax in digests(stores)}
    _, report = pull(stores, pacs.address)
    assert (report["fetched"], report["present"]) == (0, 10)  # not asked for the undated one


def test_conditions_choose_studies(stores, pacs, objects):
    assert pull(stores, pacs.address, "--modality", "MR,US")[1]["images"] == 1
    assert pull(stores, pacs.address, "--patient", "HEAD")[1]["images"] == 4
    assert pull(stores, pacs.address, "--study-date", "20180101-20201231")[1]["fetched"] == 3
    named = str(next(one for one in objects if one.PatientID == "UNDATED").StudyInstanceUID)
    assert pull(stores, pacs.address, "--study", named)[1]["images"] == 1


def test_a_study_that_is_not_there_is_told_at_once(stores):
    with running_scripted_pacs() as scripted:
        done, report = pull(stores, str(scripted.peer), "--study", "1.2.3")
    assert done.exit_code == 1
    assert report["incomplete"] == ["PACS has no study 1.2.3"]
    assert "tried again" not in done.stderr


def test_a_dry_run_creates_nothing_and_a_pull_says_what_it_makes(stores, tmp_path):
    folder = tmp_path / "elsewhere"
    study = make_object(StudyDate="20240102")
    with running_scripted_pacs(study) as scripted:
        words = ["pull", str(scripted.peer), "--study-date", "20240101-20240103", "--data-dir"]
        shown = CliRunner().invoke(main, [*words, str(folder), "--dry-run", "--json"])
        assert shown.exit_code == 0, shown.output
        assert not folder.exists()
        scripted.hangs_up = True  # enough for the message
        done = CliRunner().invoke(main, [*words, str(folder)])
    assert [one["study"] for one in json.loads(shown.stdout)["fetch"]] == [study.StudyInstanceUID]
    assert f"making the data folder {folder}" in done.stderr


def test_pulls_from_one_pacs_do_not_add_up(stores):
    study = make_object(StudyDate="20240102")
    with running_scripted_pacs(study) as scripted:
        address, dates = str(scripted.peer), ("--study-date", "20240101-20240103")
        with only_pull(stores.settings.data_dir, "PACS"):
            done, _ = pull(stores, address, *dates)
            assert done.exit_code == 1
            assert f"a pull from PACS already runs (pid {os.getpid()})" in done.output
            # these two are no second backfill
            assert pull(stores, address, *dates, "--dry-run")[0].exit_code == 0
            assert pull(stores, address, "--study", study.StudyInstanceUID)[0].exit_code == 0
        assert pull(stores, address, *dates)[1]["present"] == 1


def test_what_a_killed_pull_or_import_left_is_removed(stores, tmp_path):
    left = stores.settings.archive_path / "incoming" / "half.part"
    write(make_object(), tmp_path / "one.dcm")
    with running_scripted_pacs() as scripted:
        for words in (["pull", str(scripted.peer), "--study", "1.2"], ["import", str(tmp_path)]):
            left.write_bytes(b"half")
            CliRunner().invoke(main, [*words, "--data-dir", str(stores.settings.data_dir)])
            assert not left.exists(), words


def test_dicomweb_brings_the_same(stores, pacs, objects, tmp_path):
    done, _ = pull(stores, pacs.url)
    assert done.exit_code == 1
    assert "DICOMWEB_USER" in done.output
    login = {"DICOMWEB_USER": USER, "DICOMWEB_PASSWORD": PASSWORD}
    done, report = pull(stores, pacs.url, "--modality", "CT", "--undated", **login)
    assert done.exit_code == 0, done.output
    assert (report["fetched"], report["images"]) == (10, len(objects) - 1)
    other = open_small_stores(Settings(data_dir=tmp_path / "other"))
    try:
        pull(other, pacs.address, "--modality", "CT", "--undated")
        assert digests(other) == digests(stores)
    finally:
        other.close()


def test_an_orthanc_that_limits_its_answers_hides_no_study(stores, tmp_path):
    """It says so by C-FIND (0xFE00), not by QIDO-RS."""
    needs_program("Orthanc", package="orthanc")
    login = {"DICOMWEB_USER": USER, "DICOMWEB_PASSWORD": PASSWORD}
    with running_pacs(tmp_path / "orthanc", 1, find_limit=12) as limited:
        for hour in range(24):
            limited.add(make_object(StudyDate="20240102", StudyTime=f"{hour:02}1500", size=4))
        for source in (limited.address, limited.url):
            _, plan = pull(stores, source, "--dry-run", "--study-date", "20240101-", **login)
            assert len(plan["fetch"]) == plan["seen"] == 24


def test_a_password_does_not_belong_into_the_url(stores):
    done, _ = pull(stores, "http://me:secret@127.0.0.1/dicom-web")
    assert done.exit_code == 2
    assert "DICOMWEB_PASSWORD" in done.output


def test_by_c_move_the_running_node_receives(stores, pacs, objects):
    done, _ = pull(stores, pacs.address, "--by", "move")
    assert done.exit_code == 1
    assert "cbmir-node serve" in done.output
    node = RunningNode(stores.settings.data_dir, "--dicom-port", str(NODE_PORT))
    try:
        done, report = pull(stores, pacs.address, "--by", "move", "--undated")
    finally:
        node.kill()
    assert done.exit_code == 0, done.output
    assert (report["fetched"], report["images"]) == (11, len(objects))
    assert stored_uids(stores) == uids(objects)


def test_a_killed_pull_goes_on_where_it_stopped(stores):
    """Killed between two images of a study, after another was finished."""
    objects = []
    for day in range(1, 4):
        study, series = generate_uid(), generate_uid()
        objects += [
            make_object(
                StudyInstanceUID=study,
                SeriesInstanceUID=series,
                PatientID="P",
                StudyDate=f"202401{day:02}",
            )
            for _ in range(4)
        ]
    with running_scripted_pacs(*objects) as scripted:
        words = ["pull", str(scripted.peer), "--study-date", "20240101-20240103", "--data-dir"]
        command = [*COMMAND, *words, str(stores.settings.data_dir)]
        process = subprocess.Popen([*command, "--rate", "240"], stdin=subprocess.DEVNULL)
        try:
            until(lambda: len(stored_uids(stores)) > 4, seconds=60)
        finally:
            process.kill()
            process.wait()
        kept = len(stored_uids(stores))
        with stores.catalog.read() as connection:
            states = connection.execute(select(schema.pulled_studies.c.state)).scalars().all()
        assert states in (["fetched"], ["fetched"] * 2)
        assert 4 < kept < len(objects)
        again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    report = json.loads(again.stdout)
    assert report["present"] == len(states)
    assert report["images"] == len(objects) - kept
    assert stored_uids(stores) == uids(objects)
    # what was on its way when it was killed is sent once more
    assert sum(scripted.sent.values()) <= len(objects) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PACS"], "not the AE title of one of peers"),
        (["PACS@127.0.0.1:104", "--between", "19-6"], "19:00-06:00"),
        (["PACS@127.0.0.1:104", "--between", "06:00-06:00"], "begins when it ends"),
        (["PACS@127.0.0.1:104", "--study", "1.2", "--modality", "CT"], "--study names"),
        (["PACS@127.0.0.1:104", "--evicted", "--again"], "--evicted chooses"),
        (["PACS@127.0.0.1:104", "--evicted", "--undated"], "--evicted chooses"),
        (["PACS@127.0.0.1:104", "--patient", "P", "--undated"], "leave --undated out"),
        (["PACS@127.0.0.1:104", "--study", "1.2.*"], "is no UID"),
        (["http://127.0.0.1/dicom-web", "--by", "move"], "AE@HOST:PORT"),
    ],
)
def test_options_that_make_no_sense_are_explained(stores, arguments, message):
    done, _ = pull(stores, *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_the_extra_for_dicomweb_is_named(stores, monkeypatch):
    monkeypatch.setitem(sys.modules, "dicomweb_client", None)
    monkeypatch.delitem(sys.modules, "cbmir_node.backfill.dicomweb", raising=False)
    done, _ = pull(stores, "http://127.0.0.1/dicom-web")
    assert done.exit_code == 1
    assert "cbmir-node[dicomweb]" in done.output
