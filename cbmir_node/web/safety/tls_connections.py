"""TLS connections that are counted from their first byte on."""

from __future__ import annotations

import asyncio
import math
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any

from cbmir_node.web.safety.connections import GuardedConnection

_HANDSHAKE_S = 10.0


class TlsConnection(SSLProtocol):
    """A connection that speaks TLS, closed at once where there are too many.

    asyncio's servers tell an application of a connection only once its handshake is over, so that
    any number of them could be open without one: here the TLS layer itself is what is counted.

    Parameters
    ----------
    inner : GuardedConnection
        Speaks HTTP within it.
    context : ssl.SSLContext
    opened : set of TlsConnection
        All there are, shared by them.
    """

    def __init__(
        self, inner: GuardedConnection, context: ssl.SSLContext, opened: set[TlsConnection]
    ) -> None:
        super().__init__(
            inner.loop,
            inner,
            context,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=math.ceil(min(_HANDSHAKE_S, inner.timeout_s)),
        )
        self._most = inner.most_connections
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, unless there are too many connections."""
        if len(self._opened) >= self._most:
            assert isinstance(transport, asyncio.Transport)  # noqa: S101  they are TCP's
            transport.abort()
            return
        self._opened.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection no more."""
        self._opened.discard(self)
        super().connection_lost(exc)


def tls_connections(
    connection: type[GuardedConnection], context: ssl.SSLContext
) -> Callable[..., TlsConnection]:
    """Return what makes connections of a kind within TLS."""
    opened: set[TlsConnection] = set()

    def make(**arguments: Any) -> TlsConnection:
        return TlsConnection(connection(**arguments), context, opened)

    return make
