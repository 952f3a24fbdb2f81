"""C-MOVE and C-GET (PS3.4 C.4.2 and C.4.3).

pynetdicom's own provider is not used: it wants the presentation contexts before the objects are
known, and decodes and encodes every object that it sends.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from pydicom import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
)

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects
from cbmir_node.config import Settings
from cbmir_node.dicom.association import AcceptedAssociation
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.send import send
from cbmir_node.dicom.client.storage import Sent, StorageUser, is_open
from cbmir_node.dicom.retrieval_keys import read_retrieval_keys
from cbmir_node.dicom.statistics import Statistics
from cbmir_node.dicom.statuses import RefusedRequestError, Status, error_comment
from cbmir_node.errors import CatalogError, CbmirError
from cbmir_node.imaging.decoder_process import DecoderProcess

_log = logging.getLogger(__name__)

_PENDING_INTERVAL_S = 0.5
_LARGEST_COUNT = 0xFFFF  # Number of … Sub-operations are US
_RELATIONAL = 0  # number of the option
_PATIENT_ROOT = frozenset(
    {
        PatientRootQueryRetrieveInformationModelGet,
        PatientRootQueryRetrieveInformationModelMove,
    }
)


@dataclass(frozen=True)
class RetrieveService:
    """Serves C-MOVE and C-GET requests.

    Parameters
    ----------
    settings : Settings
        Peers to send to; time limits; who keeps what is not kept here.
    catalog : Catalog
        What is known.
    archive : Archive
        Where the files are.
    statistics : Statistics
        Counts what was sent.
    """

    settings: Settings
    catalog: Catalog
    archive: Archive
    statistics: Statistics

    def serve(
        self,
        association: AcceptedAssociation,
        request: C_MOVE | C_GET,
        context: PresentationContext,
    ) -> None:
        """Perform a request and answer it."""
        exchange = _Exchange(association, request, context)
        try:
            exchange.objects = self._named_objects(exchange)
            with closing(self._sub_operations(exchange)) as sub_operations:
                self._perform(exchange, sub_operations)
            final = exchange.final_status()
        except Exception as error:  # whatever it is, the peer must get its final response
            final = exchange.fail(error)
        self.statistics.count_retrieval(exchange.kind, final)
        _log.info(
            "C-%s from %s: 0x%04X, %s%s",
            *(exchange.kind.upper(), association.requestor.ae_title, final),
            ", ".join(f"{number} {outcome}" for outcome, number in exchange.counts.items())
            or "no objects",
            exchange.first_problem and f"; {exchange.first_problem}",
        )
        if is_open(association):
            exchange.respond(final)

    def _named_objects(self, exchange: _Exchange) -> list[StoredObject]:
        sop_class = str(exchange.context.abstract_syntax)
        level, keys = read_retrieval_keys(
            exchange.identifier(),
            "PATIENT" if sop_class in _PATIENT_ROOT else "STUDY",
            relational=exchange.association.has_option(sop_class, _RELATIONAL),
        )
        try:
            return stored_objects(self.catalog, level, keys)
        except CatalogError as error:
            raise RefusedRequestError(Status.CANNOT_COUNT_MATCHES, str(error)) from error

    def _sub_operations(self, exchange: _Exchange) -> Generator[Sent, None, None]:
        """Return what sends one object after the other."""
        if exchange.kind == "get":
            return self._get(exchange.association, exchange.objects)
        peer = self._destination(str(exchange.request.MoveDestination).strip())
        association = exchange.association
        return send(
            *(peer, exchange.objects, self.archive),
            # the title that was asked is the one that the asker's side knows
            calling_ae_title=str(association.acceptor.ae_title),
            timeout=self.settings.dicom.idle_timeout_s,
            originator=(str(association.requestor.ae_title), exchange.request.MessageID),
            imaging=self.settings.imaging,
            give_up=lambda: not is_open(association),
        )

    def _destination(self, ae_title: str) -> Peer:
        address = self.settings.peers.get(ae_title)
        if address is None:
            raise RefusedRequestError(
                Status.MOVE_DESTINATION_UNKNOWN,
                f"unknown destination: no [peers.{ae_title}] in the settings",
            )
        return Peer(ae_title, address.host, address.port)

    def _get(
        self, association: AcceptedAssociation, objects: Sequence[StoredObject]
    ) -> Generator[Sent, None, None]:
        with DecoderProcess(self.settings.imaging) as decoder:
            timeout = self.settings.dicom.idle_timeout_s
            user = StorageUser(association, self.archive, decoder, timeout)
            for stored in objects:
                yield user.store(stored)

    def _perform(self, exchange: _Exchange, sub_operations: Iterator[Sent]) -> None:
        """Send until all are sent, the peer cancels or leaves."""
        if exchange.remaining:
            exchange.respond(Status.PENDING)
        said = time.monotonic()
        while exchange.remaining and not exchange.is_over():
            sent = next(sub_operations, None)
            if sent is None:  # it gave up because the peer has left
                return
            exchange.count(sent)
            self.statistics.count_sub_operation(exchange.kind, sent.outcome)
            if exchange.remaining and time.monotonic() - said > _PENDING_INTERVAL_S:
                exchange.respond(Status.PENDING)
                said = time.monotonic()
        source = self.settings.retention.retrieve_from
        if exchange.counts and exchange.not_kept == exchange.counts.total() and source:
            exchange.first_problem = f"the pixels are not kept here; retrieve from {source}"


@dataclass
class _Exchange:
    """One request, how far it has got, and its responses."""

    association: AcceptedAssociation
    request: C_MOVE | C_GET
    context: PresentationContext
    objects: Sequence[StoredObject] = ()
    counts: Counter[str] = field(default_factory=Counter)
    not_kept: int = 0
    first_problem: str = ""
    _failed_uids: list[str] = field(default_factory=list)
    _offending: tuple[int, ...] = ()

    @property
    def kind(self) -> Literal["move", "get"]:
        return "move" if isinstance(self.request, C_MOVE) else "get"

    @property
    def remaining(self) -> int:
        return len(self.objects) - self.counts.total()

    @property
    def is_cancelled(self) -> bool:
        return self.request.MessageID in self.association.dimse.cancel_req

    def is_over(self) -> bool:
        """Tell whether the peer has cancelled, or has left."""
        return self.is_cancelled or not is_open(self.association)

    def identifier(self) -> Dataset:
        """Decode the request's identifier."""
        syntax = self.context.transfer_syntax[0]
        try:
            identifier: Dataset = decode(
                *(self.request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian),
                syntax.is_deflated,
            )
        except Exception as error:  # pydicom raises many kinds on hostile bytes
            raise RefusedRequestError(
                Status.UNABLE_TO_PROCESS, "the identifier cannot be read"
            ) from error
        return identifier

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
