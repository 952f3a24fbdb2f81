"""Peers that announce too much, send too little, or are no DICOM peers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from tests.dicom.conftest import Node
from tests.dicom.peers import EXPLICIT, association, encoded, store_bytes, unheard, until
from tests.objects import make_object

VERIFICATION = ("1.2.840.10008.1.1", EXPLICIT)
CT = (CTImageStorage, EXPLICIT)
P_DATA, ASSOCIATE_RQ, ABORT = 0x04, 0x01, 0x07


def header(pdu_type: int, length: int) -> bytes:
    return struct.pack(">BBL", pdu_type, 0, length)


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=20)


def read_to_the_end(connection: socket.socket) -> bytes:
    """Return what the node still says before it closes the connection."""
    received = b""
    try:
        while data := connection.recv(4096):
            received += data
    except ConnectionResetError:  # it closes without reading what is left: a reset is fair
        pass
    return received


def test_announced_pdu_of_400_megabytes(node: Node) -> None:
    with association(node.port, CT) as opened, unheard(opened):
        opened.dul.socket.socket.sendall(header(P_DATA, 400 << 20) + bytes(1000))
        until(opened.acse.is_aborted)
    until(lambda: node.server.active_associations() == 0)


def test_pdu_a_little_over_the_limit(start_node: Callable[..., Node]) -> None:
    node = start_node(max_pdu_bytes=16384)
    with association(node.port, CT) as opened:
        assert opened.acceptor.maximum_length == 16384
        with unheard(opened):
            opened.dul.socket.socket.sendall(header(P_DATA, 16384 + 1025) + bytes(17409))
            until(opened.acse.is_aborted)


@pytest.mark.parametrize(
    "data",
    [
        header(ASSOCIATE_RQ, 1 << 31),
        header(P_DATA, 10) + bytes(10),
        header(ABORT, 4) + bytes(4),
        b"GET / HTTP/1.1\r\nHost: cbmir\r\n\r\n",
        bytes(range(255, 0, -1)),
        header(ASSOCIATE_RQ, 200) + bytes(200),
        b"",
    ],
    ids=["2 GiB request", "P-DATA", "abort", "http", "random", "zeros", "nothing"],
)
def test_bytes_before_an_association(node: Node, data: bytes) -> None:
    with connect(node) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = read_to_the_end(connection)
    assert answer[:1] in (b"", b"\x07")  # nothing, or an A-ABORT
    until(lambda: node.server.active_associations() == 0)  # association_timeout_s is 30 s
    with association(node.port, VERIFICATION) as opened:
        assert opened.send_c_echo().Status == 0


def test_oversized_request_is_refused_at_once(node: Node) -> None:
    with connect(node) as connection:
        connection.sendall(header(ASSOCIATE_RQ, 1 << 31))  # and the connection stays open
        read_to_the_end(connection)
    until(lambda: node.server.active_associations() == 0)


@pytest.mark.parametrize("started", [b"\x04", header(P_DATA, 1000), header(P_DATA, 1000) + b"x"])
def test_rest_of_a_pdu_never_comes(start_node: Callable[..., Node], started: bytes) -> None:
    node = start_node(pdu_timeout_s=0.3)
    with association(node.port, CT) as opened, unheard(opened):
        opened.dul.socket.socket.sendall(started)
        until(opened.acse.is_aborted)
    until(lambda: node.server.active_associations() == 0)


def test_pdu_that_drips_has_one_deadline(start_node: Callable[..., Node]) -> None:
    node = start_node(pdu_timeout_s=0.5)
    stopped = threading.Event()
    with association(node.port, CT) as opened, unheard(opened):
        connection = opened.dul.socket.socket
        connection.sendall(header(P_DATA, 100_000))

        def drip() -> None:
            while not stopped.wait(0.1):
                try:
                    connection.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        until(opened.acse.is_aborted)
        stopped.set()
        dripping.join()


def test_garbage_in_pdata(node: Node) -> None:
    pdv = struct.pack(">LBB", 22, 1, 0x03) + bytes(range(20))  # "the whole command set"
    with association(node.port, CT) as opened, unheard(opened):
        opened.dul.socket.socket.sendall(header(P_DATA, len(pdv)) + pdv)
        until(opened.acse.is_aborted)
    until(lambda: node.server.active_associations() == 0)


def test_endless_command_set(node: Node) -> None:
    pdv = struct.pack(">LBB", 30_002, 1, 0x01) + bytes(30_000)  # never the last fragment
    with association(node.port, CT) as opened, unheard(opened):
        connection = opened.dul.socket.socket
        with contextlib.suppress(OSError):  # it may be aborted before all is sent
            for _ in range(5):
                connection.sendall(header(P_DATA, len(pdv)) + pdv)
        until(opened.acse.is_aborted)


def test_idle_association_is_aborted(start_node: Callable[..., Node]) -> None:
    node = start_node(idle_timeout_s=0.3)
    with association(node.port, VERIFICATION) as opened:
        until(lambda: opened.is_aborted)


def test_time_spent_serving_is_not_idle_time(
    start_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node(idle_timeout_s=0.5)
    accept = node.intake.accept

    def slow(*arguments: Any, **keywords: Any) -> Any:
        threading.Event().wait(1.0)
        return accept(*arguments, **keywords)

    monkeypatch.setattr(node.intake, "accept", slow)
    with association(node.port, CT) as opened:
        for _ in range(2):
            dataset = make_object()
            uids = dataset.SOPClassUID, dataset.SOPInstanceUID
            assert store_bytes(opened, *uids, encoded(dataset)).Status == 0


def test_too_many_associations(start_node: Callable[..., Node]) -> None:
    node = start_node(max_associations=2)
    with association(node.port, VERIFICATION), association(node.port, VERIFICATION):
        with association(node.port, VERIFICATION) as third:
            answer = third.acceptor.primitive
        assert third.is_rejected
        assert (answer.result, answer.result_source, answer.diagnostic) == (0x02, 0x03, 0x02)
    until(lambda: node.server.active_associations() == 0)
    with association(node.port, VERIFICATION) as again:
        assert again.send_c_echo().Status == 0
