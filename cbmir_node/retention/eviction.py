"""Lets go of pixels by the rules of ``[retention]``; tags and vectors stay and answer queries."""

from __future__ import annotations

import logging
import math
import threading
import time

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.eviction import Evictable, evict, evictable, kept_bytes
from cbmir_node.catalog.retention.removal import Removed
from cbmir_node.config import RetentionSettings
from cbmir_node.retention.removal import AT_ONCE, Wait, discard

QUOTA_SLACK = 0.05
"""How far below its quota an archive is brought, as a share of it: not every object that arrives
afterwards shall push out another one."""

_DAY_S = 86400.0

_log = logging.getLogger(__name__)


class Eviction:
    """The rules, applied to one archive.

    Parameters
    ----------
    catalog : Catalog
    archive : Archive
    retention : RetentionSettings
    wait : callable, optional
        How to wait between batches, and whether to stop before all is done.
    """

    def __init__(
        self,
        catalog: Catalog,
        archive: Archive,
        retention: RetentionSettings,
        wait: Wait | None = None,
    ) -> None:
        self._catalog = catalog
        self._archive = archive
        self._retention = retention
        self._wait = wait or threading.Event().wait
        self._over_quota = False

    def apply(self) -> Removed:
        """Evict what the rules name; return how much it was."""
        by_age = self._by_age()
        by_quota = self._by_quota()
        return Removed(
            by_age.instances + by_quota.instances, [], by_age.size_bytes + by_quota.size_bytes
        )

    def _by_age(self) -> Removed:
        match self._retention.retain:
            case "all":
                return Removed(0, [], 0)
            case "none":
                # what failed is kept: with its pixels it can be tried again
                return self._evict(math.inf, time.time(), failed_too=False)
            case "days":
                oldest = time.time() - self._retention.days * _DAY_S
                return self._evict(math.inf, oldest, failed_too=True)

    def _by_quota(self) -> Removed:
        quota = self._retention.quota_gib * (1 << 30)
        total = kept_bytes(self._catalog) if quota else 0
        if total <= quota:
            self._over_quota = False
            return Removed(0, [], 0)
        excess = total - quota * (1 - QUOTA_SLACK)
        evicted = self._evict(excess, time.time(), failed_too=True)
        over = total - evicted.size_bytes > quota
        if over and not self._over_quota:
            _log.warning(
                "the archive is above retention.quota_gib, and what is left still waits to be "
                "embedded, or was not sent on (see 'cbmir-node forward list')"
            )
        self._over_quota = over
        return evicted

    def _evict(self, size_bytes: float, received_before: float, *, failed_too: bool) -> Removed:
        """Evict the instances received first until they make up a size."""
        instances, evicted_bytes = 0, 0
        last: Evictable | None = None
        while evicted_bytes < size_bytes:
            begin = time.monotonic()
            oldest = evictable(
                self._catalog, received_before, AT_ONCE, failed_too=failed_too, after=last
            )
            chosen = _first(oldest, size_bytes - evicted_bytes)
            if not chosen:
                break
            last = chosen[-1]
            rows = [one.row for one in chosen]
            removed = evict(self._catalog, rows, failed_too=failed_too)
            discard(self._catalog, self._archive, removed.paths)
            instances += removed.instances
            evicted_bytes += removed.size_bytes
            if self._wait(time.monotonic() - begin):
                break
        return Removed(instances, [], evicted_bytes)


def _first(candidates: list[Evictable], size_bytes: float) -> list[Evictable]:
    """Return as many from the beginning as make up a size."""
    taken, total = [], 0
    for one in candidates:
        if total >= size_bytes:
            break
        taken.append(one)
        total += one.size_bytes
    return taken
