"""Connections: how many there may be, and how long a client may take over what is no body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cbmir_node.config import HttpSettings
from cbmir_node.web.problems import Problem, problem_response
from cbmir_node.web.safety.response_headers import DEFAULT_HEADERS

_LONGEST_HEAD = 32768


class _TooLongHeadError(Exception):
    """Ends the parsing of a request."""


class _Deadline:
    """A call that comes unless it is lifted in time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self.lift()
        self._timer = self._loop.call_later(seconds, self._missed)

    def lift(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class GuardedConnection(HttpToolsProtocol):
    """A connection that a slow or greedy client cannot hold.

    uvicorn limits the pause between two requests; this adds a limit for the time from the start of
    a connection, or the last response, to the end of the request's head; for the size of the head
    (431) and of chunked trailers, which httptools gathers without any; for the time that a client
    may leave a response unread; and for the number of connections (503).
    """

    timeout_s = 30.0
    most_connections = 500

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_bytes = 0  # received since the last byte of a body or the last request's end
        self._head_deadline = _Deadline(self.loop, self._head_is_late)
        self._reading_deadline = _Deadline(self.loop, self._nobody_reads)

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override]  # uvicorn's own narrowing
    ) -> None:
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(503, "too many connections; try again")
        else:
            self._head_deadline.set(self.timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._head_deadline.lift()
        self._reading_deadline.lift()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head or a trailer that grows on and on."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _LONGEST_HEAD and not self.transport.is_closing():
            self._refuse(431, "the request's header fields are too long")

    def on_headers_complete(self) -> None:
        """Start the request, which has all the time it needs for the rest."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _LONGEST_HEAD:
            raise _TooLongHeadError
        self._head_deadline.lift()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, which has limits of its own."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to read this response."""
        super().on_response_complete()
        if self.cycle.response_complete:  # no pipelined request has begun
            self._head_deadline.set(self.timeout_s)

    def pause_writing(self) -> None:
        """Wait for a client that does not read as fast as we write, but not for ever."""
        super().pause_writing()
        self._reading_deadline.set(self.timeout_s)

    def resume_writing(self) -> None:
        """Go on writing."""
        self._reading_deadline.lift()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no proper HTTP."""
        if self._head_bytes > _LONGEST_HEAD:
            self._refuse(431, "the request's header fields are too long")
        else:
            self._refuse(400, "this is no valid HTTP/1.1 request")

    def _head_is_late(self) -> None:
        if self.transport.is_closing():  # and still has something to send that nobody reads
            self.transport.abort()
        elif self._head_bytes:
            self._refuse(408, "the request's header fields stopped coming")
        else:
            self.transport.close()

    def _nobody_reads(self) -> None:
        self.transport.abort()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer without the application, and close."""
        response = problem_response(Problem(status, detail))
        headers = [*response.raw_headers, *DEFAULT_HEADERS.items(), (b"connection", b"close")]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", bytes(response.body)]))
        self.transport.close()


def guarded_connection(settings: HttpSettings) -> type[GuardedConnection]:
    """Return the class of connections with the limits of the settings."""
    limits = {
        "timeout_s": settings.request_timeout_s,
        "most_connections": settings.max_connections,
    }
    return type("ConfiguredConnection", (GuardedConnection,), limits)
