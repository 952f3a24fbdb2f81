"""Exact search among hash codes.

Distances of codes are whole numbers, so the scan itself is exact and ties are plain to see: FAISS
counts the differing bits of every row, and the rows up to the k-th distance are the answer. That
respects filters and the order of ties by construction; ``IndexBinaryFlat`` and ``knn_hamming`` cost
about as much and promise no order. A GPU would gain nothing: 100,000 codes of 128 bits, 1.6 MB, are
scanned in a tenth of a millisecond.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbmir_node.index.base_and_tail import BaseAndTail, Found
from cbmir_node.index.protocol import BoolArray, Int64Array, UInt8Array, VectorArray
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import faiss_on_one_thread

_GATHER_BELOW = 0.3
"""Share of the rows up to which the survivors of a filter are copied out and scanned alone."""

Int32Array = npt.NDArray[np.int32]


class HammingIndex(BaseAndTail):
    """Exact `VectorIndex` over codes, uint8 [n, B / 8]; see `BaseAndTail` for the rest.

    Parameters
    ----------
    code_bytes : int
        Length of a code, B / 8.
    base : Rows, optional
        Rows of a snapshot.
    """

    def __init__(self, code_bytes: int, base: Rows | None = None) -> None:
        super().__init__(code_bytes, "hamming", np.uint8, base)

    def _prepared(self, vectors: VectorArray) -> UInt8Array:
        codes = np.ascontiguousarray(vectors)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self._dimension:
            raise ValueError(
                f"codes must be vectors of uint8 [n, {self._dimension}], "
                f"not {codes.dtype} {list(codes.shape)}"
            )
        return codes

    def _nearest(
        self, vectors: VectorArray, chosen: BoolArray, queries: VectorArray, k: int
    ) -> Found:
        count = int(np.count_nonzero(chosen))
        if count < _GATHER_BELOW * len(vectors):
            survivors = np.flatnonzero(chosen)
            codes = vectors[survivors]
            found = [_smallest(distances(query, codes), k) for query in queries]
            return [(survivors[positions], scores) for positions, scores in found]
        hidden = np.flatnonzero(~chosen)
        beyond = 8 * self._dimension + 1
        result: Found = []
        for query in queries:
            values = distances(query, vectors)
            values[hidden] = beyond
            result.append(_smallest(values, min(k, count)))
        return result


def distances(query: UInt8Array, codes: UInt8Array) -> Int32Array:
    """Return the number of bits [n] in which `codes` [n, B / 8] differ from `query` [B / 8]."""
    faiss = faiss_on_one_thread()
    pointer = faiss.swig_ptr
    result = np.empty(len(codes), dtype=np.int32)
    if len(codes):
        faiss.hammings(
            pointer(query), pointer(codes), 1, len(codes), codes.shape[1], pointer(result)
        )
    return result


def _smallest(values: Int32Array, k: int) -> tuple[Int64Array, npt.NDArray[np.float32]]:
    """Return positions and values of the `k` smallest, ascending, equal ones by position."""
    if 0 < k < len(values):
        positions = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    else:
        positions = np.arange(min(k, 1) * len(values), dtype=np.int64)
    order = positions[np.argsort(values[positions], kind="stable")[:k]]
    return order, values[order].astype(np.float32)
