"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from cbmir_node.config import Right

EVERY_RIGHT: frozenset[Right] = frozenset({"read", "store", "administer"})


@dataclass(frozen=True)
class Caller:
    """A person or a program that was authenticated.

    Attributes
    ----------
    name : str
        Of the user or the token; empty where nobody has to log in.
    rights : frozenset of str
        ``read``, ``store``, ``administer``: those that were given, none implies another.
    csrf_token : str, optional
        What unsafe requests of a login session carry in ``X-CSRF-Token``.
    """

    name: str
    rights: frozenset[Right]
    csrf_token: str | None = None


def caller_of(request: Request) -> Caller | None:
    """Return who asks; ``None`` for a stranger."""
    caller: Caller | None = request.state.caller
    return caller


async def _caller_name(request: Request) -> str:
    caller = caller_of(request)
    return caller.name if caller else ""


CallerName = Annotated[str, Depends(_caller_name)]
"""Whom a request comes from; empty where nobody has to log in."""


def may_reject(request: Request) -> bool:
    """Tell whether a rejection note (IHE IOCM) of this caller may delete what it names."""
    caller = caller_of(request)
    return caller is not None and "administer" in caller.rights
