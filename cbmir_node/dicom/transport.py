"""An association's socket: quick, and bounded in bytes and time."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

_HEADER = struct.Struct(">BBL")  # PDU type, reserved, length (PS3.8 section 9.3)
_P_DATA = 0x04
_PDU_TYPES = range(0x01, 0x08)
_MAX_ASSOCIATION_PDU = 1 << 20
_SLACK = 1024  # for peers that count the PDV headers wrongly
_CHUNK = 1 << 18


class ClosingSocket(AssociationSocket):
    """Socket that is closed also where the peer was faster; pynetdicom leaves it open then."""

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class BoundedSocket(ClosingSocket):
    """Socket that refuses oversized PDUs and does not wait for ever for the rest of one.

    pynetdicom takes a PDU of any announced length, in pieces of 4 kB, for as long as the peer
    likes. Nagle's algorithm together with delayed acknowledgement costs up to 40 ms a message,
    so both are switched off; the latter only lasts until the next acknowledgement.

    Parameters
    ----------
    association : Association
        The association it serves.
    client : socket.socket or None
        The accepted connection; None where the node itself is going to connect.
    max_pdu_bytes : int
        Largest P-DATA-TF PDU, as negotiated.
    pdu_timeout_s : float
        Time for a PDU to arrive completely, and for the peer to take any bytes we send, seconds.
    address : pynetdicom.transport.AddressInformation, optional
        Where to connect from, without a `client`.

    Attributes
    ----------
    polls : int
        How often pynetdicom has looked for something to read; it does so when nothing is to be
        sent.
    """

    def __init__(
        self,
        association: Association,
        client: socket.socket | None,
        max_pdu_bytes: int,
        pdu_timeout_s: float,
        address: AddressInformation | None = None,
    ) -> None:
        super().__init__(association, client_socket=client, address=address)
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_timeout_s = pdu_timeout_s
        self.polls = 0
        self._deadline = 0.0
        self._expects_body = False
        self._refused = False
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(pdu_timeout_s)

    @property
    def ready(self) -> bool:
        """Whether a PDU may be read; after a refused one the rest of the stream means nothing."""
        self.polls += 1
        return not self._refused and bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU's header or body, which pynetdicom asks for in turn.

        Raises
        ------
        OSError
            The connection failed, or the PDU was refused and the association is being aborted.
        """
        if self._expects_body:
            self._expects_body = False
            return self._receive(nr_bytes)
        self._deadline = time.monotonic() + self._pdu_timeout_s
        header = self._receive(nr_bytes)
        if len(header) == _HEADER.size:
            self._check(header)
            self._expects_body = True
        return header

    def _check(self, header: bytearray) -> None:
        pdu_type, _, length = _HEADER.unpack(header)
        if pdu_type not in _PDU_TYPES:
            raise self._refuse(f"a PDU has the unknown type 0x{pdu_type:02X}")
        limit = self._max_pdu_bytes + _SLACK if pdu_type == _P_DATA else _MAX_ASSOCIATION_PDU
        if length > limit:
            raise self._refuse(f"a PDU of {length} bytes was announced, {limit} are allowed")

    def _receive(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or less when the peer closes the connection."""
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        received = 0
        while received < nr_bytes:
            count = self._receive_some(view[received : received + _CHUNK])
            if not count:
                break
            received += count
        view.release()
        del buffer[received:]
        return buffer

    def _receive_some(self, view: memoryview) -> int:
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            count = int(self.socket.recv_into(view))
        except TimeoutError:
            raise self._refuse(
                f"the rest of a PDU did not come within {self._pdu_timeout_s:g} s"
            ) from None
        finally:
            self.socket.settimeout(self._pdu_timeout_s)
        if hasattr(socket, "TCP_QUICKACK"):  # Linux
            with contextlib.suppress(OSError):  # the connection may be gone
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def _refuse(self, reason: str) -> OSError:
        """Abort the association; return what to raise."""
        self._refused = True
        self.event_queue.put("Evt19")  # unrecognized or invalid PDU (PS3.8 section 9.2.3)
        return OSError(f"{reason}; the association is aborted")
