"""Ordinary C-FIND, as viewers drill down and as clients get it wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode

from cbmir_node.answers.data_sets import make_answer
from cbmir_node.answers.query_keys import QueryKeys
from cbmir_node.catalog.query.hierarchy import Match
from cbmir_node.catalog.reception.records import make_record
from cbmir_node.catalog.reception.registration import register
from cbmir_node.config import Settings
from cbmir_node.dicom.transport import BoundedSocket
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association, findscu, unheard, until
from tests.objects import make_object

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"

LEVEL = b"\x08\x00\x52\x00CS\x06\0STUDY "
TWO_ITEMS = [Dataset(), Dataset()]

Responses = list[tuple[Dataset, Dataset | None]]


def ask(
    node: Node,
    model: str = STUDY_ROOT,
    called: str = "CBMIR",
    syntax: str = ExplicitVRLittleEndian,
    **keys: Any,
) -> Responses:
    """Ask with pynetdicom; keys are keywords and values."""
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return ask_with(node, identifier, model, called, syntax)


def ask_with(
    node: Node,
    identifier: Dataset,
    model: str = STUDY_ROOT,
    called: str = "CBMIR",
    syntax: str = ExplicitVRLittleEndian,
) -> Responses:
    with association(node.port, (model, [syntax]), called=called) as opened:
        return list(opened.send_c_find(identifier, model))


@pytest.fixture
def study(node: Node) -> list[Dataset]:
    """Put a study of two series and three images into the node, and one of another patient."""
    first = make_object(PatientID="P1", PatientName="Doe^Jane", AccessionNumber="A1")
    shared = {key: first[key].value for key in ("PatientID", "StudyInstanceUID", "AccessionNumber")}
    second = make_object(
        **shared, SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=2, Modality="CT"
    )
    third = make_object(**shared, Modality="SEG", SeriesDescription="Lesion", SeriesNumber=2)
    other = make_object(PatientID="P2", PatientName="Müller^Änne", StudyDate="20200505")
    other.SpecificCharacterSet = "ISO_IR 192"
    node.keep(first, second, third, other)
    return [first, second, third, other]


def test_findscu_at_every_level(node: Node, study: list[Dataset], tmp_path: Path) -> None:
    needs_program("findscu", package="dcmtk")
    first, second, third, _ = study
    patients = findscu(
        *(node.port, tmp_path / "p", "QueryRetrieveLevel=PATIENT", "PatientID=P1"),
        *("PatientName", "NumberOfPatientRelatedStudies"),
        model="-P",
    )
    assert [(p.PatientName, p.NumberOfPatientRelatedStudies) for p in patients] == [("Doe^Jane", 1)]
    studies = findscu(
        *(node.port, tmp_path / "s", "QueryRetrieveLevel=STUDY", "PatientID=P1"),
        *("StudyInstanceUID", "ModalitiesInStudy", "NumberOfStudyRelatedSeries"),
        *("NumberOfStudyRelatedInstances", "AccessionNumber"),
        model="-P",
    )
    (found,) = studies
    assert found.StudyInstanceUID == first.StudyInstanceUID
    assert sorted(found.ModalitiesInStudy) == ["CT", "SEG"]
    assert (found.NumberOfStudyRelatedSeries, found.NumberOfStudyRelatedInstances) == (2, 3)
    assert (found.RetrieveAETitle, found.InstanceAvailability) == ("CBMIR", "ONLINE")
    uid = f"StudyInstanceUID={first.StudyInstanceUID}"
    series = findscu(
        *(node.port, tmp_path / "e", "QueryRetrieveLevel=SERIES", uid, "SeriesInstanceUID"),
        *("Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    )
    assert {
        (s.SeriesInstanceUID, s.Modality, s.NumberOfSeriesRelatedInstances) for s in series
    } == {
        (first.SeriesInstanceUID, "CT", 2),
        (third.SeriesInstanceUID, "SEG", 1),
    }
    images = findscu(
        *(node.port, tmp_path / "i", "QueryRetrieveLevel=IMAGE", uid),
        *(f"SeriesInstanceUID={first.SeriesInstanceUID}", "SOPInstanceUID", "InstanceNumber"),
        *("Rows", "SOPClassUID"),
    )
    assert {(i.SOPInstanceUID, i.InstanceNumber, i.Rows) for i in images} == {
        (first.SOPInstanceUID, 1, 16),
        (second.SOPInstanceUID, 2, 16),
    }
    assert node.server.statistics.finds == {("main", 0): 4}


FOUND: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"P1", "P2"}),
    ({"PatientName": "doe*"}, {"P1"}),
    ({"PatientName": "M*", "SpecificCharacterSet": "ISO_IR 192"}, {"P2"}),
    ({"PatientName": "müller^ÄNNE", "SpecificCharacterSet": "ISO_IR 192"}, {"P2"}),
    ({"StudyDate": "20200101-20201231"}, {"P2"}),
    ({"StudyDate": "-20210101"}, {"P2"}),
    ({"ModalitiesInStudy": "SEG"}, {"P1"}),
    ({"StudyInstanceUID": ["1.2", "1.3"]}, set()),
    ({"AccessionNumber": "A?"}, {"P1", "P2"}),
    ({"PatientSex": "O"}, set()),
    ({"StudyInstanceUID": "*"}, {"P1", "P2"}),
    ({"StudyDescription": "head"}, set()),
    ({"PatientName": "MULLER", "StudyDate": "20200505-20200505"}, {"P2"}),
    ({"StudyDate": "20200506-20200504"}, set()),
]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_matching(
    node: Node, study: list[Dataset], syntax: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="cbmir_node.dicom.find")
    for keys, patients in FOUND:
        asked = {"QueryRetrieveLevel": "STUDY", "PatientID": "", **keys}
        *pending, (final, _) = ask(node, syntax=syntax, **asked)
        assert final.Status == 0x0000, keys
        assert {answer.PatientID for _, answer in pending if answer} == patients, keys
        assert caplog.messages[-1].endswith(f": 0x0000, STUDY level, {len(patients)} answers"), keys


def test_a_long_list_of_uids(node: Node, study: list[Dataset]) -> None:
    uids = [*(generate_uid() for _ in range(100)), study[0].StudyInstanceUID]
    *pending, _ = ask(node, QueryRetrieveLevel="STUDY", StudyInstanceUID=uids)
    assert len(pending) == 1


def test_only_what_was_asked_for_is_returned(node: Node, study: list[Dataset]) -> None:
    (status, answer), _ = ask(node, QueryRetrieveLevel="STUDY", PatientID="P2", PatientName="")
    assert status.Status == 0xFF00
    assert answer is not None
    assert {element.keyword for element in answer} == {
        *("SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"),
        *("PatientID", "PatientName"),
    }
    assert answer.PatientName == "Müller^Änne"
    (_, plain), _ = ask(node, QueryRetrieveLevel="STUDY", PatientID="P1")
    assert plain is not None
    assert "SpecificCharacterSet" not in plain


@pytest.mark.parametrize(
    ("model", "keys", "offending"),
    [
        (STUDY_ROOT, {}, 0x00080052),
        (STUDY_ROOT, {"QueryRetrieveLevel": "FRAME"}, 0x00080052),
        (STUDY_ROOT, {"QueryRetrieveLevel": "PATIENT"}, 0x00080052),
        (STUDY_ROOT, {"QueryRetrieveLevel": ["STUDY", "SERIES"]}, 0x00080052),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES"}, 0x0020000D),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "*"}, 0x0020000D),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1", "2"]}, 0x0020000D),
        (STUDY_ROOT, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2"}, 0x0020000E),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY"}, 0x00100020),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": "P*"}, 0x00100020),
        (STUDY_ROOT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2.*"}, 0x0020000D),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": ["P1", "P2"]}, 0x00100020),
        (PATIENT_ROOT, {"QueryRetrieveLevel": "IMAGE", "PatientID": "P1"}, 0x0020000D),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "StudyDate": "yesterday"}, 0x00080020),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "StudyDate": "20241301-"}, 0x00080020),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "StudyTime": "1000-2500"}, 0x00080030),
        (
            *(STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "ProcedureCodeSequence": TWO_ITEMS}),
            0x00081032,
        ),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "StudyTime": "25 o'clock"}, 0x00080030),
        (STUDY_ROOT, {"QueryRetrieveLevel": "STUDY", "PatientID": ["P"] * 51}, 0x00100020),
    ],
)
def test_malformed_requests(node: Node, model: str, keys: dict[str, Any], offending: int) -> None:
    ((status, answer),) = ask(node, model, PatientName="", **keys)
    assert status.Status == 0xA900
    assert status.OffendingElement == offending
    assert 0 < len(status.ErrorComment) <= 64
    assert answer is None
    assert node.server.statistics.finds == {("main", 0xA900): 1}


def test_unsupported_keys_are_said_to_be(node: Node, study: list[Dataset]) -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({"StudyDescription": "Head", "StudyDate": "20240102"}, 0xFF00),
        ({"NumberOfStudyRelatedInstances": "", "ModalitiesInStudy": "CT"}, 0xFF00),
        ({"TimezoneOffsetFromUTC": "+0100", "RetrieveAETitle": ""}, 0xFF00),
        ({"PatientWeight": ""}, 0xFF01),
        ({"NumberOfStudyRelatedInstances": "3"}, 0xFF01),  # counted, but not matched
        ({"Modality": "MR"}, 0xFF01),  # of a level below, and not negotiated
        ({"SeriesInstanceUID": "1.2.3"}, 0xFF01),
        ({"ReferencedStudySequence": []}, 0xFF01),
    ]
    unsupported = {"PatientWeight", "Modality", "SeriesInstanceUID", "ReferencedStudySequence"}
    for keys, status in cases:
        asked = {"QueryRetrieveLevel": "STUDY", "PatientID": "P1", **keys}
        (pending, answer), (final, _) = ask(node, **asked)
        assert (pending.Status, final.Status) == (status, 0x0000), keys
        assert answer is not None
        returned = {element.keyword for element in answer}
        assert returned.isdisjoint({*unsupported, "TimezoneOffsetFromUTC"}), keys


def test_private_and_group_length_elements_are_ignored(node: Node, study: list[Dataset]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientID = "P1"
    block = identifier.private_block(0x0009, "SOMEBODY ELSE", create=True)
    block.add_new(0x01, "LO", "whatever")
    identifier.add(DataElement(0x00080000, "UL", 42))
    (status, answer), _ = ask_with(node, identifier)
    assert status.Status == 0xFF00
    assert answer is not None
    assert not [element for element in answer if element.tag.is_private]


def test_values_that_break_their_vr_do_no_harm(node: Node, study: list[Dataset]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study[0].StudyInstanceUID
    tag = Tag("SeriesNumber")
    identifier[tag] = RawDataElement(tag, "IS", 4, b"one ", 0, False, True)
    ((status, _),) = ask_with(node, identifier)
    assert status.Status == 0x0000  # nothing has this number


def test_bad_stored_values_do_not_break_an_answer() -> None:
    values = {
        "InstanceNumber": "one",
        "Rows": "70000",
        "NumberOfFrames": "3\\x",
        "StudyDate": "yesterday ☃",
        "SOPInstanceUID": "☃",
        "PatientName": "☃^\ud800".encode("utf-8", "replace").decode(),
        "ImageType": "ORIGINAL\\PRIMARY",
    }
    keys = QueryKeys("IMAGE", {}, tuple(values), has_unsupported=False)
    answer = make_answer(Match(1, values), keys, Settings())
    assert answer.InstanceNumber is None
    assert answer.Rows is None
    assert answer.NumberOfFrames == 3
    assert answer.ImageType == ["ORIGINAL", "PRIMARY"]
    for implicit in (True, False):
        assert encode(answer, implicit, is_little_endian=True)


def test_a_key_sent_twice_does_no_harm(node: Node, study: list[Dataset]) -> None:
    """PS3.5 7.1 forbids it; the later one counts."""

    def bytes_of(**keys: str) -> bytes:
        identifier = Dataset()
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        return encode(identifier, is_implicit_vr=False, is_little_endian=True) or b""

    body = bytes_of(QueryRetrieveLevel="STUDY", PatientID="P1") + bytes_of(PatientID="P2")
    with association(node.port, (STUDY_ROOT, EXPLICIT)) as opened, unheard(opened):
        opened.dimse.send_msg(find_request(body), opened.accepted_contexts[0].context_id)
        statuses = [opened.dimse.get_msg(block=True)[1].Status for _ in range(2)]
    assert statuses == [0xFF00, 0x0000]


def find_request(body: bytes) -> C_FIND:
    request = C_FIND()
    request.MessageID = 1
    request.AffectedSOPClassUID = STUDY_ROOT
    request.Priority = 0
    request.Identifier = BytesIO(body)
    return request


@pytest.mark.parametrize(
    "body",
    [
        b"\x08\x00\x52\x00SQ\0\0\xff\xff\xff\xff garbage" * 3,
        LEVEL + b"\x08\x00\x32\x10LO\x04\0text",  # where a sequence belongs
    ],
)
def test_identifier_that_cannot_be_read(node: Node, body: bytes) -> None:
    with association(node.port, (STUDY_ROOT, EXPLICIT)) as opened, unheard(opened):
        opened.dimse.send_msg(find_request(body), opened.accepted_contexts[0].context_id)
        _, response = opened.dimse.get_msg(block=True)
    assert response.Status in (0xC000, 0xA900)
    assert response.ErrorComment


def test_limit_is_told(
    start_node: Callable[..., Node],
) -> None:
    node = start_node(max_find_results=2)
    node.keep(*(make_object() for _ in range(3)))
    statuses = [status for status, _ in ask(node, QueryRetrieveLevel="STUDY", PatientID="")]
    assert [status.Status for status in statuses] == [0xFF00, 0xFF00, 0xA700]
    assert "narrow" in statuses[-1].ErrorComment
    node.keep()
    assert len(ask(node, QueryRetrieveLevel="STUDY", PatientID="*", PatientSex="M")) == 1


def test_cancel(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    send = BoundedSocket.send

    def slowly(sender: BoundedSocket, data: bytes) -> None:
        time.sleep(0.002)  # as a slow network: answers are made faster than they are sent
        send(sender, data)

    monkeypatch.setattr(BoundedSocket, "send", slowly)
    many_studies(node, 200)
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    statuses = []
    with association(node.port, (STUDY_ROOT, EXPLICIT)) as opened:
        for status, _ in opened.send_c_find(identifier, STUDY_ROOT, msg_id=3):
            statuses.append(status.Status)
            if len(statuses) == 1:
                opened.send_c_cancel(3, query_model=STUDY_ROOT)
    assert statuses[-1] == 0xFE00
    assert len(statuses) < 200
    until(lambda: node.server.statistics.finds == {("main", 0xFE00): 1})


def test_peer_that_leaves_in_the_middle(node: Node) -> None:
    many_studies(node, 100)
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    with association(node.port, (STUDY_ROOT, EXPLICIT), release=False) as opened:
        next(opened.send_c_find(identifier, STUDY_ROOT))
    until(lambda: node.server.active_associations() == 0)


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_drill_down_in_the_similarity_view_is_ordinary(
    node: Node, study: list[Dataset], level: str
) -> None:
    keys = {"StudyInstanceUID": study[0].StudyInstanceUID, "SOPInstanceUID": ""}
    if level == "IMAGE":
        keys["SeriesInstanceUID"] = study[0].SeriesInstanceUID
    *pending, (final, _) = ask(node, called="CBMIR_SIM", QueryRetrieveLevel=level, **keys)
    assert final.Status == 0x0000
    assert len(pending) == 2
    assert not node.search.queries
    assert node.server.statistics.finds == {("similarity", 0): 1}


def many_studies(node: Node, count: int) -> None:
    """Catalogue studies without files."""
    with node.catalog.write() as connection:
        for number in range(count):
            dataset = make_object(SOPInstanceUID=generate_uid())
            record = make_record(
                dataset,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                has_pixels=True,
                path=f"none/{number}",
                size_bytes=1,
                content_sha256=f"{number}",
                source="test",
                received_at=time.time(),
            )
            register(connection, record, "keep")
