"""C-STORE: what is acknowledged is kept, what is not leaves no trace."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cbmir_node.errors import OutOfSpaceError
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association, encoded, run, store_bytes, unheard, until
from tests.objects import make_object, write

VERIFICATION = "1.2.840.10008.1.1"
CT = (CTImageStorage, EXPLICIT)


def send(opened: Any, dataset: Dataset, data: bytes | None = None) -> Any:
    """Send an object, or other bytes in its place."""
    uids = dataset.SOPClassUID, dataset.SOPInstanceUID
    return store_bytes(opened, *uids, encoded(dataset) if data is None else data)


@pytest.fixture
def ct(node: Node) -> Iterator[Any]:
    """Open an association for CT images; afterwards the node must be clean."""
    with association(node.port, CT) as opened:
        yield opened
    assert not node.temporary_files()


@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xe", ExplicitVRLittleEndian),
        ("-xi", ImplicitVRLittleEndian),
        ("-xb", ExplicitVRBigEndian),
        ("-xd", DeflatedExplicitVRLittleEndian),
    ],
)
def test_storescu(node: Node, tmp_path: Path, option: str, syntax: UID) -> None:
    needs_program("storescu", package="dcmtk")
    dataset = make_object(PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 192")
    file = write(dataset, tmp_path / "object.dcm", syntax)
    run("storescu", option, "-aet", "MODALITY", "-aec", "CBMIR", "127.0.0.1", f"{node.port}", file)
    (stored,) = node.archive.files()
    kept = dcmread(node.archive.path(stored))
    assert kept.PatientName == "Müller^Änne"
    assert kept.SOPInstanceUID == dataset.SOPInstanceUID
    # DCMTK offers the preferred Explicit VR beside the uncompressed syntax it was told to use
    assert kept.file_meta.TransferSyntaxUID in (syntax, ExplicitVRLittleEndian)
    assert kept.file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert node.server.statistics.stores == {0: 1}


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.113619.4.30", "1.2.840.10008.5.1.4.1.1.6", "2.25.77"]
)
def test_sop_class_nobody_knows(node: Node, sop_class: str) -> None:
    dataset = make_object(SOPClassUID=sop_class)
    with association(node.port, (sop_class, EXPLICIT)) as opened:
        assert send(opened, dataset).Status == 0x0000
    assert node.stored()[0]["SOPClassUID"] == sop_class


@pytest.mark.parametrize(
    ("change", "status", "comment"),
    [
        ({"SOPInstanceUID": "1.2.3"}, 0xA900, "SOP Instance UID of command and data set differ"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
            0xA900,
            "SOP Class UID of command and data set differ",
        ),
        ({"StudyInstanceUID": None}, 0xA900, "no StudyInstanceUID"),
        ({"SeriesInstanceUID": "../../evil"}, 0xA900, "SeriesInstanceUID is not a UID"),
        ({"StudyInstanceUID": "1" * 65}, 0xA900, "StudyInstanceUID is not a UID"),
    ],
)
def test_identifiers_of_the_data_set(
    ct: Any, node: Node, change: dict[str, Any], status: int, comment: str
) -> None:
    good = make_object()
    bad = make_object(**{**{key: good[key].value for key in ("SOPInstanceUID",)}, **change})
    response = send(ct, good, encoded(bad))
    assert response.Status == status
    assert comment in response.ErrorComment
    assert len(response.ErrorComment) <= 64
    assert send(ct, good).Status == 0x0000  # the association goes on
    assert [row["SOPInstanceUID"] for row in node.stored()] == [good.SOPInstanceUID]


@pytest.mark.parametrize("uid", ["../evil", "1.2.840.abc", "/etc/passwd", "9" * 64 + ".1"])
def test_announced_uid_that_is_no_uid(ct: Any, node: Node, uid: str) -> None:
    dataset = make_object(SOPInstanceUID=uid)
    request_uid = uid if len(uid) <= 64 else uid[:64]
    response = store_bytes(ct, CTImageStorage, request_uid, encoded(dataset))
    assert response.Status == 0xA900
    assert "not a UID" in response.ErrorComment
    assert not node.stored()
    everything = sorted(path.name for path in node.folder.rglob("*") if path.is_file())
    assert not [name for name in everything if "evil" in name or "passwd" in name]


@pytest.mark.parametrize(
    ("damage", "comment"),
    [
        (lambda data: data[:-100], "truncated"),
        (lambda data: data[:11], "truncated"),
        (lambda data: bytes(range(256)) * 4, ""),
        (lambda data: b"<html>not dicom at all</html>" * 9, ""),
        (lambda data: b"", "no data set"),
    ],
    ids=["pixels cut off", "element cut off", "random", "html", "nothing"],
)
def test_bytes_that_are_no_object(
    ct: Any, node: Node, damage: Callable[[bytes], bytes], comment: str
) -> None:
    dataset = make_object()
    response = send(ct, dataset, damage(encoded(dataset)))
    assert response.Status == 0xC000
    assert comment in response.ErrorComment
    assert not list(node.archive.files())
    assert send(ct, dataset).Status == 0x0000


def test_same_uid_again_keeps_the_first(ct: Any, node: Node) -> None:
    first = make_object(PatientID="FIRST")
    other = make_object(
        **{key: first[key].value for key in ("SOPInstanceUID", "StudyInstanceUID")},
        PatientID="OTHER",
    )
    assert [send(ct, dataset).Status for dataset in (first, first, other)] == [0, 0, 0]
    assert [row["PatientID"] for row in node.stored()] == ["FIRST"]
    assert len(list(node.archive.files())) == 1


def test_object_on_its_way_is_on_disk_and_gone_after_an_abort(node: Node) -> None:
    dataset = make_object(size=512)  # 512 KiB of pixels: several PDUs
    with association(node.port, CT, release=False) as opened, unheard(opened):
        _send_all_but_the_end(opened, dataset)
        until(lambda: any(file.stat().st_size > 100_000 for file in node.temporary_files()))
    until(lambda: not node.temporary_files())
    until(lambda: node.server.active_associations() == 0)
    assert not node.stored()
    assert not list(node.archive.files())
    assert node.server.statistics.associations["aborted"] == 1


def test_connection_lost_in_mid_transfer(node: Node) -> None:
    with association(node.port, CT, release=False) as opened, unheard(opened):
        _send_all_but_the_end(opened, make_object(size=512))
        until(lambda: bool(node.temporary_files()))
        opened.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not node.temporary_files())
    assert not node.stored()


def test_requests_that_wait_are_gone_after_an_abort(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        entered.set()
        leave.wait(20)
        raise OutOfSpaceError("full")

    monkeypatch.setattr(node.intake, "accept", slow)
    with association(node.port, CT, release=False) as opened, unheard(opened):
        for _ in range(3):
            for pdata in _fragments(opened, make_object()):
                opened.dul.send_pdu(pdata)
        entered.wait(20)
        until(lambda: len(node.temporary_files()) == 3)
    leave.set()
    until(lambda: not node.temporary_files())


# a response that crosses the abort ends pynetdicom's thread, whose association is over anyway
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_peer_that_never_waits_for_a_response_is_aborted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        leave.wait(20)
        raise OutOfSpaceError("full")

    monkeypatch.setattr(node.intake, "accept", slow)
    with association(node.port, CT) as opened:
        with unheard(opened):
            for _ in range(40):
                for pdata in _fragments(opened, make_object()):
                    opened.dul.send_pdu(pdata)
            until(opened.acse.is_aborted)
        leave.set()
        until(lambda: opened.is_aborted)
    until(lambda: not node.temporary_files())


def test_store_needs_a_storage_context(node: Node) -> None:
    dataset = make_object()
    with association(node.port, (VERIFICATION, EXPLICIT), called="CBMIR_SIM") as opened:
        with pytest.raises(AssertionError, match="no response"):
            send(opened, dataset)
        until(lambda: opened.is_aborted)
    assert not node.stored()
    until(lambda: not node.temporary_files())


def test_disk_reserve(node: Node) -> None:
    with association(node.port, CT) as running:
        assert send(running, make_object()).Status == 0x0000
        node.archive.reserve_bytes = 1 << 62
        response = send(running, make_object(size=512))
        assert response.Status == 0xA700
        assert "free" in response.ErrorComment
        with association(node.port, CT, (VERIFICATION, EXPLICIT)) as rejected:
            answer = rejected.acceptor.primitive
        assert rejected.is_rejected
        assert (answer.result, answer.result_source, answer.diagnostic) == (0x02, 0x03, 0x01)
        study_root = ("1.2.840.10008.5.1.4.1.2.2.1", EXPLICIT)
        with association(node.port, study_root) as asking:
            keys = Dataset()
            keys.QueryRetrieveLevel = "STUDY"
            assert [status.Status for status, _ in asking.send_c_find(keys, study_root[0])] == [
                0xFF00,
                0x0000,
            ]
        node.archive.reserve_bytes = 0
        assert send(running, make_object()).Status == 0x0000
    assert len(node.stored()) == 2
    assert not node.temporary_files()


def test_object_larger_than_allowed_is_drained(node: Node) -> None:
    node.archive.max_object_bytes = 100_000
    with association(node.port, CT) as opened:
        response = send(opened, make_object(size=512))
        assert response.Status == 0xA700
        assert "larger" in response.ErrorComment
        assert send(opened, make_object()).Status == 0x0000
    assert not node.temporary_files()


def test_disk_error_while_syncing(ct: Any, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdatasync", full)
    assert send(ct, make_object()).Status == 0xA700
    assert not node.stored()


def test_twenty_associations_at_once(node: Node, tmp_path: Path) -> None:
    needs_program("storescu", package="dcmtk")
    studies = [make_object() for _ in range(20)]
    failures: list[str] = []

    def push(number: int) -> None:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        for image in range(5):
            dataset = make_object(
                StudyInstanceUID=studies[number].StudyInstanceUID, InstanceNumber=image
            )
            write(dataset, folder / f"{image}.dcm")
        try:
            run("storescu", "-aec", "CBMIR", "+sd", "127.0.0.1", f"{node.port}", folder)
        except AssertionError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(node.stored()) == 100
    assert len(node.stored("STUDY")) == 20
    assert node.server.statistics.stores == {0: 100}
    assert not node.temporary_files()


def test_stop_waits_for_the_request_under_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    accept = node.intake.accept

    def slow(*arguments: Any, **keywords: Any) -> Any:
        entered.set()
        leave.wait(20)
        return accept(*arguments, **keywords)

    monkeypatch.setattr(node.intake, "accept", slow)
    responses: list[int] = []
    with (
        association(node.port, CT) as idle,
        association(node.port, CT) as opened,
    ):
        sender = threading.Thread(
            target=lambda: responses.append(send(opened, make_object()).Status)
        )
        sender.start()
        entered.wait(20)
        stopper = threading.Thread(target=node.server.stop)
        stopper.start()
        until(lambda: idle.is_aborted)  # nothing of it was under way
        leave.set()
        sender.join()
        stopper.join()
    assert responses == [0]
    assert len(node.stored()) == 1


def _fragments(opened: Any, dataset: Dataset) -> list[Any]:
    """Return the P-DATA primitives of a C-STORE request."""
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    request.Priority = 0
    from io import BytesIO

    request.DataSet = BytesIO(encoded(dataset))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    context_id = opened.accepted_contexts[0].context_id
    return list(message.encode_msg(context_id, opened.dimse.maximum_pdu_size))


def _send_all_but_the_end(opened: Any, dataset: Dataset) -> None:
    for pdata in _fragments(opened, dataset)[:-1]:
        opened.dul.send_pdu(pdata)


def test_overlong_announced_uid_is_answered(node: Node) -> None:
    """A UID of more than 64 characters must not cost the peer its association."""
    from pynetdicom import _config

    good = make_object()
    with association(node.port, CT) as opened:
        validators = dict(_config.VALIDATORS)
        _config.VALIDATORS["UI"] = lambda _: (True, "")
        try:
            fragments = _fragments(opened, make_object(SOPInstanceUID="1." + "2" * 80))
        finally:
            _config.VALIDATORS.update(validators)
        with unheard(opened):
            for pdata in fragments:
                opened.dul.send_pdu(pdata)
            _, response = opened.dimse.get_msg(block=True)
        assert response.Status == 0xA900
        assert send(opened, good).Status == 0x0000
    assert len(node.stored()) == 1
