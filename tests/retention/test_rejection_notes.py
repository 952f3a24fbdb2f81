"""Rejection notes (IHE IOCM): what they name goes, and is refused or not when it comes again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from cbmir_node.catalog.reception.group_commit import GroupCommit
from cbmir_node.cli import main
from cbmir_node.errors import CatalogError, RejectedObjectError
from cbmir_node.retention.rejection_notes import (
    CAUSE_OF_TITLE,
    KEY_OBJECT_SELECTION,
    read_rejection_note,
)
from cbmir_node.stores import Stores
from tests.dicom.peers import EXPLICIT, association
from tests.objects import make_object, write
from tests.retention.conftest import (
    OpenStores,
    apply_retention,
    assert_sound,
    buried,
    embed,
    study_of,
    uids,
)
from tests.small_node import keep

QUALITY = ("113001", "DCM", "Rejected for Quality Reasons")
EXPIRED = ("113039", "DCM", "Data Retention Policy Expired")


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def note_on(
    datasets: list[Dataset], title: tuple[str, str, str] = QUALITY, **attributes: Any
) -> Dataset:
    """Return a Key Object Selection that references objects of one study, series by series."""
    series: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        reference = item(
            ReferencedSOPClassUID=dataset.SOPClassUID,
            ReferencedSOPInstanceUID=dataset.SOPInstanceUID,
        )
        series.setdefault(dataset.SeriesInstanceUID, []).append(reference)
    study = item(
        StudyInstanceUID=datasets[0].StudyInstanceUID,
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=uid, ReferencedSOPSequence=references)
            for uid, references in series.items()
        ],
    )
    code, scheme, meaning = title
    return make_object(
        **{
            "SOPClassUID": KEY_OBJECT_SELECTION,
            "StudyInstanceUID": datasets[0].StudyInstanceUID,
            "PatientID": datasets[0].PatientID,
            "Modality": "KO",
            "ConceptNameCodeSequence": [
                item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
            ],
            "CurrentRequestedProcedureEvidenceSequence": [study],
            **dict.fromkeys(("Rows", "Columns", "PixelData", "ImageType", "BodyPartExamined")),
            **attributes,
        }
    )


@pytest.mark.parametrize(("code", "cause"), CAUSE_OF_TITLE.items())
@pytest.mark.parametrize("note_first", [False, True])
def test_what_a_note_names_goes_whichever_comes_first(
    stores: Stores, tmp_path: Path, code: str, cause: str, note_first: bool
) -> None:
    study = study_of(4)
    bad, good = study[:3], study[3]
    note = note_on(bad, (code, "DCM", "why"))
    if note_first:
        keep(stores, tmp_path, note, good)
    else:
        keep(stores, tmp_path, *study)
        embed(stores)
        keep(stores, tmp_path, note)
    bad_uids = {str(dataset.SOPInstanceUID) for dataset in bad}
    assert buried(stores) == dict.fromkeys(bad_uids, cause)
    assert uids(stores) == {good.SOPInstanceUID, note.SOPInstanceUID}
    if cause == "rejected":
        with pytest.raises(RejectedObjectError):
            keep(stores, tmp_path, bad[0])
        assert uids(stores) == {good.SOPInstanceUID, note.SOPInstanceUID}
    else:
        keep(stores, tmp_path, bad[0])
        assert buried(stores) == dict.fromkeys(bad_uids - {bad[0].SOPInstanceUID}, cause)
        assert bad[0].SOPInstanceUID in uids(stores)
    assert_sound(stores)


def test_a_rejection_outlives_a_deletion_and_another_note(stores: Stores, tmp_path: Path) -> None:
    (bad,) = study_of(1)
    keep(stores, tmp_path, note_on([bad]), note_on([bad], EXPIRED))
    assert buried(stores) == {bad.SOPInstanceUID: "rejected"}
    with pytest.raises(RejectedObjectError):
        keep(stores, tmp_path, bad)
    other = study_of(1)[0]
    keep(stores, tmp_path, note_on([other], EXPIRED), note_on([other]))
    assert buried(stores)[other.SOPInstanceUID] == "rejected"


def test_a_note_that_comes_again_works_again(stores: Stores, tmp_path: Path) -> None:
    """What was let back in since, and what a broken-off reception of the note left undone."""
    bad = study_of(2)
    note = note_on(bad, EXPIRED)
    keep(stores, tmp_path, *bad, note, *bad)
    assert len(uids(stores)) == 3
    keep(stores, tmp_path, note)
    assert uids(stores) == {note.SOPInstanceUID}
    assert_sound(stores)


def test_a_note_broken_off_before_its_row_has_its_effect_all_the_same(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = study_of(3)
    keep(stores, tmp_path, *bad)
    note = note_on(bad)

    def refuse(*_: object) -> None:
        raise CatalogError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(GroupCommit, "commit", refuse)
        with pytest.raises(CatalogError):
            keep(stores, tmp_path, note)
    assert len(uids(stores)) == 3
    apply_retention(stores)
    assert uids(stores) == set()
    keep(stores, tmp_path, note)
    assert uids(stores) == {note.SOPInstanceUID}


def test_a_note_that_was_rejected_rejects_nothing(stores: Stores, tmp_path: Path) -> None:
    study = study_of(2)
    note = note_on(study)
    keep(stores, tmp_path, *study, note_on([note]))
    with pytest.raises(RejectedObjectError):
        keep(stores, tmp_path, note)
    assert {str(dataset.SOPInstanceUID) for dataset in study} <= uids(stores)
    assert buried(stores) == {note.SOPInstanceUID: "rejected"}
    assert_sound(stores)


def test_notes_are_honoured_only_where_that_is_configured(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    honouring = open_stores_with()
    (bad,) = study_of(1)
    keep(honouring, tmp_path, bad, note_on([bad]))
    deaf = open_stores_with(retention={"honour_rejection_notes": False})
    other = study_of(2)
    keep(deaf, tmp_path, *other, note_on(other), bad)
    assert {str(dataset.SOPInstanceUID) for dataset in (bad, *other)} <= uids(deaf)
    assert buried(deaf) == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {"ConceptNameCodeSequence": [item(CodeValue="113000", CodingSchemeDesignator="DCM")]},
        {"ConceptNameCodeSequence": [item(CodeValue="113001", CodingSchemeDesignator="99X")]},
        {"ConceptNameCodeSequence": []},
        {"ConceptNameCodeSequence": None},
    ],
)
def test_other_key_object_selections_reject_nothing(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    note = write(note_on(study_of(1), **attributes), tmp_path / "note.dcm")
    assert read_rejection_note(note) is None


def test_a_note_cannot_reject_itself_or_what_has_no_uid(tmp_path: Path) -> None:
    named = study_of(2)
    named[1].SOPInstanceUID = "../evil"
    note = note_on(named, SOPInstanceUID="1.2.3")
    own = item(ReferencedSOPInstanceUID="1.2.3")
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0]
    evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence.append(own)
    read = read_rejection_note(write(note, tmp_path / "note.dcm"))
    assert read is not None
    assert read.objects == ((named[0].SOPInstanceUID, named[0].StudyInstanceUID),)
    empty = note_on(named, CurrentRequestedProcedureEvidenceSequence=[])
    read = read_rejection_note(write(empty, tmp_path / "empty.dcm"))
    assert read is not None
    assert read.objects == ()


def test_senders_are_told(stores: Stores, start_server: Callable[[Stores], int]) -> None:
    """Over DICOM with a status and a comment, on the command line with the reason."""
    port = start_server(stores)
    bad = study_of(2)
    contexts = [(uid, EXPLICIT) for uid in (CTImageStorage, KEY_OBJECT_SELECTION)]
    with association(port, *contexts) as opened:
        for dataset in (*bad, note_on(bad)):
            assert opened.send_c_store(dataset).Status == 0x0000
        refused = opened.send_c_store(bad[0])
    assert refused.Status == 0xC104
    assert refused.ErrorComment == "rejected by a rejection note (IOCM): not stored again"
    folder = stores.settings.data_dir
    file = write(bad[1], folder.parent / "bad.dcm", ExplicitVRLittleEndian)
    done = CliRunner().invoke(
        main,
        ["import", "--data-dir", str(folder), str(file)],
        env={"CBMIR_CATALOG__URL": stores.settings.catalog_url},
    )
    assert done.exit_code == 1
    assert "rejected by a rejection note (IOCM)" in done.output
    assert len(uids(stores)) == 1
