"""Headers that tell browsers what not to do, on every response, and an end for every error."""

from __future__ import annotations

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbmir_node.web.problems import problem_of, problem_response

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
"""Content security policy of the page: only the node's own files, nothing inline."""

DEFAULT_HEADERS = {
    # whatever is no page runs nothing, should it ever be taken for one
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",  # addresses name studies and patients
    b"permissions-policy": b"camera=(), display-capture=(), geolocation=(), microphone=()",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-embedder-policy": b"require-corp",
}
"""What every response has that does not say otherwise."""

_log = logging.getLogger(__name__)


class ResponseHeaders:
    """Adds the headers that a response lacks; answers errors that nobody else has (ASGI).

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                missing = [pair for pair in DEFAULT_HEADERS.items() if pair[0] not in present]
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except Exception as error:  # the last who can tell it; what it says stays in the log
            if started:  # the server breaks the connection off, so that it is seen
                _log.exception("a response over HTTP broke off")
            else:
                response = problem_response(problem_of(error))
                await response(scope, receive, send_with_headers)
