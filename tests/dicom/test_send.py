"""Objects sent to other nodes: as they are, decompressed, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import StoragePresentationContexts
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects, stored_objects_of
from cbmir_node.config import ImagingSettings
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.send import Sent, proposals, send
from cbmir_node.dicom.client.storage import StorageUser
from cbmir_node.errors import PeerBusyError, PeerRefusedError, PeerUnreachableError
from tests.conftest import free_port
from tests.dicom.conftest import Node
from tests.dicom.receivers import EXPLICIT, data_set, receiver
from tests.imaging.image_objects import LOSSLESS, ramp, write_object
from tests.objects import make_object

IMPLICIT_LE, EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, MPEG4 = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.102"
RLE, JPEG_LS, JPEG_2000 = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
)
STUDY = "1.2.3"
IMAGING = ImagingSettings(decode_memory_mib=512)


def keep_image(node: Node, syntax: str, **attributes: Any) -> None:
    """Put a compressed image of the study into the node."""
    encode = LOSSLESS.get(syntax, lambda frame: b"no codestream at all" + frame.tobytes()[:2])
    elements = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": "1.2.3.1",
        "PatientID": "P",
        "BitsStored": 12,
        **attributes,
    }
    path = node.folder / f"{elements['SOPInstanceUID']}.dcm"
    node.intake.accept_file(write_object(path, ramp(), syntax=syntax, encode=encode, **elements))


def keep_slices(node: Node, number: int, **attributes: Any) -> None:
    node.keep(*(make_object(StudyInstanceUID=STUDY, **attributes) for _ in range(number)))


def objects_of(node: Node) -> list[StoredObject]:
    objects = stored_objects(node.catalog, "STUDY", {"StudyInstanceUID": STUDY})
    return stored_objects_of(node.catalog, sorted(stored.instance for stored in objects))


def send_all(node: Node, peer: Peer, **options: Any) -> list[Sent]:
    options = {"calling_ae_title": "CBMIR", "timeout": 20, "imaging": IMAGING, **options}
    return list(send(peer, objects_of(node), node.archive, **options))


def outcomes(results: Sequence[Sent]) -> list[str]:
    return [sent.outcome for sent in results]


def received(request: Any, *, implicit: bool) -> Dataset:
    return read_dataset(BytesIO(request.DataSet.getvalue()), implicit, True)


def test_the_bytes_on_disk_go_out_and_the_answers_come_back(node: Node) -> None:
    keep_slices(node, 8)
    statuses = [0x0000, 0xB007, 0xA700, 0xA900, 0xC123, 0x0110, 0x0213, 0x0111]
    with receiver([(CTImageStorage, EXPLICIT)], lambda _, number: statuses[number - 1]) as scp:
        results = send_all(node, scp.peer, originator=("VIEWER", 77))
    taken = ["sent", "warning", "failed", "refused", "refused", "failed", "failed", "warning"]
    assert outcomes(results) == taken
    assert [sent.status for sent in results] == statuses
    assert results[0].reason == ""
    assert results[4].reason.startswith("0xC123")
    assert [sent.object for sent in results] == objects_of(node)
    for request, stored in zip(scp.requests, objects_of(node), strict=True):
        assert request.DataSet.getvalue() == data_set(node.archive.path(stored.path))
        assert request.AffectedSOPInstanceUID == stored.sop_instance_uid
        assert request.MoveOriginatorApplicationEntityTitle == "VIEWER"
        assert request.MoveOriginatorMessageID == 77
    assert len(scp.associations) == 1


def test_contexts_are_those_of_the_objects() -> None:
    def stored(number: int, sop_class: str, syntax: str) -> StoredObject:
        return StoredObject(number, sop_class, f"1.{number}", STUDY, syntax, "p")

    objects = [
        stored(1, CTImageStorage, JPEG_2000),
        stored(2, CTImageStorage, EXPLICIT_LE),
        stored(3, MRImageStorage, IMPLICIT_LE),
        stored(4, "1.2.3.99", MPEG4),
        stored(5, CTImageStorage, JPEG_2000),
    ]
    ((share, contexts),) = proposals(objects)
    assert share == objects
    assert [(cx.abstract_syntax, list(cx.transfer_syntax)) for cx in contexts] == [
        (CTImageStorage, [JPEG_2000]),
        (CTImageStorage, [EXPLICIT_LE]),
        (CTImageStorage, [IMPLICIT_LE, BIG_ENDIAN]),
        (MRImageStorage, [IMPLICIT_LE]),
        (MRImageStorage, [EXPLICIT_LE, BIG_ENDIAN]),
        ("1.2.3.99", [MPEG4]),
    ]


def test_more_than_128_contexts_take_several_associations(node: Node) -> None:
    known = [context.abstract_syntax for context in StoragePresentationContexts]
    # the others are beyond the receiver's library
    classes = [str(uid) for uid in known if uid_to_service_class(uid) is StorageServiceClass][:70]
    for sop_class in classes:
        keep_slices(node, 1, SOPClassUID=sop_class)
    with receiver([(sop_class, EXPLICIT) for sop_class in classes]) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent"] * 70
    assert [len(contexts) for contexts in scp.associations] == [64, 6]


@pytest.mark.parametrize("accepted", [IMPLICIT_LE, EXPLICIT_LE])
def test_a_peer_that_wants_them_uncompressed_gets_every_pixel(node: Node, accepted: str) -> None:
    for syntax in (RLE, JPEG_LS, JPEG_2000):
        keep_image(node, syntax)
    keep_slices(node, 1)
    with receiver([(CTImageStorage, [accepted])]) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent"] * 4
    implicit = accepted == IMPLICIT_LE
    for request in scp.requests[:3]:
        image = received(request, implicit=implicit)
        values = np.frombuffer(image.PixelData, "<u2").reshape(ramp().shape)
        assert values.tolist() == ramp().tolist()
    original = dcmread(node.archive.path(objects_of(node)[3].path))
    assert received(scp.requests[3], implicit=implicit) == original
    assert node.temporary_files() == []


def test_a_peer_that_takes_compressed_objects_gets_them_as_they_are(node: Node) -> None:
    for syntax in (JPEG_LS, JPEG_2000, EXPLICIT_LE):
        keep_image(node, syntax) if syntax in LOSSLESS else keep_slices(node, 1)
    with receiver([(CTImageStorage, [EXPLICIT_LE, JPEG_LS, JPEG_2000])]) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent"] * 3
    for request, stored in zip(scp.requests, objects_of(node), strict=True):
        assert request.DataSet.getvalue() == data_set(node.archive.path(stored.path))


def test_what_a_peer_cannot_take_is_refused_and_the_rest_is_sent(node: Node) -> None:
    keep_slices(node, 1)
    keep_slices(node, 1, SOPClassUID=MRImageStorage)
    keep_image(node, MPEG4)
    keep_image(node, RLE, PixelData=b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0JUNK")
    keep_slices(node, 1)
    with receiver([(CTImageStorage, EXPLICIT)]) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent", "refused", "refused", "refused", "sent"]
    assert "accepts nothing" in results[1].reason
    assert "negotiated was another transfer syntax than MPEG-4" in results[2].reason
    assert "cannot be decompressed" in results[3].reason
    assert len(scp.associations) == 1
    assert node.temporary_files() == []


def test_a_peer_that_takes_nothing_at_all(node: Node) -> None:
    keep_slices(node, 2)
    with receiver([(MRImageStorage, EXPLICIT)]) as scp:
        assert outcomes(send_all(node, scp.peer)) == ["refused", "refused"]


def test_what_is_not_here_fails_and_needs_no_association(node: Node) -> None:
    keep_slices(node, 2)
    objects = objects_of(node)
    node.archive.path(objects[0].path).unlink()
    with receiver([(CTImageStorage, EXPLICIT)]) as scp:
        gone, here = send_all(node, scp.peer)
    assert (gone.outcome, here.outcome) == ("failed", "sent")
    assert "No such file" in gone.reason
    evicted = StoredObject(*(*vars(objects[0]).values(),)[:-1], path="")
    nobody = Peer("NOBODY", "127.0.0.1", free_port())
    (sent,) = send(nobody, [evicted], node.archive, calling_ae_title="CBMIR", timeout=5)
    assert (sent.outcome, sent.reason) == ("failed", "its pixels are not kept here")


def test_an_association_that_breaks_is_opened_again(node: Node) -> None:
    keep_slices(node, 4)

    def answer(event: Any, number: int) -> int:
        if number == 2:
            event.assoc.abort()
        return 0x0000

    with receiver([(CTImageStorage, EXPLICIT)], answer) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent"] * 4
    uids = [request.AffectedSOPInstanceUID for request in scp.requests]
    expected = [stored.sop_instance_uid for stored in objects_of(node)]
    assert uids == [*expected[:2], *expected[1:]]
    assert len(scp.associations) == 2


def test_a_peer_that_breaks_off_every_time_is_left_alone_after_three(node: Node) -> None:
    keep_slices(node, 6)
    with receiver([(CTImageStorage, EXPLICIT)], lambda event, _: event.assoc.abort()) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["failed"] * 6
    assert len(scp.associations) == 3


def test_a_peer_that_leaves_during_decompression_gets_the_object_ready_made(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_slices(node, 1)
    for _ in range(4):  # more than the associations that may be lost otherwise
        keep_image(node, RLE)
    opened: list[Any] = []
    decompressed = ObjectEncoder._decompressed

    def slowly(encoder: ObjectEncoder, *arguments: Any) -> Any:
        result = decompressed(encoder, *arguments)
        opened[-1].abort()
        threading.Event().wait(0.3)  # nothing tells when the node has read it
        return result

    def answer(event: Any, _number: int) -> int:
        opened.append(event.assoc)
        return 0x0000

    monkeypatch.setattr(ObjectEncoder, "_decompressed", slowly)
    with receiver([(CTImageStorage, EXPLICIT)], answer) as scp:
        results = send_all(node, scp.peer)
    assert outcomes(results) == ["sent"] * 5
    assert len(scp.associations) == 5
    assert node.temporary_files() == []


def test_no_room_to_decompress_is_no_fault_of_the_object(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_image(node, RLE)
    monkeypatch.setattr(node.archive, "free_bytes", lambda: 100)
    with receiver([(CTImageStorage, EXPLICIT)]) as scp:
        (sent,) = send_all(node, scp.peer)
    assert (sent.outcome, sent.is_local) == ("failed", True)
    assert "there is room for" in sent.reason


def test_a_peer_that_is_busy_may_be_called_once_more(node: Node) -> None:
    keep_slices(node, 1)
    with receiver([(CTImageStorage, EXPLICIT)], busy=1) as scp:
        assert outcomes(send_all(node, scp.peer, busy_wait_s=0.1)) == ["sent"]
    with receiver([(CTImageStorage, EXPLICIT)], busy=2) as scp, pytest.raises(PeerBusyError):
        send_all(node, scp.peer, busy_wait_s=0.1)


def test_a_peer_that_hangs_costs_one_timeout(node: Node) -> None:
    keep_slices(node, 3)
    go_on = threading.Event()

    def answer(_event: Any, number: int) -> int:
        if number == 2:
            go_on.wait(20)
        return 0x0000

    with receiver([(CTImageStorage, EXPLICIT)], answer) as scp:
        results = send_all(node, scp.peer, timeout=1.0)
        go_on.set()
    assert outcomes(results) == ["sent"] * 3


def test_whoever_gives_up_need_not_wait_for_a_peer_that_hangs(node: Node) -> None:
    keep_slices(node, 3)
    go_on, wanted = threading.Event(), threading.Event()

    def answer(_event: Any, number: int) -> int:
        if number == 2:
            wanted.set()
            go_on.wait(20)
        return 0x0000

    with receiver([(CTImageStorage, EXPLICIT)], answer) as scp:
        results = send_all(node, scp.peer, timeout=600, give_up=wanted.is_set)
        go_on.set()
    assert outcomes(results) == ["sent"]


def test_who_wants_no_more_releases_the_association(node: Node) -> None:
    keep_slices(node, 3)
    ended = threading.Event()
    with receiver([(CTImageStorage, EXPLICIT)], on_released=ended.set) as scp:
        sending = send(
            scp.peer, objects_of(node), node.archive, calling_ae_title="CBMIR", timeout=20
        )
        assert next(sending).outcome == "sent"
        sending.close()
        assert ended.wait(10)
    assert len(scp.requests) == 1


def test_nobody_there_and_nobody_by_that_name(node: Node) -> None:
    keep_slices(node, 1)
    with pytest.raises(PeerUnreachableError, match="check host and port"):
        send_all(node, Peer("NOBODY", "127.0.0.1", free_port()), timeout=5)
    with (
        receiver([(CTImageStorage, EXPLICIT)]) as scp,
        pytest.raises(PeerRefusedError, match="check the AE titles"),
    ):
        send_all(node, Peer("SOMEBODY", scp.peer.host, scp.peer.port))


def test_large_objects_do_not_pile_up_in_memory(node: Node, monkeypatch: Any) -> None:
    """A peer that reads slowly makes the node read slowly from disk."""
    keep_slices(node, 1, size=2048)
    queued = []
    has_room = StorageUser._has_room

    def watched(user: Any) -> bool:
        queued.append(user._association.dul.to_provider_queue.qsize())
        return has_room(user)

    monkeypatch.setattr(StorageUser, "_has_room", watched)
    with receiver([(CTImageStorage, EXPLICIT)]) as scp:
        assert outcomes(send_all(node, scp.peer)) == ["sent"]
    assert len(queued) > 500  # 8 MiB in PDUs of 16 kB
    assert max(queued) <= 16
