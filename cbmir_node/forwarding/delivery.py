"""Sends what waits for one destination, study by study."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from cbmir_node.catalog.forwarding.queue import Forward, ForwardOutcome, ForwardQueue, ForwardState
from cbmir_node.catalog.forwarding.resting_destinations import rest_destination, wake_destination
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects_of
from cbmir_node.config import ForwardingSettings
from cbmir_node.dicom.client.association import Peer
from cbmir_node.dicom.client.send import Sent, send
from cbmir_node.errors import PeerError
from cbmir_node.stores import Stores

_OBJECTS = 100
"""Objects claimed at a time, and sent over one association."""
_PATIENCE = 3
"""Failures in a row after which the destination is at fault rather than the objects."""
_RECORD_S = 2.0
_DAY_S = 86_400.0

_log = logging.getLogger(__name__)


class Stop(Protocol):
    """An event that tells to stop."""

    def is_set(self) -> bool:
        """Tell whether it has happened."""


class Delivery:
    """The sender of one destination.

    Parameters
    ----------
    stores : Stores
    queue : ForwardQueue
    destination : str
        AE title.
    counted : Counter
        Counts objects by (destination, what became of them).
    """

    def __init__(
        self,
        stores: Stores,
        queue: ForwardQueue,
        destination: str,
        counted: Counter[tuple[str, str]],
    ) -> None:
        self._stores = stores
        self._settings = stores.settings.forwarding
        self._queue = queue
        self._destination = destination
        self._counted = counted
        self._failures = 0
        self._last_reason = ""
        self._is_known_to_answer = False

    def run(self, stop: Stop) -> None:
        """Send until nothing is due, the destination has to rest, or told to stop."""
        while not stop.is_set():
            forwards = self._queue.claim(self._destination, _OBJECTS)
            if not forwards or not self._deliver(forwards, stop):
                return

    def rest(self, reason: str) -> None:
        """Leave the destination alone for a while."""
        seconds = rest_destination(
            *(self._stores.catalog, self._destination, reason),
            lambda attempts: pause_after(attempts, self._settings),
            self._settings.give_up_days * _DAY_S,
        )
        _log.warning("forwarding to %s rests for %.0f s: %s", self._destination, seconds, reason)

    def _deliver(self, forwards: list[Forward], stop: Stop) -> bool:
        """Send some objects of a study; tell whether the destination takes more."""
        known = self._stores.settings.peers.get(self._destination)
        if known is None:
            self._queue.release(forwards)
            self.rest(f"there is no [peers.{self._destination}]; add it, or cancel these objects")
            return False
        waiting = {forward.instance: forward for forward in forwards}
        objects = stored_objects_of(self._stores.catalog, list(waiting))
        problem = ""
        try:
            self._send(Peer(self._destination, known.host, known.port), objects, waiting, stop)
        except PeerError as error:
            problem = str(error)
        finally:
            self._queue.release(list(waiting.values()))
        if self._failures >= _PATIENCE:
            problem = f"{_PATIENCE} objects in a row failed, the last one: {self._last_reason}"
        if problem:
            self.rest(problem)
        return not problem

    def _send(
        self,
        peer: Peer,
        objects: Sequence[StoredObject],
        waiting: dict[int, Forward],
        stop: Stop,
    ) -> None:
        """Send objects and record what becomes of them; those not tried stay in `waiting`."""
        settings = self._stores.settings
        outcomes: list[ForwardOutcome] = []
        recorded = time.monotonic()
        results = send(
            *(peer, objects, self._stores.archive),
            calling_ae_title=settings.dicom.ae_title,
            timeout=settings.dicom.idle_timeout_s,
            imaging=settings.imaging,
            give_up=stop.is_set,
        )
        with contextlib.closing(results):
            try:
                for sent in results:
                    forward = waiting.pop(sent.object.instance)
                    outcomes.append(self._outcome(forward, sent))
                    if self._is_enough(sent):
                        break
                    if time.monotonic() - recorded > _RECORD_S:
                        self._queue.record(outcomes)
                        self._queue.renew(list(waiting.values()))
                        outcomes, recorded = [], time.monotonic()
            finally:
                self._queue.record(outcomes)

    def _is_enough(self, sent: Sent) -> bool:
        """Tell whether to break off.

        An object without any answer may have ended the association; those behind it have not been
        tried, and go over another one. What goes wrong here says nothing of the destination.
        """
        if sent.is_local:
            return False
        if sent.outcome != "failed":
            self._failures = 0
            return False
        self._failures += 1
        self._last_reason = sent.reason
        return sent.status is None or self._failures >= _PATIENCE

    def _outcome(self, forward: Forward, sent: Sent) -> ForwardOutcome:
        now, attempts = time.time(), forward.attempts + 1
        self._counted[self._destination, sent.outcome] += 1
        if sent.outcome != "failed":
            if not self._is_known_to_answer:
                wake_destination(self._stores.catalog, self._destination)
                self._is_known_to_answer = True
            state: ForwardState = "refused" if sent.outcome == "refused" else "sent"
            return ForwardOutcome(forward.row, state, sent.reason, attempts, now)
        late = now - forward.requested_at > self._settings.give_up_days * _DAY_S
        is_hopeless = late or not sent.object.path
        return ForwardOutcome(
            forward.row,
            "given_up" if is_hopeless else "pending",
            sent.reason,
            attempts,
            now + pause_after(attempts, self._settings),
        )


def pause_after(attempts: int, settings: ForwardingSettings) -> float:
    """Return how long to wait after this many failures, seconds."""
    doubled = settings.first_retry_s * 2.0 ** min(attempts - 1, 60)
    return min(doubled, settings.longest_retry_s)
