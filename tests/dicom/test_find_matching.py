"""What C-FIND negotiates, sequences, keys of other levels, and where objects can be retrieved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from cbmir_node.catalog import schema
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association, findscu
from tests.dicom.test_find import PATIENT_ROOT, STUDY_ROOT, Responses, ask
from tests.objects import make_object


def code(**attributes: str) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


CHEST = code(CodeValue="C1", CodingSchemeDesignator="99A", CodeMeaning="Thorax für alle")
HEAD = code(CodeValue="H1", CodingSchemeDesignator="99A", CodeMeaning="Head")


def ask_negotiated(
    node: Node, options: bytes, model: str = STUDY_ROOT, called: str = "CBMIR", **keys: Any
) -> tuple[bytes | None, Responses]:
    """Ask with extended negotiation; return what the node granted, too."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = model
    item.service_class_application_information = options
    identifier = code(**keys)
    with association(node.port, (model, EXPLICIT), called=called, negotiation=[item]) as opened:
        granted = opened.acceptor.sop_class_extended.get(model)
        return granted, list(opened.send_c_find(identifier, model))


@pytest.fixture
def studies(node: Node) -> list[Dataset]:
    """Put a study of two series and one of another patient into the node."""
    shared = {"PatientID": "P1", "StudyInstanceUID": "1.2.1", "StudyID": "1"}
    first = make_object(
        **shared,
        SpecificCharacterSet="ISO_IR 192",
        ProcedureCodeSequence=[CHEST, HEAD],
        RequestAttributesSequence=[code(RequestedProcedureID="R1")],
        StudyDate="20060706",
        StudyTime="0300",
    )
    second = make_object(**shared, Modality="SEG", SeriesNumber=2, InstanceNumber=5)
    other = make_object(
        PatientID="P2", StudyID="2", ProcedureCodeSequence=[HEAD], StudyDate="20060705"
    )
    node.keep(first, second, other)
    return [first, second, other]


def test_options_are_granted_honestly(node: Node) -> None:
    cases = {
        b"\x01": b"\x01",  # no more bytes than were offered
        b"\x00\x00": b"\x00\x00",
        b"\x01\x01\x01\x01\x01": b"\x01\x01\x00\x00\x00",
        b"\x01\x01\x01\x01\x01\x01\x01": b"\x01\x01\x00\x00\x00\x00\x00",
    }
    for model in (STUDY_ROOT, PATIENT_ROOT):
        keys = {"model": model, "QueryRetrieveLevel": "STUDY", "PatientID": "P"}
        assert {asked: ask_negotiated(node, asked, **keys)[0] for asked in cases} == cases


def test_the_private_class_negotiates_nothing(node: Node) -> None:
    keys = {"QueryRetrieveLevel": "STUDY"}
    assert ask_negotiated(node, b"\x01\x01", SIMILARITY_FIND, **keys)[0] is None


def test_relational_queries(node: Node, studies: list[Dataset]) -> None:
    keys = {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "", "PatientID": "P1"}
    _, ((refused, _),) = ask_negotiated(node, b"\x00", **keys)
    assert (refused.Status, refused.OffendingElement) == (0xA900, 0x0020000D)
    _, (*pending, (final, _)) = ask_negotiated(node, b"\x01", **keys)
    assert final.Status == 0x0000
    assert {answer.SeriesInstanceUID for _, answer in pending if answer} == {
        study.SeriesInstanceUID for study in studies[:2]
    }
    # any combination of keys, also below the level asked for
    keys = {"QueryRetrieveLevel": "STUDY", "Modality": "SEG", "InstanceNumber": "5", "StudyID": ""}
    _, ((pending_status, answer), _) = ask_negotiated(node, b"\x01", **keys)
    assert pending_status.Status == 0xFF00  # they are matched, though a study has no value for them
    assert answer is not None
    assert answer.StudyID == "1"
    assert "Modality" not in answer
    _, ((pending_status, _), _) = ask_negotiated(node, b"\x01", **keys, PatientWeight="")
    assert pending_status.Status == 0xFF01
    _, responses = ask_negotiated(node, b"\x01", **{**keys, "InstanceNumber": "1"})
    assert len(responses) == 1
    _, (*pending, _) = ask_negotiated(
        *(node, b"\x01", PATIENT_ROOT), QueryRetrieveLevel="IMAGE", SOPInstanceUID="", PatientID=""
    )
    assert len(pending) == 3


def test_combined_dates_and_times(node: Node, studies: list[Dataset]) -> None:
    keys = {
        "QueryRetrieveLevel": "STUDY",
        "StudyID": "",
        "StudyDate": "20060705-20060707",
        "StudyTime": "1000-1800",
    }
    for options, expected in ((b"\x01\x00", {"2"}), (b"\x00\x01", {"1", "2"})):
        _, (*pending, _) = ask_negotiated(node, options, **keys)
        assert {answer.StudyID for _, answer in pending if answer} == expected


