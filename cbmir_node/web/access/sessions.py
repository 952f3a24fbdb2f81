"""Logins of people, in memory: a restart ends them all."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from cbmir_node.config import Right
from cbmir_node.web.access.callers import Caller
from cbmir_node.web.access.tokens import new_token, token_sha256

SESSION_COOKIE = "cbmir_session"
_SESSIONS_OF_ONE_USER = 20
_LONGEST_S = 86400.0


@dataclass
class _Session:
    caller: Caller
    opened: float
    used: float


class Sessions:
    """The logins that are valid now; thread-safe.

    Parameters
    ----------
    idle_s : float
        After so many seconds without a request a login is over; after a day in any case.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def open(self, name: str, rights: frozenset[Right]) -> str:
        """Start a login and return its token; the user's oldest ends where there are too many."""
        token = new_token()
        caller = Caller(name, rights, csrf_token=new_token())
        now = time.monotonic()
        with self._lock:
            self._forget_ended()
            mine = [key for key, held in self._sessions.items() if held.caller.name == name]
            for key in mine[: max(0, len(mine) + 1 - _SESSIONS_OF_ONE_USER)]:
                del self._sessions[key]
            self._sessions[token_sha256(token)] = _Session(caller, now, now)
        return token

    def caller(self, token: str) -> Caller | None:
        """Return whose login it is, and count it as used."""
        with self._lock:
            session = self._sessions.get(token_sha256(token))
            if session is None or self._has_ended(session):
                return None
            session.used = time.monotonic()
            return session.caller

    def close(self, token: str) -> None:
        """End a login; an unknown one is none."""
        with self._lock:
            self._sessions.pop(token_sha256(token), None)

    def _has_ended(self, session: _Session) -> bool:
        now = time.monotonic()
        return now - session.used > self._idle_s or now - session.opened > _LONGEST_S

    def _forget_ended(self) -> None:
        self._sessions = {
            key: held for key, held in self._sessions.items() if not self._has_ended(held)
        }
