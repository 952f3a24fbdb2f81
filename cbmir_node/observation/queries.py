"""Similarity queries timed, whichever protocol asks them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Histogram

from cbmir_node.answers.similar import SimilaritySearcher
from cbmir_node.errors import QueryError
from cbmir_node.search.query import SimilarityAnswer, SimilarityQuery

_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TimedSearch:
    """A search that counts and times what it answers; safe to use from many threads.

    Parameters
    ----------
    search : SimilaritySearcher
        Answers.
    registry : CollectorRegistry
        Gets the histogram ``cbmir_similarity_query_seconds``.
    """

    def __init__(self, search: SimilaritySearcher, registry: CollectorRegistry) -> None:
        self._search = search
        self._lock = threading.Lock()
        self._answered = 0
        self._seconds = Histogram(
            "cbmir_similarity_query_seconds",
            "Duration of similarity queries over DICOM and HTTP",
            ["outcome"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        for outcome in ("answered", "refused", "failed"):  # so that a rate starts from 0
            self._seconds.labels(outcome)

    def answered(self) -> int:
        """Return how many queries were answered since the start."""
        with self._lock:
            return self._answered

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        """Answer as the search does."""
        started, outcome = time.perf_counter(), "failed"
        try:
            answer = self._search.answer(query)
            outcome = "answered"
            with self._lock:
                self._answered += 1
            return answer
        except QueryError:
            outcome = "refused"
            raise
        finally:
            self._seconds.labels(outcome).observe(time.perf_counter() - started)

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return what the search does."""
        return self._search.newest_study(filters)
