"""The node's duty to send received objects on: looks for what is due, a thread per destination."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping

from cbmir_node.catalog.forwarding.queue import ForwardQueue, forwarding_owners, release_forwards
from cbmir_node.errors import CatalogError
from cbmir_node.forwarding.delivery import Delivery
from cbmir_node.stores import Stores, is_alive_here, process_identity

_POLL_S = 1.0
_LEASE_S = 600.0  # not renewed while one object is on the wire
_TIDY_S = 3600.0
_SENT_KEPT_S = 7 * 86_400.0
_STOP_S = 10.0

_log = logging.getLogger(__name__)


class Forwarder:
    """Sends queued objects on, each destination in a thread of its own.

    A destination that does not answer holds up a thread for as long as the association's timeout;
    the others do not notice.

    Parameters
    ----------
    stores : Stores
        Opened by the caller.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._queue = ForwardQueue(stores.catalog, process_identity(), _LEASE_S)
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._run, name="forwarding", daemon=True)
        self._deliveries: dict[str, threading.Thread] = {}
        self._counted: Counter[tuple[str, str]] = Counter()
        self._problem = ""
        self._broken: dict[str, str] = {}

    def start(self) -> None:
        """Begin, also with what an earlier process of this host left unfinished."""
        # a claim in this process' own name is an earlier one's: containers reuse process numbers
        dead = [
            owner
            for owner in forwarding_owners(self._stores.catalog)
            if owner == process_identity() or is_alive_here(owner) is False
        ]
        release_forwards(self._stores.catalog, dead)
        self._watch.start()

    def stop(self) -> None:
        """Break off after the objects that are on the wire."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_S
        self._watch.join()
        for thread in self._deliveries.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def problem(self) -> str:
        """Why nothing, or not everything, is sent on that is due; empty when all is well.

        A destination that does not answer is no problem of this node.
        """
        broken = [f"to {title}: {reason}" for title, reason in list(self._broken.items())]
        return "; ".join([self._problem, *broken] if self._problem else broken)

    def counts(self) -> Mapping[str, int]:
        """Return how many objects had which outcome since the start: ``TITLE outcome``."""
        return {f"{title} {outcome}": n for (title, outcome), n in list(self._counted.items())}

    def _run(self) -> None:
        tidied = 0.0
        while not self._stop.wait(_POLL_S):
            try:
                self._look()
                if time.monotonic() - tidied > _TIDY_S or not tidied:
                    self._queue.forget_sent(time.time() - _SENT_KEPT_S)
                    tidied = time.monotonic()
                self._problem = ""
            except CatalogError as error:  # it may answer again
                if str(error) != self._problem:
                    _log.error("forwarding waits: %s", error)
                self._problem = str(error)

    def _look(self) -> None:
        """Start a thread for each destination that has something due and none yet."""
        due = self._queue.due_destinations()
        for settled in self._broken.keys() - set(due):  # cancelled, or sent by another node
            self._broken.pop(settled, None)
        for destination in due:
            busy = self._deliveries.get(destination)
            if busy is None or not busy.is_alive():
                thread = threading.Thread(
                    target=self._deliver,
                    args=(destination,),
                    name=f"forwarding to {destination}",
                    daemon=True,
                )
                self._deliveries[destination] = thread
                thread.start()

    def _deliver(self, destination: str) -> None:
        delivery = Delivery(self._stores, self._queue, destination, self._counted)
        try:
            delivery.run(self._stop)
            self._broken.pop(destination, None)
        except CatalogError as error:  # it may answer again
            if self._broken.get(destination) != str(error):
                _log.error("forwarding to %s broke off: %s", destination, error)
            self._broken[destination] = str(error)
        except Exception as error:  # a defect must not end forwarding, nor repeat every second
            _log.exception("forwarding to %s broke off", destination)
            delivery.rest(f"{type(error).__name__}: {error}")
