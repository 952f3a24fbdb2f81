"""C-MOVE and C-GET (PS3.4 C.4.2 and C.4.3).

pynetdicom's own provider is not used: it wants the presentation contexts before the objects are
known, and decodes and encodes every object that it sends.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
)

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects, stored_objects_of
from cbmir_node.config import Settings
from cbmir_node.dicom.association import AcceptedAssociation
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.send import send
from cbmir_node.dicom.client.storage import Sent, StorageUser, is_open
from cbmir_node.dicom.contexts import RELATIONAL_QUERIES
from cbmir_node.dicom.retrieval_exchange import Exchange
from cbmir_node.dicom.retrieval_keys import read_retrieval_keys
from cbmir_node.dicom.statistics import Statistics
from cbmir_node.dicom.statuses import RefusedRequestError, Status
from cbmir_node.errors import CatalogError
from cbmir_node.imaging.decoder_pool import DecoderPool

_log = logging.getLogger(__name__)

_BUSY_WAIT_S = 5.0
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
    decoders : DecoderPool
        Decompress what receivers want so; belong to the caller.
    """

    settings: Settings
    catalog: Catalog
    archive: Archive
    statistics: Statistics
    decoders: DecoderPool

    def serve(
        self,
        association: AcceptedAssociation,
        request: C_MOVE | C_GET,
        context: PresentationContext,
    ) -> None:
        """Perform a request and answer it."""
        exchange = Exchange(association, request, context)
        try:
            exchange.objects = self._named_objects(exchange)
            sub_operations = self._sub_operations(exchange)
            with exchange.pending_responses(), closing(sub_operations):
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

    def _named_objects(self, exchange: Exchange) -> list[StoredObject]:
        sop_class = str(exchange.context.abstract_syntax)
        level, keys = read_retrieval_keys(
            exchange.identifier(),
            "PATIENT" if sop_class in _PATIENT_ROOT else "STUDY",
            relational=exchange.association.has_option(sop_class, RELATIONAL_QUERIES),
        )
        try:
            return stored_objects(self.catalog, level, keys)
        except CatalogError as error:
            raise RefusedRequestError(Status.CANNOT_COUNT_MATCHES, str(error)) from error

    def _sub_operations(self, exchange: Exchange) -> Generator[Sent, None, None]:
        """Return what sends one object after the other."""
        if exchange.kind == "get":
            return self._get(exchange)
        peer = self._destination(str(exchange.request.MoveDestination).strip())
        association = exchange.association
        return send(
            *(peer, exchange.objects, self.archive),
            # the title that was asked is the one that the asker's side knows
            calling_ae_title=str(association.acceptor.ae_title),
            timeout=self.settings.dicom.idle_timeout_s,
            originator=(str(association.requestor.ae_title), exchange.request.MessageID),
            decoders=self.decoders,
            busy_wait_s=_BUSY_WAIT_S,
            current=self._current,
            give_up=exchange.is_over,
        )

    def _destination(self, ae_title: str) -> Peer:
        address = self.settings.peers.get(ae_title)
        if address is None:
            raise RefusedRequestError(
                Status.MOVE_DESTINATION_UNKNOWN,
                f"unknown destination: no [peers.{ae_title}] in the settings",
            )
        return Peer(ae_title, address.host, address.port)

    def _get(self, exchange: Exchange) -> Generator[Sent, None, None]:
        with ObjectEncoder(self.archive, self.decoders, exchange.is_over) as encoder:
            user = StorageUser(
                *(exchange.association, encoder, self.settings.dicom.idle_timeout_s),
                uninterrupted=exchange.sending,
                current=self._current,
            )
            for stored in exchange.objects:
                sent = user.store(stored)
                if sent.is_local and exchange.is_over():  # nobody waited for it
                    return
                yield sent

    def _current(self, stored: StoredObject) -> StoredObject:
        """Return an object as the catalogue has it now; without a path where it is gone."""
        found = stored_objects_of(self.catalog, [stored.instance])
        return found[0] if found else replace(stored, path="")

    def _perform(self, exchange: Exchange, sub_operations: Iterator[Sent]) -> None:
        """Send until all are sent, the peer cancels or leaves."""
        while exchange.remaining and not exchange.is_over():
            sent = next(sub_operations, None)
            if sent is None:  # it gave up because the peer has cancelled or left
                return
            exchange.count(sent)
            self.statistics.count_sub_operation(exchange.kind, sent.outcome)
        source = self.settings.retention.retrieve_from
        if exchange.counts and exchange.not_kept == exchange.counts.total() and source:
            exchange.first_problem = f"the pixels are not kept here; retrieve from {source}"
