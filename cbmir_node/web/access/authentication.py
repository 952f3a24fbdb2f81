"""Authentication, by token or login session: strangers get no further."""

from __future__ import annotations

import hmac

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from cbmir_node.config import HttpSettings
from cbmir_node.web.access.callers import EVERY_RIGHT, Caller
from cbmir_node.web.access.rights import not_authenticated
from cbmir_node.web.access.sessions import SESSION_COOKIE, Sessions
from cbmir_node.web.access.tokens import token_sha256
from cbmir_node.web.problems import Problem, problem_response

OPEN_PATHS = frozenset({"/", "/administration", "/favicon.ico", "/healthz", "/login", "/readyz"})
"""What strangers may ask for: the page without any data, the way to log in, signs of life."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""

_EVERYBODY = Caller("", EVERY_RIGHT)


class Authentication:
    """Puts the `Caller` into the state of each request (ASGI middleware).

    A stranger gets 401 before anything of the request is read or looked up, but for the open
    paths; so a route that forgets to ask for a right is not open to all. An unsafe request of a
    login session must carry the session's token against forgery.

    Parameters
    ----------
    app : ASGI application
    settings : HttpSettings
        Without users and tokens everybody is allowed everything: the node is on loopback then.
    sessions : Sessions
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions
        self._needs_credentials = settings.needs_credentials
        self._programs = {
            token.sha256: Caller(name, frozenset(token.rights))
            for name, token in settings.tokens.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["caller"] = self._caller(HTTPConnection(scope))
            except Problem as problem:
                await problem_response(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _caller(self, request: HTTPConnection) -> Caller | None:
        """Return who asks, ``None`` for a stranger on an open path; raise what is told others."""
        if not self._needs_credentials:
            return _EVERYBODY
        path, method = request.scope["path"], request.scope["method"]
        caller = self._program(request) or self._person(request)
        if caller is None and path not in OPEN_PATHS and not path.startswith("/static/"):
            raise not_authenticated()
        if caller and caller.csrf_token and method not in SAFE_METHODS and path != "/login":
            given = request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(given.encode(), caller.csrf_token.encode()):
                raise Problem(403, "the header X-CSRF-Token must be the csrf_token of /api/node")
        return caller

    def _program(self, request: HTTPConnection) -> Caller | None:
        """Return the program whose token the request carries (RFC 6750)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = token_sha256(token.strip())
        found = None
        for known, caller in self._programs.items():  # all of them: the time must not tell
            if hmac.compare_digest(digest, known):
                found = caller
        return found

    def _person(self, request: HTTPConnection) -> Caller | None:
        """Return the person whose session the request's cookie names."""
        cookie = request.cookies.get(SESSION_COOKIE)
        return self._sessions.caller(cookie) if cookie else None
