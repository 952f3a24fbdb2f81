"""Associations that the node opens with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext

from cbmir_node.dicom.client.checkpoint import ReactorCheckpoint
from cbmir_node.dicom.transport import BoundedSocket
from cbmir_node.errors import (
    NothingAcceptedError,
    PeerBusyError,
    PeerRefusedError,
    PeerUnreachableError,
)

_MAX_PDU_BYTES = 131072
_LONGEST_OPENING_S = 30.0
_REJECTED_FOR_NOW = 0x02  # A-ASSOCIATE-RJ, Result "rejected transient" (PS3.8 9.3.4)


@dataclass(frozen=True)
class Peer:
    """Another DICOM node."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class ClientEntity(ApplicationEntity):
    """An application entity that calls others.

    Parameters
    ----------
    ae_title : str
        Our own title.
    timeout : float
        For each step of an association, seconds; opening and ending it have 30 at most.
    """

    def __init__(self, ae_title: str, timeout: float) -> None:
        super().__init__(ae_title=ae_title)
        self.maximum_pdu_size = _MAX_PDU_BYTES
        self.connection_timeout = min(timeout, _LONGEST_OPENING_S)
        self.acse_timeout = min(timeout, _LONGEST_OPENING_S)
        self.dimse_timeout = timeout
        self.network_timeout = timeout

    def associate(self, *arguments: Any, **options: Any) -> Any:
        """Request an association; its own thread takes no response away from who waits for it."""
        opened = super().associate(*arguments, **options)
        opened._reactor_checkpoint = ReactorCheckpoint(opened)
        return opened

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> BoundedSocket:
        client = BoundedSocket(
            assoc, None, self.maximum_pdu_size, self.network_timeout, address=address
        )
        client.tls_args = tls_args
        return client


@contextmanager
def association(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    timeout: float,
    handlers: Sequence[Any] = (),
    negotiation: Sequence[Any] = (),
) -> Iterator[Any]:
    """Open an association; release it after the block, or abort it when the block fails.

    Parameters
    ----------
    peer : Peer
        Whom to call.
    contexts : sequence of PresentationContext
        What to propose.
    calling_ae_title : str
        Our own title.
    timeout : float
        For each step, seconds.
    handlers : sequence
        pynetdicom's (event, callable) pairs.
    negotiation : sequence
        Items of extended negotiation: roles, options of a SOP class.

    Yields
    ------
    pynetdicom.association.Association
        Established; which contexts were accepted is for the caller to see.

    Raises
    ------
    PeerUnreachableError
        The peer does not answer.
    PeerBusyError
        It has no place for us now.
    NothingAcceptedError
        It accepts none of the contexts.
    PeerRefusedError
        It rejects us for good.
    """
    entity = ClientEntity(calling_ae_title, timeout)
    try:
        opened = entity.associate(
            *(peer.host, peer.port, list(contexts)),
            ae_title=peer.ae_title,
            max_pdu=entity.maximum_pdu_size,
            evt_handlers=list(handlers),
            ext_neg=list(negotiation),
        )
    except OSError as error:
        raise PeerUnreachableError(
            f"{peer}: {error.strerror or error}; check the host name"
        ) from error
    if opened.is_rejected:
        answer = opened.acceptor.primitive
        kind = PeerBusyError if answer.result == _REJECTED_FOR_NOW else PeerRefusedError
        raise kind(f"{peer} rejects the association: {answer.reason_str}; check the AE titles")
    if opened.rejected_contexts and not opened.accepted_contexts:
        raise NothingAcceptedError(
            f"{peer} accepts none of the services proposed; check what it offers this AE title"
        )
    if not opened.is_established:
        raise PeerUnreachableError(f"{peer} does not answer; check host and port, and that it runs")
    try:
        yield opened
    except BaseException:
        opened.abort()
        raise
    if opened.is_established:
        opened.release()
