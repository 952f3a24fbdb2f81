"""The node as a client of other nodes."""

from __future__ import annotations

from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.sop_class import Verification

from cbmir_node.dicom.transport import ClosingSocket
from cbmir_node.errors import PeerError


class ClientEntity(ApplicationEntity):
    """An application entity that calls others.

    Parameters
    ----------
    ae_title : str
        Our own title.
    timeout : float
        For each step of an association, seconds.
    """

    def __init__(self, ae_title: str, timeout: float) -> None:
        super().__init__(ae_title=ae_title)
        self.connection_timeout = timeout
        self.acse_timeout = timeout
        self.dimse_timeout = timeout
        self.network_timeout = timeout

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> ClosingSocket:
        client = ClosingSocket(assoc, address=address)
        client.tls_args = tls_args
        return client


def echo(
    ae_title: str,
    host: str,
    port: int,
    calling_ae_title: str = "CBMIR",
    timeout: float = 10.0,
) -> None:
    """Verify that a DICOM node answers (C-ECHO, PS3.4 Annex A).

    Parameters
    ----------
    ae_title, host, port : str, str, int
        The node.
    calling_ae_title : str
        Our own title.
    timeout : float
        For each step, seconds.

    Raises
    ------
    PeerError
        It does not answer, rejects us, or answers with a failure.
    """
    node = f"{ae_title}@{host}:{port}"
    entity = ClientEntity(calling_ae_title, timeout)
    entity.add_requested_context(Verification)
    try:
        association = entity.associate(host, port, ae_title=ae_title)
    except OSError as error:
        raise PeerError(f"{node}: {error.strerror or error}; check the host name") from error
    if association.is_rejected:
        answer = association.acceptor.primitive
        raise PeerError(f"{node} rejects the association: {answer.reason_str}; check the AE titles")
    if not association.is_established:
        raise PeerError(f"{node} does not answer; check host and port, and that it runs")
    try:
        response = association.send_c_echo()
    finally:
        association.release()
    if "Status" not in response:
        raise PeerError(f"{node} accepts the association but does not answer C-ECHO")
    if response.Status != 0:
        raise PeerError(f"{node} answers C-ECHO with status 0x{response.Status:04X}")
