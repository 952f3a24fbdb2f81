"""What a caller must be allowed for a route."""

from __future__ import annotations

from fastapi import Depends, Request


def _may_read(request: Request) -> None:
    """Refuse callers without the right ``read``."""


def _may_store(request: Request) -> None:
    """Refuse callers without the right ``store``."""


def _may_administer(request: Request) -> None:
    """Refuse callers without the right ``administer``."""


MAY_READ = Depends(_may_read)
MAY_STORE = Depends(_may_store)
MAY_ADMINISTER = Depends(_may_administer)
