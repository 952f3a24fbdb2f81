"""One C-MOVE or C-GET request and its responses (PS3.4 C.4.2 and C.4.3, PS3.7 9.1.3 and 9.1.4)."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from pydicom import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.dicom.association import AcceptedAssociation
from cbmir_node.dicom.client.storage import Sent, is_open
from cbmir_node.dicom.keys import decoded_identifier
from cbmir_node.dicom.statuses import RefusedRequestError, Status, error_comment
from cbmir_node.errors import CbmirError

_log = logging.getLogger(__name__)

_PENDING_INTERVAL_S = 0.5
_LARGEST_COUNT = 0xFFFF  # Number of … Sub-operations are US


@dataclass
class Exchange:
    """One request, how far it has got, and its responses."""

    association: AcceptedAssociation
    request: C_MOVE | C_GET
    context: PresentationContext
    objects: Sequence[StoredObject] = ()
    counts: Counter[str] = field(default_factory=Counter)
    not_kept: int = 0
    first_problem: str = ""
    sending: threading.Lock = field(default_factory=threading.Lock)
    _failed_uids: list[str] = field(default_factory=list)
    _offending: tuple[int, ...] = ()

    @property
    def kind(self) -> Literal["move", "get"]:
        """Which of the two it is."""
        return "move" if isinstance(self.request, C_MOVE) else "get"

    @property
    def remaining(self) -> int:
        """Number of sub-operations that have not ended."""
        return len(self.objects) - self.counts.total()

    @property
    def is_cancelled(self) -> bool:
        """Whether a C-CANCEL has come."""
        return self.request.MessageID in self.association.dimse.cancel_req

    def is_over(self) -> bool:
        """Tell whether the peer has cancelled, or has left."""
        return self.is_cancelled or not is_open(self.association)

    @contextmanager
    def pending_responses(self) -> Iterator[None]:
        """Send pending responses during the block, whatever a sub-operation waits for.

        Requestors take a node that says nothing for some seconds for dead.
        """
        ended = threading.Event()

        def respond() -> None:
            while not ended.wait(_PENDING_INTERVAL_S):
                with self.sending:
                    is_heard = not self.association.dul.to_provider_queue.qsize()
                    if is_heard and not self.is_over():
                        self.respond(Status.PENDING)

        if not self.remaining:
            yield
            return
        self.respond(Status.PENDING)
        thread = threading.Thread(target=respond, name="pending-responses", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def identifier(self) -> Dataset:
        """Decode the request's identifier."""
        return decoded_identifier(self.request.Identifier, self.context.transfer_syntax[0])

    def count(self, sent: Sent) -> None:
        """Count a finished sub-operation."""
        self.counts[sent.outcome] += 1
        self.not_kept += not sent.object.path
        if sent.outcome in ("refused", "failed"):
            self._failed_uids.append(sent.object.sop_instance_uid)
        if sent.reason and not self.first_problem:
            self.first_problem = sent.reason

    def final_status(self) -> Status:
        """Return how it ended (PS3.4 C.4.2.1.5 and C.4.3.1.4)."""
        if self.remaining:
            return Status.CANCELLED
        if self._failed_uids and len(self._failed_uids) == self.counts.total():
            return Status.CANNOT_PERFORM_SUB_OPERATIONS
        if self._failed_uids or self.counts["warning"]:
            return Status.SUB_OPERATIONS_INCOMPLETE
        return Status.SUCCESS

    def fail(self, error: Exception) -> Status:
        """Note an error that ended it; return the status for it."""
        self.first_problem = str(error)
        if isinstance(error, RefusedRequestError):  # nothing was begun
            self._offending = error.offending
            return error.status
        rest = self.objects[self.counts.total() :]
        self.counts["failed"] += len(rest)
        self._failed_uids += [stored.sop_instance_uid for stored in rest]
        if isinstance(error, CbmirError):  # the destination does not answer or refuses
            return Status.CANNOT_PERFORM_SUB_OPERATIONS
        _log.error("C-%s failed", self.kind.upper(), exc_info=error)
        self.first_problem = "internal error; see the log of the node"
        return Status.UNABLE_TO_PROCESS

    def respond(self, status: Status) -> None:
        """Send a response; all but pending ones end the exchange."""
        response = type(self.request)()
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = int(status)
        counts = self.counts
        response.NumberOfCompletedSuboperations = min(counts["sent"], _LARGEST_COUNT)
        response.NumberOfWarningSuboperations = min(counts["warning"], _LARGEST_COUNT)
        response.NumberOfFailedSuboperations = min(
            counts["refused"] + counts["failed"], _LARGEST_COUNT
        )
        if status in (Status.PENDING, Status.CANCELLED):
            response.NumberOfRemainingSuboperations = min(self.remaining, _LARGEST_COUNT)
        if status not in (Status.PENDING, Status.SUCCESS):
            response.ErrorComment = error_comment(self.first_problem) or None
            response.OffendingElement = list(self._offending) or None
            response.Identifier = self._failed_list()
        self.association.dimse.send_msg(response, self.context.context_id)

    def _failed_list(self) -> BytesIO | None:
        """Return Failed SOP Instance UID List (PS3.4 C.4.2.1.4.2), encoded."""
        if not self._failed_uids:
            return None
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = self._failed_uids
        syntax = self.context.transfer_syntax[0]
        return BytesIO(encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian))
