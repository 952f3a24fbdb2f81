"""Bodies of responses: sent as fast as the client reads, and few large ones at a time."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbmir_node.web.problems import Problem, problem_response

_MIB = 2**20
_PIECE = 256 * 1024
_LARGE = 4 * _MIB
_MOST_BYTES = 512 * _MIB
_PATIENCE_S = 2.0
_MOST_WAITING = 8


class ResponseBodies:
    """Bounds the memory that responses take while clients read them (ASGI).

    A body is passed on in pieces. The server waits for the client between them, which it cannot
    within one: so the time that a client has to read counts for a piece, and a slow link is none
    that stands still.

    What is made at once and is larger than 4 MiB needs its share of 512 MiB, which it keeps to the
    end of the response; when there is no room after two seconds, the response is 503.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._room = _Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(scope, receive, send, self._room)
        try:
            await self._app(scope, receive, response.send)
        finally:
            response.close()


class _Room:
    """How much of large bodies is in memory."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting = 0
        self._freed = asyncio.Event()

    async def take(self, size: int) -> bool:
        """Wait a while for room and take it; whatever its size, one alone has room."""
        if not self._has_room(size) and self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not self._has_room(size):
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        self._held += size
        return True

    def give_back(self, size: int) -> None:
        self._held -= size
        self._freed.set()

    def _has_room(self, size: int) -> bool:
        return not self._held or self._held + size <= _MOST_BYTES


class _Response:
    """One response on its way out; its head waits for the first part of the body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, room: _Room) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._room = room
        self._taken = 0
        self._head: Message | None = None
        self._is_refused = False

    async def send(self, message: Message) -> None:
        """Pass a message on; nothing more once the response was refused."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._head = message
            return
        body = message.get("body", b"")
        if len(body) > max(_LARGE, self._taken):
            await self._take(len(body) - self._taken)
            if self._is_refused:
                return
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)
        more = message.get("more_body", False)
        for start in range(0, max(1, len(body)), _PIECE):
            end = start + _PIECE
            piece = {**message, "body": body[start:end], "more_body": more or end < len(body)}
            await self._send(piece)

    async def _take(self, size: int) -> None:
        if await self._room.take(size):
            self._taken += size
            return
        self._is_refused = True
        if self._head is None:  # a later part is larger: the server breaks the response off
            raise _NoRoomError("there is no room for the rest of a large response")
        problem = Problem(
            503, "too many large answers are being sent; try again", headers={"Retry-After": "5"}
        )
        await problem_response(problem)(self._scope, self._receive, self._send)

    def close(self) -> None:
        """Give the room back."""
        if self._taken:
            self._room.give_back(self._taken)
            self._taken = 0


class _NoRoomError(Exception):
    """Ends a response of which a part has been sent."""
