"""What every vector index offers, whichever library or machine does the work."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
VectorArray = npt.NDArray[Any]
"""float32 [n, D], or uint8 [n, B / 8] where hash codes of B bits are compared."""

FloatMetric = Literal["cosine", "euclidean"]
Metric = Literal["cosine", "euclidean", "hamming"]

NO_NEIGHBOUR = -1
"""Id that fills up `Neighbours.ids` where there are fewer than k neighbours."""


class Neighbours(NamedTuple):
    """The k nearest vectors of M queries, best first; equal scores by ascending id.

    Attributes
    ----------
    ids : int64 [M, k]
        `NO_NEIGHBOUR` where there are fewer than k.
    scores : float32 [M, k]
        ``cosine``: the cosine in [-1, 1], higher is better, -inf where there is no neighbour.
        ``euclidean``: the distance (not squared), lower is better, +inf where there is none.
        ``hamming``: the number of bits that differ, lower is better, +inf where there is none.
    """

    ids: Int64Array
    scores: Float32Array


class VectorIndex(Protocol):
    """Nearest neighbours among the vectors of one space under one metric.

    Ids are the catalogue's row numbers: positive, ascending and never used again. All methods may
    be called from several threads; a search sees the additions and removals that had returned
    before it began. With ``cosine`` vectors and queries are brought to unit length; a zero vector
    stays zero and has score 0. With ``hamming`` they are codes, eight bits to a byte.
    """

    @property
    def dimension(self) -> int:
        """Length of the vectors, D; of codes, their bytes."""

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""

    def add(self, ids: Int64Array, vectors: VectorArray) -> None:
        """Add `vectors` [n, D] under `ids` [n].

        Raises
        ------
        ValueError
            The ids are not strictly ascending and above every id added before, or the vectors
            have another shape or values that are not finite. Nothing is added then.
        """

    def remove(self, ids: Int64Array) -> None:
        """Take `ids` out of every later search; ids that are not there are ignored."""

    def search(
        self,
        queries: VectorArray,
        k: int,
        *,
        allowed: Int64Array | None = None,
        excluded: Int64Array | None = None,
    ) -> Neighbours:
        """Return the exact `k` nearest neighbours of each query.

        Parameters
        ----------
        queries : float32 [M, D] or uint8 [M, B / 8]
        k : int
            Neighbours per query, at least 1.
        allowed : int64 array, optional
            Only these ids are candidates; an empty array allows none.
        excluded : int64 array, optional
            These ids are no candidates.

        Raises
        ------
        ValueError
            `k` or the queries' shape or values are unusable.
        """

    def vectors(self, ids: Int64Array) -> VectorArray:
        """Return the vectors [n, D] of `ids` as stored (unit length for ``cosine``).

        Raises
        ------
        KeyError
            An id is not in the index.
        """

    def holds(self, ids: Int64Array) -> BoolArray:
        """Return which of `ids` [n] are searched."""

    def ids(self) -> Int64Array:
        """Return the ids that are searched, ascending."""

    def __len__(self) -> int:
        """Return the number of vectors that are searched."""
