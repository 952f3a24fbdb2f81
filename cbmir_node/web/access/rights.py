"""What a caller must be allowed for a route: ``dependencies=[MAY_READ]``.

They are coroutines because a plain function would take a thread for each request.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer

from cbmir_node.config import Right
from cbmir_node.web.access.callers import caller_of
from cbmir_node.web.access.sessions import SESSION_COOKIE
from cbmir_node.web.problems import Problem

# they are read by `Authentication`; here they only tell the OpenAPI description
_Token = Annotated[
    object,
    Depends(
        HTTPBearer(scheme_name="token", description="`cbmir-node access token`", auto_error=False)
    ),
]
_Session = Annotated[
    object,
    Depends(
        APIKeyCookie(
            name=SESSION_COOKIE, scheme_name="session", description="POST /login", auto_error=False
        )
    ),
]


async def _may_do_something(request: Request, _token: _Token, _session: _Session) -> None:
    """Refuse callers without any right."""
    caller = caller_of(request)
    if caller is None:
        raise not_authenticated()
    if not caller.rights:
        raise Problem(403, f"{caller.name} has no rights: they are given in http.users or tokens")


async def _may_read(request: Request, _token: _Token, _session: _Session) -> None:
    """Refuse callers without the right ``read``."""
    _require("read", request)


async def _may_store(request: Request, _token: _Token, _session: _Session) -> None:
    """Refuse callers without the right ``store``."""
    _require("store", request)


async def _may_administer(request: Request, _token: _Token, _session: _Session) -> None:
    """Refuse callers without the right ``administer``."""
    _require("administer", request)


def _require(right: Right, request: Request) -> None:
    caller = caller_of(request)
    if caller is None:
        raise not_authenticated()
    if right not in caller.rights:
        raise Problem(
            403,
            f"{caller.name} lacks the right to {right}: it is given in http.users or http.tokens",
        )


def not_authenticated() -> Problem:
    """Return what a stranger is told (RFC 9110, 401; RFC 6750, the scheme)."""
    return Problem(
        401,
        "log in at /login, or send a token as Authorization: Bearer",
        headers={"WWW-Authenticate": "Bearer"},
    )


MAY_DO_SOMETHING = Depends(_may_do_something)
MAY_READ = Depends(_may_read)
MAY_STORE = Depends(_may_store)
MAY_ADMINISTER = Depends(_may_administer)
