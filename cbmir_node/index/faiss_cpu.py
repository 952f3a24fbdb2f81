"""Exact search on the CPU: FAISS proposes candidates, `exact` scores and orders them."""

from __future__ import annotations

import threading

import numpy as np

from cbmir_node.index import exact
from cbmir_node.index.protocol import BoolArray, Float32Array, Int64Array, Metric, Neighbours
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import load_faiss, scan, within

_SPARE_CANDIDATES = 32
"""Scanned beyond k, so that rounding at the k-th place seldom asks for a second look."""

_GATHER_BELOW = 0.02
"""Share of the rows up to which the survivors of a filter are copied out and scanned alone."""

_QUERIES_AT_ONCE = 128
"""Bounds the memory of one matrix product's scores."""

Found = list[tuple[Int64Array, Float32Array]]


class FlatIndex:
    """Exact `VectorIndex` on the CPU: an immutable base, a growing tail, and tombstones.

    Changes take a lock; searches take none, they work on an immutable view of both parts.

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

    def __init__(self, dimension: int, metric: Metric, base: Rows | None = None) -> None:
        load_faiss()  # a missing package shows when the index opens, not at the first query
        self._dimension = dimension
        self._metric: Metric = metric
        self._buffer = Rows.empty(dimension)
        self._view = (self._buffer if base is None else base, self._buffer)
        self._highest = int(self._view[0].ids[-1]) if len(self._view[0]) else 0
        self._lock = threading.Lock()
        self._scan_error = (dimension + 8) * exact.UNIT_ROUNDOFF

    @property
    def dimension(self) -> int:
        """Length of the vectors, D."""
        return self._dimension

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return self._metric

    @property
    def parts(self) -> tuple[Rows, Rows]:
        """Base and tail as they are now; later changes do not show in them."""
        return self._view

    @property
    def unsaved(self) -> int:
        """Number of rows in the tail and of tombstones in the base: what a snapshot would fold."""
        base, tail = self._view
        return len(tail) + base.dead

    def add(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Add vectors; see `VectorIndex.add`."""
        rows = exact.checked(vectors, self._dimension)
        keys = np.asarray(ids, dtype=np.int64)
        if keys.shape != (len(rows),):
            raise ValueError(f"{keys.size} ids for {len(rows)} vectors")
        if not len(keys):
            return
        if self._metric == "cosine":
            rows = exact.unit_length(rows)
        with self._lock:
            if keys[0] <= self._highest or np.any(np.diff(keys) <= 0):
                raise ValueError(f"ids must ascend strictly from above {self._highest}")
            self._append(keys, rows)
            self._highest = int(keys[-1])

    def remove(self, ids: Int64Array) -> None:
        """Mark vectors as removed; see `VectorIndex.remove`."""
        keys = np.asarray(ids, dtype=np.int64)
        with self._lock:
            base, tail = self._view
            self._view = (base.without(keys), tail.without(keys))

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        allowed: Int64Array | None = None,
        excluded: Int64Array | None = None,
    ) -> Neighbours:
        """Return the exact nearest neighbours; see `VectorIndex.search`."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        wanted = exact.checked(queries, self._dimension)
        if self._metric == "cosine":
            wanted = exact.unit_length(wanted)
        found: list[Found] = []
        for part in self._view:
            chosen = part.selected(allowed, excluded)
            found.append(
                [
                    (part.ids[positions], scores)
                    for start in range(0, len(wanted), _QUERIES_AT_ONCE)
                    for positions, scores in self._nearest(
                        part.vectors, chosen, wanted[start : start + _QUERIES_AT_ONCE], k
                    )
                ]
            )
        return exact.merged(found, len(wanted), k, self._metric)

    def vectors(self, ids: Int64Array) -> Float32Array:
        """Return stored vectors; see `VectorIndex.vectors`."""
        keys = np.asarray(ids, dtype=np.int64)
        result = np.empty((len(keys), self._dimension), dtype=np.float32)
        missing = np.ones(len(keys), dtype=np.bool_)
        for part in self._view:
            places = part.positions(keys)
            here = places >= 0
            result[here] = part.vectors[places[here]]
            missing &= ~here
        if np.any(missing):
            raise KeyError(f"no vector with id {keys[missing][0]} in the index")
        return result

    def holds(self, ids: Int64Array) -> BoolArray:
        """Return which ids are searched; see `VectorIndex.holds`."""
        keys = np.asarray(ids, dtype=np.int64)
        base, tail = self._view
        return np.asarray((base.positions(keys) >= 0) | (tail.positions(keys) >= 0))

    def ids(self) -> Int64Array:
        """Return the live ids, ascending."""
        return np.concatenate([part.ids[part.live] for part in self._view])

    def __len__(self) -> int:
        """Return the number of live vectors."""
        return sum(len(part) - part.dead for part in self._view)

    def _append(self, ids: Int64Array, vectors: Float32Array) -> None:
        """Write behind the tail's rows, where no running search looks, and show a longer view."""
        base, tail = self._view
        old, new = len(tail), len(tail) + len(ids)
        if new > len(self._buffer):
            room = max(new, 2 * len(self._buffer), 1024)
            buffer = Rows.of(
                np.empty(room, np.int64), np.empty((room, self._dimension), np.float32)
            )
            buffer.ids[:old], buffer.vectors[:old] = tail.ids, tail.vectors
            self._buffer = buffer
        self._buffer.ids[old:new], self._buffer.vectors[old:new] = ids, vectors
        live = np.concatenate([tail.live, np.ones(len(ids), dtype=np.bool_)])
        self._view = (base, Rows(self._buffer.ids[:new], self._buffer.vectors[:new], live))

    def _nearest(
        self, vectors: Float32Array, chosen: BoolArray, queries: Float32Array, k: int
    ) -> Found:
        """Return positions and exact scores of the k best chosen rows for each query."""
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
