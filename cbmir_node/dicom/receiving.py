"""C-STORE data sets go to the archive's disk while they arrive, everything else into memory."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage

from cbmir_node.archive.header import is_uid
from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive
from cbmir_node.errors import (
    CbmirError,
    IdentifierError,
    InvalidObjectError,
    OutOfSpaceError,
)

_log = logging.getLogger(__name__)

_MAX_COMMAND_BYTES = 1 << 16
_MAX_IDENTIFIER_BYTES = 1 << 20
_RESERVE_CHECK_BYTES = 64 << 20
_MAX_WAITING_MESSAGES = 16  # a peer may have one operation outstanding (PS3.7 D.3.3.3)


class ReceivedDataSet(io.BytesIO):
    """The data set of one message, in place of pynetdicom's buffer.

    Writing a C-STORE's data set never fails: what goes wrong is kept for the response, and the
    rest of the data set is drained, so that the association can go on.

    Parameters
    ----------
    message : DIMSEMessage
        Its command set tells what the data set is, once it has been received.
    begin : callable
        Opens the incoming object of a C-STORE request.
    archive : Archive
        Asked whether there is still room.

    Attributes
    ----------
    incoming : IncomingObject or None
        A C-STORE's object; None before its first byte and after a failure.
    failure : CbmirError or None
        Why there is none.
    """

    def __init__(
        self,
        message: DIMSEMessage,
        begin: Callable[[DIMSEMessage], IncomingObject],
        archive: Archive,
    ) -> None:
        super().__init__()
        self.incoming: IncomingObject | None = None
        self.failure: CbmirError | None = None
        self._message = message
        self._begin = begin
        self._archive = archive
        self._until_check = _RESERVE_CHECK_BYTES

    def write(self, fragment: Any) -> int:
        """Append a fragment."""
        if not isinstance(self._message, C_STORE_RQ):
            if self.tell() + len(fragment) > _MAX_IDENTIFIER_BYTES:
                raise ValueError("the identifier is larger than 1 MiB")
            return super().write(fragment)
        if self.failure is None:
            try:
                self._store(fragment)
            except CbmirError as error:
                self.fail(error)
        return len(fragment)

    def fail(self, error: CbmirError) -> None:
        """Give the object up; what still comes is drained."""
        self.failure = error
        if self.incoming is not None:
            self.incoming.discard()
            self.incoming = None

    def _store(self, fragment: bytes) -> None:
        if self.incoming is None:
            self.incoming = self._begin(self._message)
        self.incoming.write(fragment)
        self._until_check -= len(fragment)
        if self._until_check < 0:
            self._until_check = _RESERVE_CHECK_BYTES
            if not self._archive.has_room():
                raise OutOfSpaceError("the disk reserve is reached: nothing more is stored")


class ReceivingServiceProvider(DIMSEServiceProvider):
    """DIMSE service provider that streams C-STORE data sets into the archive.

    Parameters
    ----------
    association : Association
        The association it serves.
    archive : Archive
        Where objects go.
    """

    def __init__(self, association: Any, archive: Archive) -> None:
        super().__init__(association)
        self.message: DIMSEMessage | None = None
        self._archive = archive
        self._unserved: set[ReceivedDataSet] = set()

    def receive_primitive(self, primitive: Any) -> None:
        """Take the fragments of one P-DATA-TF PDU; what is no DIMSE message aborts."""
        try:
            if self.message is None:
                self.message = self._new_message()
            message = self.message
            super().receive_primitive(primitive)
            if message.encoded_command_set.tell() > _MAX_COMMAND_BYTES:
                raise ValueError("the command set is larger than 64 KiB")
            if self.msg_queue.qsize() > _MAX_WAITING_MESSAGES:
                raise ValueError("requests pile up: the peer does not wait for responses")
        except Exception as error:  # hostile bytes raise many kinds in pynetdicom and pydicom
            _log.warning("no DIMSE message, the association is aborted: %s", error)
            self.dul.event_queue.put("Evt19")  # unrecognized or invalid PDU (PS3.8 section 9.2.3)

    def served(self, data_set: ReceivedDataSet) -> None:
        """Note that a data set has been dealt with."""
        self._unserved.discard(data_set)

    def discard_unserved(self) -> None:
        """Remove what an ended association leaves behind: half objects, unserved requests."""
        for data_set in self._unserved.copy():
            data_set.fail(InvalidObjectError("the association ended before it was stored"))
        self._unserved.clear()

    def _new_message(self) -> DIMSEMessage:
        message = DIMSEMessage()
        message.data_set = ReceivedDataSet(message, self._begin, self._archive)
        return message

    def _begin(self, message: DIMSEMessage) -> IncomingObject:
        command = message.command_set
        sop_class_uid = str(command.get("AffectedSOPClassUID", ""))
        sop_instance_uid = str(command.get("AffectedSOPInstanceUID", ""))
        for name, uid in (("Class", sop_class_uid), ("Instance", sop_instance_uid)):
            if not is_uid(uid):
                # pynetdicom would abort on a longer one instead of answering
                setattr(command, f"AffectedSOP{name}UID", uid[:64])
                raise IdentifierError(f"Affected SOP {name} UID is not a UID: {uid!r}")
        context = self.assoc._accepted_cx.get(message.context_id)
        if context is None:
            raise IdentifierError("the presentation context was not accepted")
        # with C-GET the node called the sender
        sender = self.assoc.requestor if self.assoc.is_acceptor else self.assoc.acceptor
        incoming = self._archive.receive()
        self._unserved.add(message.data_set)
        incoming.begin(
            sop_class_uid,
            sop_instance_uid,
            str(context.transfer_syntax[0]),
            str(sender.ae_title),
        )
        return incoming
