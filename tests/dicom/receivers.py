"""Who is sent to: DCMTK's storescp, and a Storage SCP that answers what a test wants."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dsutils import split_dataset

from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.echo import echo
from cbmir_node.errors import PeerError
from tests.conftest import free_port, needs_program


def data_set(path: Path) -> bytes:
    """Return a DICOM file without its file meta information."""
    return path.read_bytes()[split_dataset(path)[1] :]


@contextmanager
def storescp(folder: Path, *options: str, port: int = 0) -> Iterator[Peer]:
    """Run DCMTK's storescp; it writes what it receives, bit by bit, to a folder."""
    needs_program("storescp", package="dcmtk")
    folder.mkdir()
    peer = Peer("STORESCP", "127.0.0.1", port or free_port())
    process = subprocess.Popen(
        ["storescp", "+B", *options, "-aet", peer.ae_title, "-od", str(folder), str(peer.port)],
        stdin=subprocess.DEVNULL,
    )
    try:
        _until_up(peer)
        yield peer
    finally:
        process.terminate()
        process.wait(10)


def _until_up(peer: Peer) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            echo(peer, timeout=5)
        except PeerError:
            assert time.monotonic() < deadline, "storescp does not answer"
            time.sleep(0.02)
        else:
            return


@dataclass
class Receiver:
    """A Storage SCP of pynetdicom.

    Attributes
    ----------
    requests : list
        C-STORE request primitives, in the order they came.
    associations : list
        What was accepted, each as the list of its (abstract syntax, transfer syntax).
    """

    peer: Peer
    requests: list[Any] = field(default_factory=list)
    associations: list[list[tuple[str, str]]] = field(default_factory=list)


@contextmanager
def receiver(
    contexts: Sequence[tuple[str, Sequence[str]]],
    answer: Callable[[Any, int], Any] = lambda _event, _number: 0x0000,
    on_released: Callable[[], None] = lambda: None,
    busy: int = 0,
) -> Iterator[Receiver]:
    """Run a Storage SCP; `answer` gets the event and its number, from 1, and returns a status.

    It rejects the first `busy` associations for now.
    """
    calls = count(1)
    received = Receiver(Peer("RECEIVER", "127.0.0.1", free_port()))
    entity = AE(ae_title="RECEIVER")
    entity.require_called_aet = True
    for abstract_syntax, transfer_syntaxes in contexts:
        entity.add_supported_context(abstract_syntax, list(transfer_syntaxes))

    def on_store(event: Any) -> Any:
        received.requests.append(event.request)
        return answer(event, len(received.requests))

    def on_accepted(event: Any) -> None:
        received.associations.append(
            [(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in event.assoc.accepted_contexts]
        )

    def on_requested(event: Any) -> None:
        if next(calls) <= busy:
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)
            event.assoc.kill()

    server = entity.start_server(
        (received.peer.host, received.peer.port),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, on_store),
            (evt.EVT_ACCEPTED, on_accepted),
            (evt.EVT_REQUESTED, on_requested),
            (evt.EVT_RELEASED, lambda _: on_released()),
        ],
    )
    try:
        yield received
    finally:
        server.shutdown()


EXPLICIT = (str(ExplicitVRLittleEndian),)
