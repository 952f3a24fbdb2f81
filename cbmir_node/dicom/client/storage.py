"""The node as Storage SCU on an established association, whoever opened it (PS3.4 Annex B)."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.errors import CbmirError, DecoderDiedError, PixelError
from cbmir_node.imaging.transcoding import can_transcode

UNCOMPRESSED: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
"""What an object can become, best first: Implicit VR loses the VRs of private elements."""

_POLL_S: Final = 0.2
_UNSENT_PDUS: Final = 16
_PDU_BYTES: Final = range(1 << 10, 1 << 18)
_MEDIUM: Final = 0x0000
_WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0111, 0x0116})  # 0x0111: it has it already
_FAILURES: Final = frozenset({0x0110, 0x0213})  # processing failure, resource limitation

Outcome = Literal["sent", "warning", "refused", "failed"]
"""``refused`` is for good; after ``failed`` trying again may help."""


@dataclass(frozen=True)
class Sent:
    """What became of one object.

    Attributes
    ----------
    object : StoredObject
    outcome : {"sent", "warning", "refused", "failed"}
    status : int or None
        The peer's C-STORE status; None where it gave none.
    reason : str
        Why it was not simply sent; empty otherwise.
    is_local : bool
        Whether it failed here, before the peer was asked: no file, a damaged one, a full disk.
    """

    object: StoredObject
    outcome: Outcome
    status: int | None
    reason: str
    is_local: bool = False


def not_kept(stored: StoredObject) -> Sent:
    """Return what becomes of an object without a file."""
    return Sent(stored, "failed", None, "its pixels are not kept here", is_local=True)


def is_open(association: Any) -> bool:
    """Tell whether the peer of an association has neither left, nor aborted, nor released it."""
    return bool(
        association.is_established
        and association.dul.is_alive()
        and association.dul.peek_next_pdu() is None
    )


def chosen_syntax(transfer_syntax: str, accepted: Collection[str]) -> str | None:
    """Return in which of the accepted transfer syntaxes an object goes: its own where possible.

    Returns
    -------
    str or None
        None where it can become none of them.
    """
    if transfer_syntax in accepted:
        return transfer_syntax
    if can_transcode(transfer_syntax):
        return next((syntax for syntax in UNCOMPRESSED if syntax in accepted), None)
    return None


class StorageUser:
    """Sends objects over one association, one after the other.

    The bytes of a file go out as they are on disk wherever the peer takes them so. No object is
    in memory as a whole.

    Parameters
    ----------
    association : pynetdicom.association.Association
        Established, and read by nobody else meanwhile.
    encoder : ObjectEncoder
        Provides the files.
    timeout : float
        Longest wait for a response, seconds.
    originator : (str, int), optional
        AE title and Message ID of the C-MOVE request behind this.
    give_up : callable, optional
        Asked while waiting for the peer; True aborts the association.
    uninterrupted : context manager, optional
        Entered while the fragments of a message go out, between which nobody else may send
        (PS3.7 6.3.1).
    current : callable, optional
        Returns an object as the catalogue has it now; asked where its file is gone.

    Attributes
    ----------
    is_lost : bool
        Whether the association has ended; the last object's fate is unknown then.
    is_untried : bool
        Whether it ended while the last object was being decompressed, which is ready now.
    """

    def __init__(
        self,
        association: Any,
        encoder: ObjectEncoder,
        timeout: float,
        originator: tuple[str, int] | None = None,
        give_up: Callable[[], bool] = lambda: False,
        uninterrupted: AbstractContextManager[Any] | None = None,
        current: Callable[[StoredObject], StoredObject] = lambda stored: stored,
    ) -> None:
        self.is_lost = False
        self.is_untried = False
        self._association = association
        self._encoder = encoder
        self._timeout = timeout
        self._originator = originator
        self._give_up = give_up
        self._uninterrupted = uninterrupted or nullcontext()
        self._current = current
        self._contexts = _contexts_by_class(association)
        self._message_id = 0

    def store(self, stored: StoredObject) -> Sent:
        """Send one object and wait for what the peer says."""
        if not stored.path:
            return not_kept(stored)
        contexts = self._contexts.get(stored.sop_class_uid, {})
        syntax = chosen_syntax(stored.transfer_syntax_uid, contexts)
        if syntax is None:
            return Sent(stored, "refused", None, _unfit(stored, contexts))
        try:
            return self._store_as(stored, syntax, contexts[syntax])
        except (CbmirError, OSError) as error:
            current = stored
            if isinstance(error, FileNotFoundError) and not self.is_lost:
                current = self._current(stored)
            if current.path != stored.path:  # a correction has replaced the file meanwhile
                return replace(self.store(current), object=stored)
            return _not_sent(stored, error)

    def _store_as(self, stored: StoredObject, syntax: str, context_id: int) -> Sent:
        was_ready = self._encoder.is_ready(stored, syntax)
        path, offset = self._encoder.encoded(stored, syntax)
        if not was_ready and not is_open(self._association):
            self.is_untried = True
            self._lose()
            return _judged(stored, None)
        return _judged(stored, self._exchange(stored, context_id, path, offset))

    def _exchange(
        self, stored: StoredObject, context_id: int, path: Path, offset: int
    ) -> C_STORE | None:
        """Send a request and return its response; None when the association is lost."""
        self._message_id = self._message_id % 0xFFFF + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = stored.sop_class_uid
        request.AffectedSOPInstanceUID = stored.sop_instance_uid
        request.Priority = _MEDIUM
        if self._originator is not None:
            request.MoveOriginatorApplicationEntityTitle = self._originator[0]
            request.MoveOriginatorMessageID = self._originator[1]
        request._dataset_path = (path, offset)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        with self._uninterrupted:
            try:
                for fragment in message.encode_msg(context_id, self._pdu_bytes()):
                    if not self._has_room():
                        self._lose()
                        return None
                    self._association.dul.send_pdu(fragment)
            except OSError:  # the peer waits for the rest of the message
                self._lose()
                raise
        return self._response()

    def _pdu_bytes(self) -> int:
        """Return the largest PDU to send; a peer may take any (0), or claim sizes nobody has."""
        wanted = self._association.dimse.maximum_pdu_size or _PDU_BYTES.stop
        return min(max(int(wanted), _PDU_BYTES.start), _PDU_BYTES.stop)

    def _has_room(self) -> bool:
        """Wait until few PDUs are left to be sent: pynetdicom queues what it is given."""
        dul = self._association.dul
        while dul.to_provider_queue.qsize() >= _UNSENT_PDUS:
            if not is_open(self._association) or self._give_up():
                return False
            time.sleep(0.001)
        return True

    def _response(self) -> C_STORE | None:
        association = self._association
        deadline = time.monotonic() + self._timeout
        while is_open(association) and not self._give_up():
            try:
                _, message = association.dimse.msg_queue.get(timeout=_POLL_S)
            except queue.Empty:
                if association.dul.to_provider_queue.qsize():  # the peer is still taking it
                    deadline = time.monotonic() + self._timeout
                if time.monotonic() > deadline:
                    break
                continue
            is_response = isinstance(message, C_STORE) and message.is_valid_response
            if is_response and message.MessageIDBeingRespondedTo == self._message_id:
                return message
            break
        self._lose()
        return None

    def _lose(self) -> None:
        """End the association, of which nobody knows any more what it will say."""
        self.is_lost = True
        if self._association.is_established:
            self._association.abort()


def _contexts_by_class(association: Any) -> Mapping[str, Mapping[str, int]]:
    """Return the Presentation Context ID by transfer syntax by SOP class, where we are SCU."""
    contexts: dict[str, dict[str, int]] = {}
    for context in association.accepted_contexts:
        if context.as_scu:
            accepted = contexts.setdefault(str(context.abstract_syntax), {})
            accepted.setdefault(str(context.transfer_syntax[0]), context.context_id)
    return contexts


def _unfit(stored: StoredObject, contexts: Collection[str]) -> str:
    if not contexts:
        return "the peer accepts nothing that it can become"
    # with C-GET the peer may take its own, and have proposed it in one context with others
    return f"negotiated was another transfer syntax than {UID(stored.transfer_syntax_uid).name}"


def _not_sent(stored: StoredObject, error: CbmirError | OSError) -> Sent:
    """Tell apart what is the object's fault and what may pass: a full disk, a busy machine."""
    if isinstance(error, PixelError):
        reason = f"it cannot be decompressed: {error}"
        if not isinstance(error, DecoderDiedError):
            return Sent(stored, "refused", None, reason)
        return Sent(stored, "failed", None, reason, is_local=True)
    return Sent(stored, "failed", None, str(error), is_local=True)


def _judged(stored: StoredObject, response: C_STORE | None) -> Sent:
    """Read a C-STORE status (PS3.4 B.2.3, PS3.7 C.4); without one the association was lost."""
    if response is None:
        return Sent(stored, "failed", None, "the association was lost")
    status = int(response.Status)
    reason = f"0x{status:04X} {response.ErrorComment or ''}".strip()
    if status == 0:
        return Sent(stored, "sent", status, "")
    if status >> 12 == 0xB or status in _WARNINGS:
        return Sent(stored, "warning", status, reason)
    if status >> 8 == 0xA7 or status in _FAILURES:  # out of resources
        return Sent(stored, "failed", status, reason)
    return Sent(stored, "refused", status, reason)