def test_sequences(node: Node, studies: list[Dataset]) -> None:
    def answers(item: Dataset | None, **keys: Any) -> list[Dataset]:
        sequence = [] if item is None else [item]
        *pending, (final, _) = ask(
            node, QueryRetrieveLevel="STUDY", ProcedureCodeSequence=sequence, StudyID="", **keys
        )
        assert final.Status == 0x0000
        assert {status.Status for status, _ in pending} <= {0xFF00}
        return [answer for _, answer in pending if answer is not None]

    def inside(answer: Dataset) -> list[dict[str, str]]:
        return [{e.keyword: e.value for e in item} for item in answer.ProcedureCodeSequence]

    (one,) = answers(code(CodeValue="C?", CodeMeaning=""), SpecificCharacterSet="ISO_IR 100")
    assert inside(one) == [{"CodeValue": "C1", "CodeMeaning": "Thorax für alle"}]
    assert one.SpecificCharacterSet == "ISO_IR 100"
    both = answers(code(CodeValue="H1"))
    assert [inside(answer) for answer in both] == [[{"CodeValue": "H1"}]] * 2
    assert answers(code(CodeValue="C1", CodingSchemeDesignator="99B")) == []
    for universal in (None, Dataset(), code(CodeValue="")):
        found = {answer.StudyID: len(inside(answer)) for answer in answers(universal)}
        assert found == {"1": 2, "2": 1}
    whole = {answer.StudyID: inside(answer) for answer in answers(None)}
    assert whole["2"] == [
        {"CodeValue": "H1", "CodingSchemeDesignator": "99A", "CodeMeaning": "Head"}
    ]


def test_sequences_with_unknown_keys_inside(node: Node, studies: list[Dataset]) -> None:
    asked = [code(RequestedProcedureID="R1", RequestedProcedureDescription="")]
    keys: dict[str, Any] = {"StudyInstanceUID": "1.2.1", "RequestAttributesSequence": asked}
    (status, answer), _ = ask(node, QueryRetrieveLevel="SERIES", **keys)
    assert status.Status == 0xFF01
    assert answer is not None
    (item,) = answer.RequestAttributesSequence
    assert [element.keyword for element in item] == ["RequestedProcedureID"]


def test_findscu_asks_for_a_sequence(node: Node, studies: list[Dataset], tmp_path: Path) -> None:
    needs_program("findscu", package="dcmtk")
    (answer,) = findscu(
        *(node.port, tmp_path / "one", "QueryRetrieveLevel=STUDY", "StudyID"),
        "ProcedureCodeSequence[0].CodeValue=C1",
    )
    assert (answer.StudyID, answer.ProcedureCodeSequence[0].CodeValue) == ("1", "C1")
    answers = findscu(
        node.port, tmp_path / "all", "QueryRetrieveLevel=STUDY", "ProcedureCodeSequence"
    )
    assert sorted(len(answer.ProcedureCodeSequence) for answer in answers) == [1, 2]


def test_keys_of_higher_levels_are_answered_at_lower_ones(
    node: Node, studies: list[Dataset]
) -> None:
    first = studies[0]
    unique = {key: first[key].value for key in ("StudyInstanceUID", "SeriesInstanceUID")}
    (status, answer), _ = ask(
        *(node, PATIENT_ROOT),
        QueryRetrieveLevel="IMAGE",
        PatientID="P1",
        **unique,
        StudyDate="",
        ModalitiesInStudy="",
        NumberOfPatientRelatedStudies="",
        NumberOfStudyRelatedInstances="",
        NumberOfSeriesRelatedInstances="",
    )
    assert status.Status == 0xFF00
    assert answer is not None
    assert answer.StudyDate == "20060706"
    assert answer.ModalitiesInStudy == ["CT", "SEG"]
    assert answer.NumberOfPatientRelatedStudies == 1
    assert answer.NumberOfStudyRelatedInstances == 2
    assert answer.NumberOfSeriesRelatedInstances == 1


@pytest.mark.parametrize(
    ("elsewhere", "gone"),
    [(None, ("CBMIR", "UNAVAILABLE")), ("MAIN_PACS", ("MAIN_PACS", "ONLINE"))],
)
def test_where_objects_can_be_retrieved(
    start_node: Callable[..., Node], elsewhere: str | None, gone: tuple[str, str]
) -> None:
    peers = {"MAIN_PACS": {"host": "127.0.0.1", "port": 104}}
    node = start_node(sections={"peers": peers, "retention": {"retrieve_from": elsewhere}})
    one = {"PatientID": "P1", "StudyInstanceUID": "1.2.1"}
    lost, kept = make_object(**one, SeriesInstanceUID="1.2.1.1"), make_object(**one)
    other = make_object(StudyInstanceUID="1.2.2")
    node.keep(lost, kept, other)
    with node.catalog.write() as connection:
        is_lost = schema.instances.c.sop_instance_uid == lost.SOPInstanceUID
        connection.execute(schema.instances.update().where(is_lost).values(path=""))

    def places(level: str, called: str = "CBMIR", **keys: Any) -> set[tuple[str, str]]:
        *pending, _ = ask(node, called=called, QueryRetrieveLevel=level, **keys)
        return {
            (str(answer.RetrieveAETitle), str(answer.InstanceAvailability))
            for _, answer in pending
            if answer
        }

    here = ("CBMIR", "ONLINE")
    assert places("STUDY", StudyInstanceUID="1.2.1") == {gone}
    assert places("STUDY", StudyInstanceUID="1.2.2") == {here}
    assert places("SERIES", StudyInstanceUID="1.2.1") == {here, gone}
    series = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"}
    assert places("IMAGE", **series) == {gone}
    # a similar study is no easier to retrieve
    assert places("STUDY", "CBMIR_SIM", StudyInstanceUID="1.2.2") == {gone}
    assert places("STUDY", "CBMIR_SIM", StudyInstanceUID="1.2.1") == {here}
