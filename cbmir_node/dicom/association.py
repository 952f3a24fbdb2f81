"""Accepted associations: what pynetdicom leaves open, closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from cbmir_node.archive.store import Archive
from cbmir_node.dicom.contexts import Service, View, service_of
from cbmir_node.dicom.receiving import ReceivedDataSet, ReceivingServiceProvider
from cbmir_node.dicom.transport import BoundedSocket

_log = logging.getLogger(__name__)

_REQUEST_OF_SERVICE: dict[Service, type] = {
    "verification": C_ECHO,
    "storage": C_STORE,
    "find": C_FIND,
    "move": C_MOVE,
    "get": C_GET,
}
_UNASSOCIATED_CONNECTIONS = 64
_POLLS_PER_COLLECTION = 300  # pynetdicom collects ended associations every so many polls


Retrieve = Callable[["AcceptedAssociation", Any, PresentationContext], None]


class AcceptedAssociation(Association):
    """An association with a peer that called us.

    Parameters
    ----------
    entity : ApplicationEntity
        The node's.
    archive : Archive
        Where received objects go.
    retrieve : Retrieve
        Serves a C-MOVE or C-GET request, responses included.

    Attributes
    ----------
    view : {"main", "similarity"}
        Chosen by the called AE title once the association is requested.
    """

    def __init__(self, entity: ApplicationEntity, archive: Archive, retrieve: Retrieve) -> None:
        super().__init__(entity, "acceptor")
        self._retrieve = retrieve
        self.dimse = ReceivingServiceProvider(self, archive)
        self.view: View = "main"
        self._serving = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is being received, waits, or is being served."""
        dimse = self.dimse
        return self._serving or dimse.message is not None or not dimse.msg_queue.empty()

    def has_option(self, sop_class: str, number: int) -> bool:
        """Tell whether an option of a SOP class was negotiated; `number` counts its byte from 0."""
        options = self.acceptor.sop_class_extended.get(UID(sop_class), b"")
        return bool(options[number : number + 1] == b"\x01")

    def wait_until_sent(self) -> None:
        """Wait until all responses have been sent and the peer has been listened to.

        pynetdicom queues what a handler answers and reads nothing before that is sent: a C-CANCEL
        would wait behind all the answers, and all the answers in memory for a peer that is slow.
        """
        before = self.dul.socket.polls
        while self.dul.socket.polls == before and self.is_established and self.dul.is_alive():
            time.sleep(0.001)

    def run_reactor(self) -> None:
        """Serve until the association ends, then remove what it left half-done."""
        try:
            super().run_reactor()
        finally:
            self.dimse.discard_unserved()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve a request that fits its presentation context; abort on any other.

        pynetdicom looks at the SOP class in the command only, so a C-STORE would be served on
        a context that was accepted for C-ECHO.
        """
        context = self._accepted_cx.get(context_id)
        service = service_of(str(context.abstract_syntax), self.view) if context else None
        fits = service is not None and isinstance(msg, _REQUEST_OF_SERVICE[service])
        fits = fits and context.as_scp  # a peer with the SCP role alone is sent to
        if not (fits and msg.is_valid_request):
            _log.warning("%s does not fit its presentation context; aborted", msg.msg_type)
            self.abort()
            return
        self._serving = True
        try:
            if service in ("move", "get"):
                self.dimse.cancel_req = {}
                self._retrieve(self, msg, context)
            else:
                super()._serve_request(msg, context_id)
        finally:
            self._serving = False
            data_set = getattr(msg, "DataSet", None)
            if isinstance(data_set, ReceivedDataSet):
                self.dimse.served(data_set)
            # a peer is not idle while it waits for us
            self.dul._idle_timer.restart()


class AssociationRequestHandler(RequestHandler):
    """Makes an `AcceptedAssociation` of a connection."""

    def _create_association(self) -> AcceptedAssociation:
        server: AssociationListener = self.server
        entity = self.ae
        association = AcceptedAssociation(entity, server.archive, server.retrieve)
        association._server = server
        # pynetdicom finds and counts its acceptors by this name
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}"
        association.set_socket(
            BoundedSocket(association, self.request, entity.maximum_pdu_size, server.pdu_timeout_s)
        )
        association.requestor.address_info = self.remote
        acceptor = association.acceptor
        acceptor.address_info = self.local
        acceptor.ae_title = entity.ae_title
        acceptor.maximum_length = entity.maximum_pdu_size
        acceptor.implementation_class_uid = entity.implementation_class_uid
        acceptor.implementation_version_name = entity.implementation_version_name
        for event in server.get_events():
            handlers = server.get_handlers(event)
            for handler in [handlers] if event.is_intervention else handlers:
                association.bind(event, *handler)
        return association


class AssociationListener(ThreadedAssociationServer):
    """The listening socket.

    Parameters
    ----------
    entity : ApplicationEntity
        The node's.
    address : (str, int)
        Where to listen.
    archive : Archive
        Where received objects go.
    retrieve : Retrieve
        See `AcceptedAssociation`.
    pdu_timeout_s : float
        See `BoundedSocket`.
    handlers : list
        pynetdicom's (event, callable) pairs.
    """

    request_queue_size = 128

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        archive: Archive,
        retrieve: Retrieve,
        pdu_timeout_s: float,
        handlers: list[Any],
    ) -> None:
        self.archive = archive
        self.retrieve = retrieve
        self.pdu_timeout_s = pdu_timeout_s
        super().__init__(
            entity,
            address,
            entity.ae_title,
            contexts=[],
            evt_handlers=[*handlers, (evt.EVT_CONN_CLOSE, _end_unrequested)],
            request_handler=AssociationRequestHandler,
        )
        self._gc = [0, _POLLS_PER_COLLECTION]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Drop connections beyond any reasonable number: each takes two threads at once."""
        limit = self.ae.maximum_associations + _UNASSOCIATED_CONNECTIONS
        return bool(len(self.active_associations) < limit)


def _end_unrequested(event: Any) -> None:
    """End an association whose peer left before asking for it.

    Otherwise its thread waits for the whole association timeout, and port probes fill the node.
    """
    association = event.assoc
    if association.requestor.primitive is None:
        association.dul.to_user_queue.put(None)
