"""Counts of the catalogue, taken no more often than is cheap."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cbmir_node.catalog.forwarding.overview import (
    DestinationQueue,
    count_forwards,
    destination_queues,
)
from cbmir_node.catalog.forwarding.resting_destinations import (
    RestingDestination,
    resting_destinations,
)
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.retention.eviction import kept_bytes
from cbmir_node.catalog.statistics import (
    FailureGroup,
    count_objects,
    count_states,
    failures_by_reason,
    oldest_pending,
)
from cbmir_node.stores import Stores

_LONG_S = 0.1
_KEPT_S = 5.0
"""Counts that took long to make are told again for a while, however many ask."""


@dataclass(frozen=True)
class Counts:
    """What the catalogue holds at a moment.

    Attributes
    ----------
    model : InstalledModel
        The active one, whose states these are.
    next_model : InstalledModel or None
        The one that is to take over.
    next_pending : int
        Instances that it still has to embed.
    objects, states, forwards : mapping of str to int
        See `catalog.statistics` and `catalog.forwarding.overview`.
    destinations : sequence of DestinationQueue
    resting : sequence of RestingDestination
    failures : sequence of FailureGroup
    oldest_pending : float or None
        Since when the instance waits that has waited longest, seconds since 1970.
    archive_bytes : int
        Size of the objects that are kept.
    """

    model: InstalledModel
    next_model: InstalledModel | None
    next_pending: int
    objects: Mapping[str, int]
    states: Mapping[str, int]
    forwards: Mapping[str, int]
    destinations: Sequence[DestinationQueue]
    resting: Sequence[RestingDestination]
    failures: Sequence[FailureGroup]
    oldest_pending: float | None
    archive_bytes: int


class CatalogCounts:
    """Counts when asked, but a large catalogue not at every poll; safe to use from many threads.

    Parameters
    ----------
    stores : Stores
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._counts: Counts | None = None
        self._valid_until = 0.0

    def latest(self) -> Counts:
        """Return counts, of a large catalogue perhaps those of some seconds ago.

        Raises
        ------
        CatalogError, ModelError
            The catalogue does not answer, or no model is in use.
        """
        with self._lock:
            if self._counts is None or time.monotonic() > self._valid_until:
                return self._taken()
            return self._counts

    def present(self) -> Counts:
        """Return counts of this moment; raises as `latest`."""
        with self._lock:
            return self._taken()

    def _taken(self) -> Counts:
        started = time.monotonic()
        self._counts = self._counted()
        ended = time.monotonic()
        self._valid_until = ended + (_KEPT_S if ended - started > _LONG_S else 0)
        return self._counts

    def _counted(self) -> Counts:
        catalog = self._stores.catalog
        model = self._stores.registry.active()
        waiting = next((m for m in self._stores.registry.in_use() if m.state == "next"), None)
        # objects before states: what arrives in between is pending, and never seems embedded
        return Counts(
            model=model,
            next_model=waiting,
            objects=count_objects(catalog),
            states=count_states(catalog, model.row),
            next_pending=count_states(catalog, waiting.row)["pending"] if waiting else 0,
            forwards=count_forwards(catalog),
            destinations=destination_queues(catalog),
            resting=resting_destinations(catalog),
            failures=failures_by_reason(catalog, model.row),
            oldest_pending=oldest_pending(catalog, model.row),
            archive_bytes=kept_bytes(catalog),
        )
