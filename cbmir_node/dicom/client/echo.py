"""C-ECHO to another node (PS3.4 Annex A)."""

from __future__ import annotations

from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from cbmir_node.dicom.client.association import Peer, association
from cbmir_node.errors import PeerRefusedError, PeerUnreachableError


def echo(peer: Peer, calling_ae_title: str = "CBMIR", timeout: float = 10.0) -> None:
    """Verify that a DICOM node answers.

    Parameters
    ----------
    peer : Peer
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
    with association(
        peer, [build_context(Verification)], calling_ae_title=calling_ae_title, timeout=timeout
    ) as opened:
        response = opened.send_c_echo()
    if "Status" not in response:
        raise PeerUnreachableError(f"{peer} accepts the association but does not answer C-ECHO")
    if response.Status != 0:
        raise PeerRefusedError(f"{peer} answers C-ECHO with status 0x{response.Status:04X}")
