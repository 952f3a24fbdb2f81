"""Merge and re-identification: files and catalogue say the same, before, after and in between."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from sqlalchemy import update

from cbmir_node.archive.store import Archive
from cbmir_node.catalog import schema
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.retention.modification import commit_change
from cbmir_node.catalog.retention.selection import studies_of_patient, study_named
from cbmir_node.cli import main
from cbmir_node.errors import CatalogError, InvalidObjectError, SelectionError
from cbmir_node.retention import modification
from cbmir_node.retention.modification import checked_value, modify_study, plan_changes
from cbmir_node.retention.rewriting import rewrite
from cbmir_node.stores import Stores
from cbmir_node.verification import Verification
from tests.objects import make_object, write
from tests.retention.conftest import (
    NONE,
    OpenStores,
    apply_retention,
    assert_sound,
    column,
    count,
    embed,
    study_of,
)
from tests.small_node import archive_file, keep, vectors_of_each

LEVELS = ["PatientID", "PatientName", "PatientBirthDate"]


def modify_patient(stores: Stores, patient_id: str, **values: str) -> None:
    studies = studies_of_patient(stores.catalog, patient_id)
    for planned in plan_changes(stores.catalog, studies, values, whole_patient=True):
        modify_study(stores.catalog, stores.archive, planned)


def modify_one(stores: Stores, dataset: Dataset, **values: str) -> None:
    study = study_named(stores.catalog, dataset.StudyInstanceUID)
    for planned in plan_changes(stores.catalog, [study], values, whole_patient=False):
        modify_study(stores.catalog, stores.archive, planned)


def patients(stores: Stores) -> list[dict[str, str]]:
    keys = ["PatientID", "PatientName", "PatientBirthDate"]
    return [match.values for match in find(stores.catalog, "PATIENT", {}, keys, 10)]


def in_files(stores: Stores, keyword: str) -> set[str]:
    files = map(stores.archive.path, stores.archive.files())
    return {str(dcmread(file, stop_before_pixels=True).get(keyword, "")) for file in files}


def test_a_merge_moves_studies_to_the_patient_who_is_here(stores: Stores, tmp_path: Path) -> None:
    wrong = {"PatientID": "OLD", "PatientName": "Do^Jane", "PatientBirthDate": "19700110"}
    right = {"PatientID": "NEW", "PatientName": "Doe^Jane", "PatientBirthDate": "19700101"}
    first, second = study_of(3, **wrong), study_of(1, **wrong)
    here = study_of(1, **right)
    keep(stores, tmp_path, *first, *second, *here)
    embed(stores)
    before = set(stores.archive.files())
    modify_patient(stores, "OLD", PatientID="NEW")
    assert patients(stores) == [right]
    for keyword, value in right.items():
        assert in_files(stores, keyword) == {value}
    assert count(stores, schema.studies) == 3
    assert len(before & set(stores.archive.files())) == 1
    for dataset in first:
        kept = dcmread(archive_file(stores, dataset.SOPInstanceUID))
        for element in dataset:
            if element.keyword not in right:
                assert kept[element.tag] == element
    assert vectors_of_each(stores) == dict.fromkeys(vectors_of_each(stores), 1)
    assert_sound(stores)
    # the unchanged object again does not undo it, nor bring the old patient back
    keep(stores, tmp_path, first[0])
    assert patients(stores) == [right]
    assert in_files(stores, "PatientID") == {"NEW"}


def test_a_study_gets_another_patient_and_other_values(stores: Stores, tmp_path: Path) -> None:
    common = {"PatientID": "P1", "PatientBirthDate": "19700101"}
    one, other = study_of(2, **common), study_of(1, **common)
    keep(stores, tmp_path, *one, *other)
    modify_one(stores, one[0], PatientID="P2", StudyDate="20200102", AccessionNumber="")
    assert {patient["PatientID"] for patient in patients(stores)} == {"P1", "P2"}
    found = find(stores.catalog, "STUDY", {"PatientID": "P2"}, ["StudyDate", "AccessionNumber"], 9)
    assert [match.values for match in found] == [{"StudyDate": "20200102", "AccessionNumber": ""}]
    ages = sorted(column(stores, schema.studies.c.age_years))
    assert [int(age) for age in ages] == [50, 54]
    header = dcmread(archive_file(stores, one[1].SOPInstanceUID))
    assert (header.PatientID, header.StudyDate, header.AccessionNumber) == ("P2", "20200102", "")
    assert_sound(stores)


def test_a_name_in_another_script_is_written_and_found(stores: Stores, tmp_path: Path) -> None:
    study = study_of(
        2, PatientID="J", PatientName="Yamada^Taro", StudyDescription="Schädel", size=8
    )
    for dataset in study:
        dataset.SpecificCharacterSet = "ISO_IR 100"
    keep(stores, tmp_path, *study)
    name = "Yamada^Taro=山田^太郎=やまだ^たろう"
    modify_patient(stores, "J", PatientName=name)
    kept = dcmread(archive_file(stores, study[0].SOPInstanceUID))
    assert kept.PatientName == name
    assert kept.StudyDescription == "Schädel"
    assert kept.SpecificCharacterSet == "ISO_IR 192"
    assert len(find(stores.catalog, "PATIENT", {"PatientName": "*=山田*"}, LEVELS, 9)) == 1
    assert_sound(stores)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize("name", ["Roe^Richard", "山田^太郎"])
def test_a_rewritten_object_differs_in_nothing_else(tmp_path: Path, syntax: UID, name: str) -> None:
    archive = Archive(tmp_path / "archive")
    dataset = make_object(PatientComments="Grüße", OtherPatientIDs=["A", "B"])
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
    dataset.add_new(0x60003000, "OW", bytes(range(32)))
    source = archive.root / "00" / "source.dcm"
    write(dataset, source, syntax)
    values = {"PatientName": name, "IssuerOfPatientID": "", "PatientID": "4711"}
    stored = rewrite(archive, "00/source.dcm", values, archive.new_path("1.2", "1.2.3"))
    changed = dcmread(archive.path(stored.path))
    assert archive.content_sha256(stored.path) == stored.content_sha256
    assert changed.file_meta.TransferSyntaxUID == syntax
    expected = dcmread(source)
    expected.PatientName, expected.PatientID = name, "4711"
    if not name.isascii():
        expected.SpecificCharacterSet = "ISO_IR 192"
    assert list(changed.keys()) == list(expected.keys())
    for element in expected:
        assert changed[element.tag].value == element.value


def test_what_is_not_kept_changes_in_the_catalogue_only(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(retention=NONE)
    study = study_of(2, PatientID="OLD")
    keep(stores, tmp_path, study[0])
    embed(stores)
    apply_retention(stores)
    keep(stores, tmp_path, study[1])
    modify_patient(stores, "OLD", PatientID="NEW")
    assert [patient["PatientID"] for patient in patients(stores)] == ["NEW"]
    assert in_files(stores, "PatientID") == {"NEW"}
    # what comes again for it says the old: not taken for the object's pixels
    all_kept = open_stores_with()
    keep(all_kept, tmp_path, study[0])
    assert in_files(stores, "PatientID") == {"NEW"}
    assert_sound(stores)


def test_an_object_that_arrives_meanwhile_is_changed_too(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(3, PatientID="OLD")
    keep(stores, tmp_path, *study[:2])
    late = [study[2]]

    def arriving(*arguments: Any) -> Any:
        while late:
            keep(stores, tmp_path, late.pop())
        return commit_change(*arguments)

    monkeypatch.setattr(modification, "commit_change", arriving)
    modify_patient(stores, "OLD", PatientID="NEW")
    assert in_files(stores, "PatientID") == {"NEW"}
    assert len(list(stores.archive.files())) == 3
    assert_sound(stores)


def damage(stores: Stores, uid: str) -> None:
    archive_file(stores, uid).write_bytes(b"no DICOM any more" * 40)


def test_a_study_that_cannot_be_changed_stays_as_it_was(stores: Stores, tmp_path: Path) -> None:
    study = study_of(3, PatientID="OLD")
    keep(stores, tmp_path, *study)
    damage(stores, study[2].SOPInstanceUID)
    with pytest.raises(InvalidObjectError):
        modify_patient(stores, "OLD", PatientID="NEW")
    assert [patient["PatientID"] for patient in patients(stores)] == ["OLD"]
    assert len(list(stores.archive.files())) == 3
    assert count(stores, schema.unused_files) == 0


def test_files_of_a_change_that_died_are_nobodys(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(2, PatientID="OLD")
    keep(stores, tmp_path, *study)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(modification, "commit_change", die)
        patch.setattr(modification._Writer, "clean_up", lambda *_: None)  # killed, not interrupted
        with pytest.raises(KeyboardInterrupt):
            modify_patient(stores, "OLD", PatientID="NEW")
    assert len(list(stores.archive.files())) == 4
    # they might still be taken into use: neither adopted nor removed
    assert Verification(stores).findings() == []
    apply_retention(stores)
    assert len(list(stores.archive.files())) == 4
    with stores.catalog.write() as connection:
        connection.execute(update(schema.unused_files).values(since=time.time() - 1))
    assert {finding.kind for finding in Verification(stores).findings()} == {"removal not finished"}
    apply_retention(stores)
    assert len(list(stores.archive.files())) == 2
    modify_patient(stores, "OLD", PatientID="NEW")
    assert in_files(stores, "PatientID") == {"NEW"}
    assert_sound(stores)


def test_a_change_that_outlived_its_reservation_is_not_made(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(stores, tmp_path, *study_of(2, PatientID="OLD"))
    monkeypatch.setattr(modification, "_RESERVED_S", 30.0)  # less than the margin
    with pytest.raises(CatalogError, match="give the command again"):
        modify_patient(stores, "OLD", PatientID="NEW")
    assert [patient["PatientID"] for patient in patients(stores)] == ["OLD"]
    assert_sound(stores)


def test_a_change_must_not_describe_other_studies_by_the_way(
    stores: Stores, tmp_path: Path
) -> None:
    one, other = study_of(1, PatientID="P1"), study_of(1, PatientID="P1")
    third = study_of(1, PatientID="P3", PatientName="Else^Somebody")
    keep(stores, tmp_path, *one, *other, *third)
    with pytest.raises(SelectionError, match="change it with --patient"):
        modify_one(stores, one[0], PatientName="Roe^Jane")
    with pytest.raises(SelectionError, match="is here already, with PatientName 'Else"):
        modify_one(stores, one[0], PatientID="P3", PatientName="Roe^Jane")
    with pytest.raises(SelectionError, match="name one --study"):
        modify_patient(stores, "P1", StudyDate="20200101")
    modify_patient(stores, "P1", PatientName="Roe^Jane")
    assert in_files(stores, "PatientName") == {"Roe^Jane", "Else^Somebody"}
    assert_sound(stores)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2.3"),
        ("Modality", "CT"),
        ("NoSuchThing", "x"),
        ("StudyDate", "2020-01-02"),
        ("PatientID", "A\\B"),
        ("PatientSex", "female"),
        ("PatientID", "x" * 65),
    ],
)
def test_what_cannot_be_set_is_refused(keyword: str, value: str) -> None:
    with pytest.raises(SelectionError, match=keyword):
        checked_value(keyword, value)


def run_modify(stores: Stores, *options: str) -> Result:
    command = ["modify", "--data-dir", str(stores.settings.data_dir), *options]
    return CliRunner().invoke(
        main, command, env={"CBMIR_CATALOG__URL": stores.settings.catalog_url}
    )


def test_the_command(stores: Stores, tmp_path: Path) -> None:
    study = study_of(1, PatientID="OLD")
    keep(stores, tmp_path, *study, make_object(PatientID="NEW"))
    options = ("--patient", "OLD", "--set", "PatientID=NEW")
    dry = run_modify(stores, *options, "--dry-run")
    assert "PatientID=NEW" in dry.output
    assert "merged" in dry.output
    assert run_modify(stores, *options).exit_code == 1  # nobody said yes
    assert len(patients(stores)) == 2
    assert run_modify(stores, *options, "--yes").exit_code == 0
    assert len(patients(stores)) == 1
    assert run_modify(stores, *options, "--yes").exit_code == 1  # nobody is left
    assert run_modify(stores, "--patient", "NEW", "--set", "PatientID").exit_code == 2
