"""Bodies of requests: how large, how slow, how encoded they may be."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbmir_node.config import HttpSettings
from cbmir_node.web.problems import Problem, problem_response

_MIB = 2**20
_SLOWEST_BYTES_PER_S = 1024
_DRAIN_S = 2.0


class RequestBodies:
    """Limits what a client may send and how long it may take over it (ASGI).

    413 for a body that is too long: at once where Content-Length says so, while reading
    otherwise. 408 for a client that is silent for `HttpSettings.request_timeout_s`, or that sends
    less than 1 KiB/s beyond that. 415 for a compressed body, which could be of any size.

    Parameters
    ----------
    app : ASGI application
    settings : HttpSettings
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._timeout_s = settings.request_timeout_s
        self._limits = {
            "/dicom-web/": settings.max_request_mib * _MIB,
            "/api/examples": settings.max_example_mib * _MIB,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = _Body(receive, send, self._limit(scope["path"]), self._timeout_s)
        try:
            body.check(headers)
        except Problem as problem:
            await problem_response(problem)(scope, body.receive, body.send)
            return
        await self._app(scope, body.receive, body.send)

    def _limit(self, path: str) -> int:
        for prefix, limit in self._limits.items():
            if path.startswith(prefix):
                return limit
        return _MIB


class _Body:
    """The body of one request."""

    def __init__(self, receive: Receive, send: Send, limit: int, timeout_s: float) -> None:
        self._receive, self._send = receive, send
        self._limit, self._timeout_s = limit, timeout_s
        self._received = 0
        self._waited_s = 0.0
        self._complete = False

    def check(self, headers: Headers) -> None:
        """Refuse by the headers what need not be read at all."""
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Problem(
                415,
                "send the body as it is, without Content-Encoding",
                headers={"Accept-Encoding": "identity"},
            )
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise Problem(501, "the only Transfer-Encoding is chunked")
        if int(headers.get("content-length", "0")) > self._limit:
            raise self._too_long()

    async def receive(self) -> Message:
        """Return the next part; only the client's time counts, not ours between the parts."""
        if self._complete:
            return await self._receive()
        allowance = self._timeout_s + self._received / _SLOWEST_BYTES_PER_S - self._waited_s
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(allowance, self._timeout_s)):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "the body of the request stopped coming; send it again") from None
        self._waited_s += time.monotonic() - began
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received > self._limit:
            raise self._too_long()
        return message

    async def send(self, message: Message) -> None:
        """Pass a response on; one that comes before the body's end closes the connection.

        Closing while the client still sends would reset the connection, and the client might
        never see the response: so what comes is thrown away for a while.
        """
        if not self._complete and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        elif not self._complete and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                while (await self._receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass  # the client was warned: Connection: close

    def _too_long(self) -> Problem:
        return Problem(413, f"the body of this request may have {self._limit // _MIB} MiB at most")
