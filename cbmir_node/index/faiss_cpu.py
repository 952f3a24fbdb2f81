"""Exact search on the CPU: FAISS proposes candidates, `exact` scores and orders them."""

from __future__ import annotations

import numpy as np

from cbmir_node.index import exact
from cbmir_node.index.base_and_tail import BaseAndTail, Found
from cbmir_node.index.protocol import (
    BoolArray,
    Float32Array,
    FloatMetric,
    Int64Array,
    VectorArray,
)
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import scan, within

_SPARE_CANDIDATES = 32
"""Scanned beyond k, so that rounding at the k-th place seldom asks for a second look."""

_GATHER_BELOW = 0.02
"""Share of the rows up to which the survivors of a filter are copied out and scanned alone."""


class FlatIndex(BaseAndTail):
    """Exact `VectorIndex` on the CPU; see `BaseAndTail`.

    Parameters
    ----------
    dimension : int
        Length of the vectors, D.
    metric : {"cosine", "euclidean"}
    base : Rows, optional
        Rows of a snapshot, already of unit length when the metric is ``cosine``.

    Raises
    ------
    MissingPackageError
        FAISS is not installed.
    """

    def __init__(self, dimension: int, metric: FloatMetric, base: Rows | None = None) -> None:
        super().__init__(dimension, metric, np.float32, base)
        self._scan_error = (dimension + 8) * exact.UNIT_ROUNDOFF

    def _prepared(self, vectors: VectorArray) -> Float32Array:
        rows = exact.checked(vectors, self._dimension)
        return exact.unit_length(rows) if self._metric == "cosine" else rows

    def _nearest(
        self, vectors: VectorArray, chosen: BoolArray, queries: VectorArray, k: int
    ) -> Found:
        count = int(np.count_nonzero(chosen))
        fetch = k + _SPARE_CANDIDATES
        if count <= max(fetch, int(_GATHER_BELOW * len(vectors))):
            survivors = np.flatnonzero(chosen)
            vectors = vectors[survivors]
            found = self._among(vectors, None, queries, k, fetch)
            return [(survivors[positions], scores) for positions, scores in found]
        return self._among(vectors, None if count == len(vectors) else chosen, queries, k, fetch)

    def _among(
        self,
        vectors: Float32Array,
        chosen: BoolArray | None,
        queries: Float32Array,
        k: int,
        fetch: int,
    ) -> Found:
        """Scan for candidates and score them exactly; look again where rounding leaves doubt."""
        if len(vectors) <= fetch:  # only after gathering: everything is a candidate
            everything = np.arange(len(vectors), dtype=np.int64)
            return [self._exact(query, vectors, everything, k) for query in queries]
        scanned, proposed = self._scan(vectors, chosen, queries, fetch)
        found: Found = []
        for query, values, positions in zip(queries, scanned, proposed, strict=True):
            top = self._exact(query, vectors, positions, k)
            norm = float(np.linalg.norm(query.astype(np.float64)))
            limit = exact.still_possible(float(top[1][-1]), norm, self._scan_error, self._metric)
            unseen = values[-1] >= limit if self._metric == "cosine" else values[-1] <= limit
            if unseen:
                candidates = within(vectors, chosen, query, limit, self._metric)
                top = self._exact(query, vectors, candidates, k)
            found.append(top)
        return found

    def _exact(
        self, query: Float32Array, vectors: Float32Array, positions: Int64Array, k: int
    ) -> tuple[Int64Array, Float32Array]:
        values = exact.scores(query, vectors[positions], self._metric)
        return exact.best(positions, values, k, self._metric)

    def _scan(
        self,
        vectors: Float32Array,
        chosen: BoolArray | None,
        queries: Float32Array,
        fetch: int,
    ) -> tuple[Float32Array, Int64Array]:
        """Propose candidates as `scan` does; the place where another device comes in."""
        return scan(vectors, chosen, queries, fetch, self._metric)
