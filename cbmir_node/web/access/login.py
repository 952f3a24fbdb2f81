"""Logging in and out."""

from __future__ import annotations

import asyncio
import math

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from cbmir_node.config import HttpSettings
from cbmir_node.web.access.attempts import LoginAttempts
from cbmir_node.web.access.origins import client_address
from cbmir_node.web.access.passwords import is_password, nobodys_password_hash
from cbmir_node.web.access.sessions import SESSION_COOKIE, Sessions
from cbmir_node.web.problems import Problem

_AT_ONCE = 2
_WAITING = 20


class Credentials(BaseModel):
    """What a person types to log in."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class _Door:
    """Compares passwords, few at a time: each comparison takes 32 MiB and a core."""

    def __init__(self, settings: HttpSettings) -> None:
        self._users = settings.users
        self._nobody = nobodys_password_hash()
        self._attempts = LoginAttempts()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def check(self, address: str, credentials: Credentials) -> None:
        """Raise a `Problem` unless name and password belong together."""
        if self._waiting >= _WAITING:
            raise _later(503, 1)
        name, password = credentials.name, credentials.password
        if wait := self._attempts.begin(address, name):
            raise _later(429, wait)
        user = self._users.get(name)
        expected = self._nobody if user is None else user.password_hash
        self._waiting += 1
        try:
            async with self._turns:
                right = await run_in_threadpool(is_password, password, expected)
        finally:
            self._waiting -= 1
        if not right:
            raise Problem(401, "no user has this name and password")
        self._attempts.succeeded(address, name)


def _later(status: int, seconds: float) -> Problem:
    whole = math.ceil(seconds)
    return Problem(
        status,
        f"too many attempts to log in; try again in {whole} s",
        headers={"Retry-After": str(whole)},
    )


def router(settings: HttpSettings, sessions: Sessions) -> APIRouter:
    """Return the routes by which people come in and go."""
    routes = APIRouter(tags=["access"])
    door = _Door(settings)

    @routes.post("/login", status_code=204, response_class=Response)
    async def login(request: Request, credentials: Credentials) -> Response:
        """Log a person in: the answer sets the cookie of a session.

        429 after several failures says in Retry-After when to try again.
        """
        await door.check(client_address(request, settings), credentials)
        sessions.close(request.cookies.get(SESSION_COOKIE, ""))
        rights = frozenset(settings.users[credentials.name].rights)
        response = Response(status_code=204)
        response.set_cookie(
            SESSION_COOKIE,
            sessions.open(credentials.name, rights),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @routes.post("/logout", status_code=204, response_class=Response)
    def logout(request: Request) -> Response:
        """End the session of the cookie."""
        sessions.close(request.cookies.get(SESSION_COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(
            SESSION_COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    return routes
