"""C-MOVE and C-GET: what is sent, what is counted, what is refused."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage
from pynetdicom import build_context, build_role, evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.sop_class import VideoEndoscopicImageStorage
from sqlalchemy import insert, select, update

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.catalog import schema
from cbmir_node.dicom.client.association import Peer, association
from cbmir_node.dicom.contexts import supported_contexts
from tests.conftest import free_port
from tests.dicom.asking import (
    GET,
    IMPLICIT,
    JPEG_LOSSLESS,
    MOVE,
    PATIENT_GET,
    PATIENT_MOVE,
    STUDY,
    STUDY_GET,
    STUDY_MOVE,
    TITLES,
    Answered,
    Asker,
    compressed,
    image,
)
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, store_bytes, unheard, until
from tests.dicom.peers import association as raw_association
from tests.dicom.peers import encoded as bytes_of
from tests.dicom.receivers import Receiver, data_set, receiver
from tests.imaging.image_objects import ramp


@dataclass
class Retrieving:
    """A node with two patients, and who asks it."""

    node: Node
    scp: Receiver

    def ask(
        self, kind: str, keys: Mapping[str, Any], called: str = "CBMIR", **options: Any
    ) -> Answered:
        """Ask once, by C-MOVE to the receiver or by C-GET; note what came."""
        root_is_patient = "PatientID" in keys
        models = {MOVE: (STUDY_MOVE, PATIENT_MOVE), GET: (STUDY_GET, PATIENT_GET)}
        before = len(self.scp.requests)
        with Asker(self.node.port, called, **options) as asker:
            destination = self.scp.peer.ae_title if kind == MOVE else ""
            answered = asker.ask(models[kind][root_is_patient], keys, destination)
        if kind == MOVE:
            requests = self.scp.requests[before:]
            answered.objects = [str(request.AffectedSOPInstanceUID) for request in requests]
        return answered


IMAGES = ("1.1.1", "1.1.2", "1.2.1", "2.1.1", "3.1.1")


def uids(*numbers: str) -> list[str]:
    return [f"1.2.{number}" for number in numbers]


@contextmanager
def retrieving(
    start_node: Callable[..., Node],
    answer: Callable[[Any, int], Any] = lambda _event, _number: 0x0000,
    **sections: Any,
) -> Iterator[Retrieving]:
    """Start a node that knows a receiver and has `IMAGES`; study 3 is another patient's."""
    with receiver([(CTImageStorage, EXPLICIT)], answer) as scp:
        address = {"host": scp.peer.host, "port": scp.peer.port}
        peers = {scp.peer.ae_title: address, "NOBODY": {"host": "127.0.0.1", "port": free_port()}}
        node = start_node(sections={"peers": peers, **sections})
        node.keep(*(image(number, "P2" if number[0] == "3" else "P1") for number in IMAGES))
        yield Retrieving(node, scp)


def evict(node: Node, *numbers: str) -> None:
    """Take the files of instances away, as retention does."""
    changed = update(schema.instances).where(
        schema.instances.c.sop_instance_uid.in_(uids(*numbers))
    )
    with node.catalog.write() as connection:
        connection.execute(changed.values(path=""))


def rename(node: Node, number: str) -> None:
    """Put the file of an instance elsewhere, as a correction of its study does."""
    instances = schema.instances.c
    of_number = instances.sop_instance_uid == f"1.2.{number}"
    with node.catalog.write() as connection:
        path = str(connection.execute(select(instances.path).where(of_number)).scalar())
        node.archive.path(path).rename(node.archive.path(f"{path}.new"))
        changed = update(schema.instances).where(of_number).values(path=f"{path}.new")
        connection.execute(changed)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([[JPEG_LOSSLESS], [EXPLICIT[0]]], JPEG_LOSSLESS),
        # one for all objects: only what is uncompressed fits them all
        ([[JPEG_LOSSLESS, EXPLICIT[0]]], EXPLICIT[0]),
        ([[JPEG_LOSSLESS, IMPLICIT]], IMPLICIT),
    ],
)
def test_get_in_the_transfer_syntaxes_of_the_contexts(
    start_node: Callable[..., Node], offered: list[list[str]], chosen: str
) -> None:
    node = start_node()
    path = compressed(node.folder, "1.2.1.9.1", JPEG_LOSSLESS)
    node.intake.accept_file(path)
    contexts = [(SecondaryCaptureImageStorage, syntaxes) for syntaxes in offered]
    with Asker(node.port, contexts=contexts) as asker:
        answered = asker.ask(STUDY_GET, STUDY)
    assert answered.syntaxes == [chosen]
    if chosen == JPEG_LOSSLESS:
        assert answered.data_sets == [data_set(path)]
    else:
        assert answered.data_sets[0].endswith(ramp().astype("<u2").tobytes())


