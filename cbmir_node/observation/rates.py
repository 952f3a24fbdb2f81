"""What happened during the last hour, a number for each interval."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cbmir_node.errors import CbmirError
from cbmir_node.observation.counts import CatalogCounts
from cbmir_node.web.node_report import Rates

INTERVAL_S = 20.0
_SAMPLES = 3600 // int(INTERVAL_S) + 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sample:
    """Numbers that grow: objects here, embedded with a model, queries answered."""

    received: int
    embedded: int
    model: int
    queries: int


class RateSampler:
    """Samples what grows, in a thread of its own.

    Rates are taken from the catalogue, so that they count what any process brings or embeds. What
    is deleted or embedded anew in an interval makes it look quieter, never negative.

    Parameters
    ----------
    counts : CatalogCounts
    answered : callable
        Returns how many similarity queries were answered since the start.
    """

    def __init__(self, counts: CatalogCounts, answered: Callable[[], int]) -> None:
        self._counts = counts
        self._answered = answered
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rates", daemon=True)

    def start(self) -> None:
        """Sample every 20 s in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        """Take one sample; raises as `CatalogCounts.present`."""
        counts = self._counts.present()
        self._samples.append(
            _Sample(
                counts.objects["instances"],
                counts.states["embedded"],
                counts.model.row,
                self._answered(),
            )
        )

    def rates(self) -> Rates:
        """Return what happened between the samples, the oldest first."""
        samples = list(self._samples)
        pairs = list(itertools.pairwise(samples))
        return Rates(
            interval_s=INTERVAL_S,
            received=[max(0, new.received - old.received) for old, new in pairs],
            embedded=[
                max(0, new.embedded - old.embedded) if new.model == old.model else 0
                for old, new in pairs
            ],
            queries=[new.queries - old.queries for old, new in pairs],
        )

    def _run(self) -> None:
        while True:
            try:
                self.sample()
            except CbmirError as error:  # /readyz tells; the plots have a gap
                _log.debug("no sample of the rates: %s", error)
            if self._stop.wait(INTERVAL_S):
                return
