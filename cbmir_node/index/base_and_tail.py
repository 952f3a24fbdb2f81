"""What every index on the CPU is made of: an immutable base, a growing tail, and tombstones.

Changes take a lock; searches take none, they work on an immutable view of both parts.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from cbmir_node.index import exact
from cbmir_node.index.protocol import (
    BoolArray,
    Float32Array,
    Int64Array,
    Metric,
    Neighbours,
    VectorArray,
)
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import load_faiss

_QUERIES_AT_ONCE = 128
"""Bounds the memory of one matrix product's scores."""

Found = list[tuple[Int64Array, Float32Array]]


class BaseAndTail(ABC):
    """A `VectorIndex` but for the comparison itself, which a subclass brings.

    Parameters
    ----------
    dimension : int
        Length of the vectors, D; of codes, their bytes.
    metric : {"cosine", "euclidean", "hamming"}
    dtype : dtype
        Of the vectors.
    base : Rows, optional
        Rows of a snapshot, as `_prepared` makes them.

    Raises
    ------
    MissingPackageError
        FAISS is not installed.
    """

    def __init__(
        self, dimension: int, metric: Metric, dtype: npt.DTypeLike, base: Rows | None
    ) -> None:
        load_faiss()  # a missing package shows when the index opens, not at the first query
        self._dimension = dimension
        self._metric: Metric = metric
        self._dtype = dtype
        self._buffer = Rows.room(0, dimension, dtype)
        self._view = (self._buffer if base is None else base, self._buffer)
        self._highest = int(self._view[0].ids[-1]) if len(self._view[0]) else 0
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        """Length of the vectors, D; of codes, their bytes."""
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

    def add(self, ids: Int64Array, vectors: VectorArray) -> None:
        """Add vectors; see `VectorIndex.add`."""
        rows = self._prepared(vectors)
        keys = np.asarray(ids, dtype=np.int64)
        if keys.shape != (len(rows),):
            raise ValueError(f"{keys.size} ids for {len(rows)} vectors")
        if not len(keys):
            return
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
        queries: VectorArray,
        k: int,
        *,
        allowed: Int64Array | None = None,
        excluded: Int64Array | None = None,
    ) -> Neighbours:
        """Return the exact nearest neighbours; see `VectorIndex.search`."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        wanted = self._prepared(queries)
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

    def vectors(self, ids: Int64Array) -> VectorArray:
        """Return stored vectors; see `VectorIndex.vectors`."""
        keys = np.asarray(ids, dtype=np.int64)
        result = np.empty((len(keys), self._dimension), dtype=self._dtype)
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

    def _append(self, ids: Int64Array, vectors: VectorArray) -> None:
        """Write behind the tail's rows, where no running search looks, and show a longer view."""
        base, tail = self._view
        old, new = len(tail), len(tail) + len(ids)
        if new > len(self._buffer):
            room = max(new, 2 * len(self._buffer), 1024)
            buffer = Rows.room(room, self._dimension, self._dtype)
            buffer.ids[:old], buffer.vectors[:old] = tail.ids, tail.vectors
            self._buffer = buffer
        self._buffer.ids[old:new], self._buffer.vectors[old:new] = ids, vectors
        live = np.concatenate([tail.live, np.ones(len(ids), dtype=np.bool_)])
        self._view = (base, Rows(self._buffer.ids[:new], self._buffer.vectors[:new], live))

    @abstractmethod
    def _prepared(self, vectors: VectorArray) -> VectorArray:
        """Return vectors or queries [n, D] as they are stored and compared.

        Raises
        ------
        ValueError
            Their shape, type or values are unusable.
        """

    @abstractmethod
    def _nearest(
        self, vectors: VectorArray, chosen: BoolArray, queries: VectorArray, k: int
    ) -> Found:
        """Return positions and exact scores of the k best chosen rows for each query.

        Parameters
        ----------
        vectors : float32 [n, D] or uint8 [n, B / 8]
            All rows of a part.
        chosen : bool [n]
            Which of them are candidates.
        queries : float32 [M, D] or uint8 [M, B / 8]
        """