def test_video_that_shares_a_context_with_what_it_cannot_become() -> None:
    mpeg4 = "1.2.840.10008.1.2.4.102"
    for sop_class, first in ((VideoEndoscopicImageStorage, mpeg4), (CTImageStorage, EXPLICIT[0])):
        proposed = [build_context(sop_class, [IMPLICIT, EXPLICIT[0], mpeg4])]
        (supported,) = supported_contexts(proposed, "main", {sop_class})
        assert supported.transfer_syntax[0] == first


@pytest.mark.parametrize("kind", [MOVE, GET])
@pytest.mark.parametrize("called", TITLES)
def test_all_levels_of_both_models(start_node: Callable[..., Node], kind: str, called: str) -> None:
    patient = {"PatientID": "P1"}
    series = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"QueryRetrieveLevel": "PATIENT", **patient}, uids("1.1.1", "1.1.2", "1.2.1", "2.1.1")),
        ({"QueryRetrieveLevel": "PATIENT", "PatientID": "p1"}, []),
        ({**STUDY, **patient}, uids("1.1.1", "1.1.2", "1.2.1")),
        ({**STUDY, "PatientID": "P2"}, []),
        (STUDY, uids("1.1.1", "1.1.2", "1.2.1")),
        ({**STUDY, "StudyInstanceUID": ["1.2.2", "1.2.3", "1.9"]}, uids("2.1.1", "3.1.1")),
        ({**STUDY, "StudyDate": "19990101", "PatientName": ""}, uids("1.1.1", "1.1.2", "1.2.1")),
        ({"QueryRetrieveLevel": "SERIES", **series}, uids("1.1.1", "1.1.2")),
        ({"QueryRetrieveLevel": "SERIES", **series, **patient}, uids("1.1.1", "1.1.2")),
        ({"QueryRetrieveLevel": "IMAGE", **series, "SOPInstanceUID": "1.2.1.1.2"}, uids("1.1.2")),
        (
            {
                "QueryRetrieveLevel": "IMAGE",
                **patient,
                **series,
                "SOPInstanceUID": ["1.2.1.1.2", "1.2.1.1.1", "1.2.1.2.1"],
            },
            uids("1.1.1", "1.1.2"),
        ),
    ]
    with retrieving(start_node) as session:
        for keys, expected in cases:
            answered = session.ask(kind, keys, called)
            assert answered.objects == expected, keys
            assert (answered.status, answered.counts) == (0x0000, (len(expected), 0, 0))
            assert "NumberOfRemainingSuboperations" not in answered.final
            assert answered.failed == []
        if kind == MOVE:
            request = session.scp.requests[0]
            assert request.MoveOriginatorApplicationEntityTitle == "ASKER"
            assert request.MoveOriginatorMessageID == 1
        counters = session.node.server.statistics
        assert counters.retrievals == {(kind, 0x0000): len(cases)}
        assert counters.sub_operations == {(kind, "sent"): sum(len(found) for _, found in cases)}


def test_a_long_list_of_uids(start_node: Callable[..., Node]) -> None:
    many = [f"1.2.1.1.{number}" for number in range(2, 300)]
    keys = {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.1.1",
        "SOPInstanceUID": [*reversed(many), "1.2.1.1.1"],
    }
    with retrieving(start_node) as session:
        assert session.ask(GET, keys).objects == uids("1.1.1", "1.1.2")


