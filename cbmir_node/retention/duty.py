"""The node's background duty: finishes removals, evicts what need not be kept."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping

from cbmir_node.retention.eviction import Eviction
from cbmir_node.retention.removal import finish_removals
from cbmir_node.stores import Stores

_PAUSE_S = 20.0

_log = logging.getLogger(__name__)


class RetentionDuty:
    """Applies ``[retention]`` again and again, in a thread of its own.

    Parameters
    ----------
    stores : Stores
        Opened by the caller.

    Attributes
    ----------
    problem : str
        Why the last round failed; empty when it did not.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._stop = threading.Event()
        self._eviction = Eviction(
            stores.catalog, stores.archive, stores.settings.retention, self._stop.wait
        )
        self._counts: Counter[str] = Counter({"deleted": 0, "evicted": 0})
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self.problem = ""

    def start(self) -> None:
        """Begin, with what an earlier process may have left undone."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch under way."""
        self._stop.set()
        self._thread.join()

    def counts(self) -> Mapping[str, float]:
        """Return how many objects were removed and how many lost their pixels since the start.

        Those that a rejection note or a command removed by itself are not among them.
        """
        return dict(self._counts)

    def run_once(self) -> None:
        """Do everything there is to do now."""
        stores = self._stores
        removed = finish_removals(stores.catalog, stores.archive, self._stop.wait)
        self._counts["deleted"] += removed
        evicted = self._eviction.apply()
        self._counts["evicted"] += evicted.instances
        if evicted.instances:
            _log.info(
                "evicted the pixels of %d objects, %d MiB",
                *(evicted.instances, evicted.size_bytes >> 20),
            )

    def _run(self) -> None:
        while True:
            try:
                self.run_once()
                self.problem = ""
            except Exception as error:  # this thread must live on, and /readyz tell
                if str(error) != self.problem:
                    _log.exception("deleting or evicting failed; it is tried again")
                self.problem = str(error)
            if self._stop.wait(_PAUSE_S):
                return
