"""Slows down who guesses passwords, and nobody else."""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from dataclasses import dataclass, replace

_FREE = 3
_LONGEST_S = 60.0
_KEPT = 10000
_NAMES_OF_ONE_ADDRESS = 64


@dataclass(frozen=True)
class _Failures:
    """Of one address and class of names; under several names nobody's success clears them."""

    number: int = 0
    allowed_from: float = 0.0
    names: frozenset[str] = frozenset()


class LoginAttempts:
    """Counts attempts by address and name; thread-safe, of bounded size.

    After three failures each further attempt has to wait 1 s, 2 s, 4 s … up to a minute. Names
    fall into a few classes, whether there is such a user or not: so what waits tells nothing of
    who exists, and made-up names do not push the counts of real ones out. A success clears the
    failures under its own name only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, int], _Failures] = OrderedDict()

    def begin(self, address: str, name: str) -> float:
        """Count an attempt as failed for now; return the seconds it has to wait, 0 for none.

        Counting it before the password is looked at leaves nothing to many attempts at once.
        """
        key = _key(address, name)
        now = time.monotonic()
        with self._lock:
            before = self._failed.pop(key, _Failures())
            if wait := max(0.0, before.allowed_from - now):
                self._failed[key] = before
                return wait
            number = before.number + 1
            pause = min(2.0 ** (number - _FREE), _LONGEST_S) if number >= _FREE else 0.0
            # two names tell as much as all
            names = before.names if len(before.names) > 1 else before.names | {name}
            self._failed[key] = _Failures(number, now + pause, names)
            while len(self._failed) > _KEPT:
                self._failed.popitem(last=False)
        return 0.0

    def succeeded(self, address: str, name: str) -> None:
        """Forget the failures before the right password, and that it was counted as one."""
        key = _key(address, name)
        with self._lock:
            before = self._failed.get(key, _Failures())
            if before.names <= {name}:
                self._failed.pop(key, None)
            else:
                self._failed[key] = replace(before, number=before.number - 1, allowed_from=0.0)


def _key(address: str, name: str) -> tuple[str, int]:
    return address, zlib.crc32(name.encode("utf-8", "surrogatepass")) % _NAMES_OF_ONE_ADDRESS
