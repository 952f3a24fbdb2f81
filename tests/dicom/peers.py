"""The other side: DCMTK's tools, and a pynetdicom client that can misbehave."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from cbmir_node.dicom.client.association import ClientEntity

EXPLICIT = (ExplicitVRLittleEndian,)


def run(*command: str | Path, check: bool = True) -> str:
    """Run a program of DCMTK and return what it says."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 or not check, said
    return said


def findscu(
    port: int, folder: Path, *keys: str, model: str = "-S", called: str = "CBMIR"
) -> list[Dataset]:
    """Ask with DCMTK's findscu; return the response identifiers."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [part for key in keys for part in ("-k", key)]
    run(
        *("findscu", model, "-aec", called, "-X", "-od", folder, *arguments),
        *("127.0.0.1", str(port)),
    )
    return [dcmread(file) for file in sorted(folder.glob("rsp*.dcm"))]


@contextmanager
def association(
    port: int,
    *proposals: tuple[str, Sequence[str]],
    called: str = "CBMIR",
    release: bool = True,
    negotiation: Sequence[Any] = (),
) -> Iterator[Any]:
    """Associate, proposing (abstract syntax, transfer syntaxes); the block may find it rejected."""
    entity = ClientEntity("TESTER", timeout=20)
    for abstract_syntax, transfer_syntaxes in proposals:
        entity.add_requested_context(UID(abstract_syntax), [UID(uid) for uid in transfer_syntaxes])
    opened = entity.associate("127.0.0.1", port, ae_title=called, ext_neg=list(negotiation))
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release() if release else opened.abort()


@contextmanager
def unheard(opened: Any) -> Iterator[None]:
    """Keep the client's reactor from taking what the block waits for."""
    opened._reactor_checkpoint.clear()
    until(lambda: opened._is_paused)
    try:
        yield
    finally:
        opened._reactor_checkpoint.set()


def store_bytes(opened: Any, sop_class_uid: str, sop_instance_uid: str, data: bytes) -> Dataset:
    """Send a C-STORE request with these bytes as its data set; return the response."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.Priority = 0
    request.DataSet = io.BytesIO(data) if data else None
    with unheard(opened):
        opened.dimse.send_msg(request, opened.accepted_contexts[0].context_id)
        _, response = opened.dimse.get_msg(block=True)
    assert response is not None, "no response"
    return response


def encoded(dataset: Dataset) -> bytes:
    """Return the data set in Explicit VR Little Endian."""
    data = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
