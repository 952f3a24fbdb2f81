"""Slows down who guesses passwords, and nobody else."""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict

_FREE = 3
_LONGEST_S = 60.0
_KEPT = 10000
_NAMES_OF_ONE_ADDRESS = 64


class LoginAttempts:
    """Counts attempts by address and name; thread-safe, of bounded size.

    After three failures each further attempt has to wait 1 s, 2 s, 4 s … up to a minute. Names
    fall into a few classes, whether there is such a user or not: so what waits tells nothing of
    who exists, and made-up names do not push the counts of real ones out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, int], tuple[int, float]] = OrderedDict()

    def begin(self, address: str, name: str) -> float:
        """Count an attempt as failed for now; return the seconds it has to wait, 0 for none.

        Counting it before the password is looked at leaves nothing to many attempts at once.
        """
        key = _key(address, name)
        now = time.monotonic()
        with self._lock:
            failures, allowed_from = self._failed.pop(key, (0, 0.0))
            if wait := max(0.0, allowed_from - now):
                self._failed[key] = (failures, allowed_from)
                return wait
            failures += 1
            pause = min(2.0 ** (failures - _FREE), _LONGEST_S) if failures >= _FREE else 0.0
            self._failed[key] = (failures, now + pause)
            while len(self._failed) > _KEPT:
                self._failed.popitem(last=False)
        return 0.0

    def succeeded(self, address: str, name: str) -> None:
        """Forget the failures before the right password."""
        with self._lock:
            self._failed.pop(_key(address, name), None)


def _key(address: str, name: str) -> tuple[str, int]:
    return address, zlib.crc32(name.encode("utf-8", "surrogatepass")) % _NAMES_OF_ONE_ADDRESS