def test_the_issuer_tells_patients_of_one_id_apart(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session:
        session.node.keep(image("4.1.1", "P1", IssuerOfPatientID="ELSEWHERE"))
        keys = {"QueryRetrieveLevel": "PATIENT", "PatientID": "P1"}
        assert len(session.ask(GET, keys).objects) == 5
        keys["IssuerOfPatientID"] = "ELSEWHERE"
        assert session.ask(GET, keys).objects == uids("4.1.1")


SERIES_KEYS = {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2.1.1"}
IMAGE_KEYS = {**SERIES_KEYS, "QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "1.2.1.1.1"}


@pytest.mark.parametrize(
    ("model", "keys", "at_fault"),
    [
        ("study", {"StudyInstanceUID": "1.2.1"}, "QueryRetrieveLevel"),
        ("study", {"QueryRetrieveLevel": "WORKLIST"}, "QueryRetrieveLevel"),
        ("study", {"QueryRetrieveLevel": "PATIENT"}, "PatientID"),
        ("study", {"QueryRetrieveLevel": "STUDY"}, "StudyInstanceUID"),
        ("study", {**STUDY, "StudyInstanceUID": ""}, "StudyInstanceUID"),
        ("study", {**STUDY, "StudyInstanceUID": "*"}, "StudyInstanceUID"),
        ("study", {**STUDY, "StudyInstanceUID": "1.2.?"}, "StudyInstanceUID"),
        ("study", SERIES_KEYS, "StudyInstanceUID"),
        ("study", {**SERIES_KEYS, "StudyInstanceUID": ["1.2.1", "1.2.2"]}, "StudyInstanceUID"),
        ("study", {**STUDY, "QueryRetrieveLevel": "SERIES"}, "SeriesInstanceUID"),
        ("study", {**IMAGE_KEYS, "SeriesInstanceUID": ""}, "StudyInstanceUID"),
        ("patient", {"QueryRetrieveLevel": "PATIENT"}, "PatientID"),
        ("patient", {"QueryRetrieveLevel": "PATIENT", "PatientID": "P*"}, "PatientID"),
        ("patient", {"QueryRetrieveLevel": "PATIENT", "PatientID": ["P1", "P2"]}, "PatientID"),
        ("patient", STUDY, "PatientID"),
    ],
)
@pytest.mark.parametrize("kind", [MOVE, GET])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_identifiers_that_name_nothing_definite(
    start_node: Callable[..., Node], kind: str, model: str, keys: dict[str, Any], at_fault: str
) -> None:
    models = {"study": (STUDY_MOVE, STUDY_GET), "patient": (PATIENT_MOVE, PATIENT_GET)}
    node = start_node(sections={"peers": {"NOBODY": {"host": "127.0.0.1", "port": 1}}})
    with Asker(node.port) as asker:
        answered = asker.ask(models[model][kind == GET], keys, "NOBODY" if kind == MOVE else "")
        assert answered.status == 0xA900
        assert answered.final.OffendingElement == tag_for_keyword(at_fault)
        assert at_fault in answered.final.ErrorComment
        assert asker.ask(STUDY_GET, STUDY).status == 0x0000  # the association goes on


def test_unknown_destinations(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session, Asker(session.node.port) as asker:
        for title in ("SIXTEEN_LETTERS_", "CBMIR", "receiver"):
            answered = asker.ask(STUDY_MOVE, STUDY, title)
            assert answered.status == 0xA801
            assert answered.final.ErrorComment.endswith(f"[peers.{title}] in the settings")
        assert asker.ask(STUDY_MOVE, STUDY, " RECEIVER ").status == 0x0000


def test_a_destination_that_does_not_answer(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session, Asker(session.node.port) as asker:
        answered = asker.ask(STUDY_MOVE, STUDY, "NOBODY")
    assert (answered.status, answered.counts) == (0xA702, (0, 0, 3))
    assert answered.failed == uids("1.1.1", "1.1.2", "1.2.1")
    assert answered.final.ErrorComment.startswith("NOBODY@127.0.0.1")


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_failures_and_warnings_are_counted_and_named(
    start_node: Callable[..., Node], kind: str
) -> None:
    for statuses, final, counts, failed in [
        ((0x0000, 0xA700, 0xB000), 0xB000, (1, 1, 1), uids("1.1.2")),
        ((0xB007, 0x0000, 0x0000), 0xB000, (2, 1, 0), []),
        ((0xC000, 0xA900, 0x0122), 0xA702, (0, 0, 3), uids("1.1.1", "1.1.2", "1.2.1")),
    ]:
        with retrieving(start_node, lambda _, number, s=statuses: s[number - 1]) as session:
            answered = session.ask(kind, STUDY, answer=lambda number, s=statuses: s[number - 1])
            assert (answered.status, answered.counts) == (final, counts)
            assert answered.failed == failed
            problem = next(f"0x{status:04X}" for status in statuses if status)
            assert answered.final.ErrorComment.startswith(problem)


def test_a_list_of_failed_objects_that_exceeds_64_kib(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session:
        base, prefix = image("6.1.1"), "1.2.6." + "1" * 50
        session.node.keep(base)
        with session.node.catalog.write() as connection:
            row = dict(connection.execute(select(schema.instances)).mappings().all()[-1])
            rows = [
                {**row, "id": None, "sop_instance_uid": f"{prefix}.{number}", "path": ""}
                for number in range(1, 1501)
            ]
            connection.execute(insert(schema.instances), rows)
        answered = session.ask(GET, {**STUDY, "StudyInstanceUID": "1.2.6"})
    assert (answered.status, answered.counts) == (0xB000, (1, 0, 1500))
    # beyond what the length of an explicit UI can say it comes as UN (PS3.5 6.2.2)
    assert bytes(answered.failed).count(prefix.encode()) == 1500


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_pixels_that_are_not_kept(start_node: Callable[..., Node], kind: str) -> None:
    retention = {"retrieve_from": "NOBODY"}
    with retrieving(start_node, retention=retention) as session:
        evict(session.node, "1.1.1")
        answered = session.ask(kind, STUDY)
        assert (answered.status, answered.counts) == (0xB000, (2, 0, 1))
        assert answered.failed == uids("1.1.1")
        evict(session.node, "1.1.2", "1.2.1")
        answered = session.ask(kind, STUDY)
        assert (answered.status, answered.counts) == (0xA702, (0, 0, 3))
        assert "retrieve from NOBODY" in answered.final.ErrorComment


def test_get_brings_what_the_contexts_allow(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session:
        session.node.keep(image("1.1.3", SOPClassUID=MRImageStorage))
        answered = session.ask(GET, STUDY)
        assert (answered.status, answered.counts) == (0xB000, (3, 0, 1))
        assert answered.failed == uids("1.1.3")
        with Asker(session.node.port, contexts=()) as asker:  # no role: nothing may be sent
            answered = asker.ask(STUDY_GET, STUDY)
        assert (answered.status, answered.counts) == (0xA702, (0, 0, 4))


def test_roles(start_node: Callable[..., Node]) -> None:
    """Both titles send; only the main one is sent to, and not where the peer has the SCP role."""
    node = start_node()
    with Asker(node.port) as asker:
        (context,) = (
            cx for cx in asker.opened.accepted_contexts if cx.abstract_syntax == CTImageStorage
        )
        assert (context.as_scu, context.as_scp) == (False, True)
    with raw_association(node.port, (CTImageStorage, EXPLICIT), called="CBMIR_SIM") as opened:
        assert not opened.is_established
    with association(
        Peer("CBMIR_SIM", "127.0.0.1", node.port),
        [build_context(CTImageStorage, list(EXPLICIT))],
        calling_ae_title="ASKER",
        timeout=20,
        negotiation=[build_role(CTImageStorage, scu_role=True, scp_role=True)],
    ) as opened:
        (context,) = opened.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
        dataset = image("9.1.1")
        with pytest.raises(AssertionError, match="no response"):
            store_bytes(opened, CTImageStorage, dataset.SOPInstanceUID, bytes_of(dataset))
    assert node.stored() == []


def test_relational_retrieval_where_it_is_negotiated(start_node: Callable[..., Node]) -> None:
    with retrieving(start_node) as session:
        for keys, expected in [
            (SERIES_KEYS, uids("1.1.1", "1.1.2")),
            ({"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "1.2.3.1.1"}, uids("3.1.1")),
            (
                {**IMAGE_KEYS, "StudyInstanceUID": ["1.2.1", "1.2.2"]},
                uids("1.1.1"),
            ),
        ]:
            for kind, model in ((GET, STUDY_GET), (MOVE, STUDY_MOVE)):
                answered = session.ask(kind, keys, relational=[model])
                assert answered.objects == expected
        assert session.ask(GET, SERIES_KEYS, relational=[STUDY_MOVE]).status == 0xA900
        with Asker(session.node.port, relational=[STUDY_GET]) as asker:
            granted = asker.opened.acceptor.sop_class_extended
            assert granted == {STUDY_GET: b"\x01"}
            answered = asker.ask(STUDY_GET, {"QueryRetrieveLevel": "IMAGE"})
            assert answered.status == 0xA900


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_cancel_in_the_middle(start_node: Callable[..., Node], kind: str) -> None:
    askers: list[Asker] = []
    go_on = threading.Event()
    model = STUDY_MOVE if kind == MOVE else STUDY_GET

    def cancel_at(number: int) -> int:
        if number == 2:
            askers[0].cancel(model)
            until(askers[0].opened.dul.to_provider_queue.empty)
            if kind == MOVE:
                go_on.wait(20)  # the destination hangs: nobody waits for it
            else:
                threading.Event().wait(0.3)  # nothing tells when the node has read it
        return 0x0000

    with (
        retrieving(start_node, lambda _, number: cancel_at(number)) as session,
        Asker(session.node.port, answer=cancel_at) as asker,
    ):
        askers.append(asker)
        answered = asker.ask(model, STUDY, "RECEIVER" if kind == MOVE else "")
        was_heard = not go_on.is_set()
        go_on.set()
        finished = 1 if kind == MOVE else 2
        assert was_heard
        assert (answered.status, answered.counts) == (0xFE00, (finished, 0, 0))
        assert answered.final.NumberOfRemainingSuboperations == 3 - finished
        assert asker.ask(STUDY_GET, {**STUDY, "StudyInstanceUID": "1.9"}).status == 0x0000
        assert session.node.server.statistics.retrievals[kind, 0xFE00] == 1


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_abort_in_the_middle_leaves_nothing_hanging(
    start_node: Callable[..., Node], kind: str
) -> None:
    askers: list[Asker] = []
    go_on = threading.Event()

    def abort_at(number: int) -> int:
        if number == 2:
            askers[0].opened._abort_blocking()
            askers[0].opened.dimse.msg_queue.put((None, None))  # or it waits for responses
            go_on.wait(20 if kind == MOVE else 0)  # the destination hangs, besides
        return 0x0000

    with retrieving(start_node, lambda _, number: abort_at(number)) as session:
        node = session.node
        with Asker(node.port, answer=abort_at) as asker:
            askers.append(asker)
            answered = asker.ask(
                STUDY_MOVE if kind == MOVE else STUDY_GET, STUDY, "RECEIVER" if kind == MOVE else ""
            )
            assert all(
                response.get("Status") in (None, 0xFF00) for response, _ in answered.responses
            )
        until(lambda: node.server.active_associations() == 0)
        go_on.set()
        assert node.server.statistics.retrievals == {(kind, 0xFE00): 1}
        assert session.ask(GET, STUDY).status == 0x0000


def test_pending_responses_tell_the_number_and_do_not_come_for_every_object(
    start_node: Callable[..., Node],
) -> None:
    with retrieving(start_node) as session:
        session.node.keep(*(image(f"5.1.{number}") for number in range(1, 21)))
        answered = session.ask(GET, {**STUDY, "StudyInstanceUID": "1.2.5"})
        pending = [response for response, _ in answered.responses[:-1]]
        assert {response.Status for response in pending} == {0xFF00}
        assert pending[0].NumberOfRemainingSuboperations == 20
        assert len(pending) < 20
        assert answered.counts == (20, 0, 0)


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_pending_responses_come_while_one_object_takes_its_time(
    start_node: Callable[..., Node], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For C-MOVE the destination is slow, for C-GET the node itself."""
    heard, enough = itertools.count(1), threading.Event()
    encoded = ObjectEncoder.encoded

    def hear(event: Any) -> None:
        if event.message.command_set.get("Status") == 0xFF00 and next(heard) == 3:
            enough.set()

    def slowly(*arguments: Any) -> Any:
        enough.wait(20)
        return encoded(*arguments)

    if kind == GET:
        monkeypatch.setattr(ObjectEncoder, "encoded", slowly)
    with (
        retrieving(start_node, lambda *_: 0x0000 if enough.wait(20) else 0xA700) as session,
        Asker(session.node.port) as asker,
    ):
        asker.opened.bind(evt.EVT_DIMSE_RECV, hear)
        answered = asker.ask(
            STUDY_MOVE if kind == MOVE else STUDY_GET, STUDY, "RECEIVER" if kind == MOVE else ""
        )
    assert enough.is_set()
    assert (answered.status, answered.counts) == (0x0000, (3, 0, 0))


@pytest.mark.parametrize("kind", [MOVE, GET])
def test_a_file_that_a_correction_replaces_meanwhile(
    start_node: Callable[..., Node], kind: str
) -> None:
    sessions: list[Retrieving] = []

    def answer(number: int) -> int:
        if number == 1:
            rename(sessions[0].node, "1.2.1")
        return 0x0000

    with retrieving(start_node, lambda _, number: answer(number)) as session:
        sessions.append(session)
        answered = session.ask(kind, STUDY, answer=answer)
    assert (answered.status, answered.counts) == (0x0000, (3, 0, 0))


def test_the_patient_level_of_the_study_root(start_node: Callable[..., Node]) -> None:
    """Orthanc retrieves patients so."""
    with retrieving(start_node) as session, Asker(session.node.port) as asker:
        answered = asker.ask(STUDY_GET, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P2"})
    assert (answered.status, answered.objects) == (0x0000, uids("3.1.1"))


def test_a_full_disk_does_not_keep_objects_from_being_got(
    start_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    with retrieving(start_node) as session:
        monkeypatch.setattr(session.node.archive, "has_room", lambda: False)
        assert session.ask(GET, STUDY).counts == (3, 0, 0)


@pytest.mark.parametrize("request_class", [C_MOVE, C_GET])
def test_an_identifier_that_is_no_data_set(
    start_node: Callable[..., Node], request_class: Any
) -> None:
    node = start_node()
    request = request_class()
    request.MessageID, request.Priority = 5, 0
    request.AffectedSOPClassUID = STUDY_MOVE if request_class is C_MOVE else STUDY_GET
    if request_class is C_MOVE:
        request.MoveDestination = "RECEIVER"
    request.Identifier = BytesIO(b"\x08\x00\x52\x00CS\xff\xff?" + bytes(range(32)))
    with Asker(node.port) as asker:
        contexts = asker.opened.accepted_contexts
        (context,) = (cx for cx in contexts if cx.abstract_syntax == request.AffectedSOPClassUID)
        with unheard(asker.opened):
            asker.opened.dimse.send_msg(request, context.context_id)
            _, response = asker.opened.dimse.get_msg(block=True)
        assert response.Status in (0xA900, 0xC000)
        assert response.MessageIDBeingRespondedTo == 5
