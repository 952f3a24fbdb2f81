"""Ways to scan vectors for candidates in float32: FAISS kernels and blocked matrix products.

All work on plain arrays in place. That is what ``IndexFlat`` does inside and equally fast, but a
memory-mapped ``IndexFlat`` ends the process when a vector is added to it, and its file header
leaves the numbers unaligned for matrix products.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from cbmir_node.errors import MissingPackageError
from cbmir_node.index.protocol import BoolArray, Float32Array, Int64Array, Metric

_PRODUCT_FROM = 4
"""Queries from which on a blocked matrix product beats one FAISS pass per query."""

_BLOCK_ROWS = 65_536
"""Rows of one matrix product: 32 MiB of scores for 128 queries. Many small products are slower by
far where other processes keep the cores busy, because the threads of each must meet at its end."""


def load_faiss() -> ModuleType:
    """Import FAISS when it is first needed.

    Raises
    ------
    MissingPackageError
        Neither the CPU nor the GPU build is installed, or its libraries do not load.
    """
    try:
        import faiss  # noqa: PLC0415  (optional package)
    except ImportError as error:
        raise MissingPackageError(
            f"FAISS does not load ({error}): run pip install 'cbmir-node[cpu]', "
            "or 'cbmir-node[gpu]' on a machine with an NVIDIA GPU; never both"
        ) from error
    module: ModuleType = faiss
    return module


def faiss_on_one_thread() -> ModuleType:
    """Return FAISS, using one thread for calls from this thread.

    A scan is bound by memory and gains nothing from a second thread, but waits for it wherever
    another process has the core. Queries in parallel come from parallel callers.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(1)  # OpenMP keeps this number per calling thread
    return faiss


def scan(
    vectors: Float32Array,
    chosen: BoolArray | None,
    queries: Float32Array,
    fetch: int,
    metric: Metric,
) -> tuple[Float32Array, Int64Array]:
    """Return the best scanned scores and positions [M, fetch] of each query, best first.

    Parameters
    ----------
    vectors : float32 [n, D]
    chosen : bool [n], optional
        Rows that are candidates, at least `fetch` of them; all when absent.
    queries : float32 [M, D]
    fetch : int
        Candidates per query, at most n.

    Returns
    -------
    scores : float32 [M, fetch]
        Inner products, or *squared* distances.
    positions : int64 [M, fetch]
    """
    if len(queries) < _PRODUCT_FROM:
        return scan_by_kernel(vectors, chosen, queries, fetch, metric)
    return scan_by_product(vectors, chosen, queries, fetch, metric)


def scan_by_kernel(
    vectors: Float32Array,
    chosen: BoolArray | None,
    queries: Float32Array,
    fetch: int,
    metric: Metric,
) -> tuple[Float32Array, Int64Array]:
    """`scan` with one pass over the rows per query, in FAISS."""
    faiss = faiss_on_one_thread()
    pointer = faiss.swig_ptr
    values = np.empty((len(queries), fetch), dtype=np.float32)
    positions = np.empty((len(queries), fetch), dtype=np.int64)
    selector = None
    if chosen is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    shape = (vectors.shape[1], len(queries), len(vectors), fetch)
    data = (pointer(queries), pointer(vectors), *shape, pointer(values), pointer(positions))
    if metric == "cosine":
        faiss.knn_inner_product(*data, selector)
    else:
        faiss.knn_L2sqr(*data, None, selector)
    return values, positions


def scan_by_product(
    vectors: Float32Array,
    chosen: BoolArray | None,
    queries: Float32Array,
    fetch: int,
    metric: Metric,
) -> tuple[Float32Array, Int64Array]:
    """`scan` with all queries against a block of rows at a time, kept in FAISS heaps."""
    faiss = faiss_on_one_thread()
    cosine = metric == "cosine"
    heaps = faiss.ResultHeap(len(queries), fetch, keep_max=cosine)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        values = _products(block, queries, metric)
        if chosen is not None:
            values[:, ~chosen[start : start + _BLOCK_ROWS]] = -np.inf if cosine else np.inf
        heaps.heaps.addn(len(block), faiss.swig_ptr(values), start, 0, len(queries))
    heaps.finalize()
    return heaps.D, heaps.I


def within(
    vectors: Float32Array,
    chosen: BoolArray | None,
    query: Float32Array,
    limit: float,
    metric: Metric,
) -> Int64Array:
    """Return every chosen position whose scanned score for `query` [D] is not beyond `limit`."""
    found = []
    for start in range(0, len(vectors), _BLOCK_ROWS):
        values = _products(vectors[start : start + _BLOCK_ROWS], query[None], metric)[0]
        hits = values >= limit if metric == "cosine" else values <= limit
        if chosen is not None:
            hits &= chosen[start : start + _BLOCK_ROWS]
        found.append(np.flatnonzero(hits) + start)
    return np.concatenate(found)


def _products(block: Float32Array, queries: Float32Array, metric: Metric) -> Float32Array:
    """Return inner products or squared distances [M, b] of queries [M, D] and rows [b, D]."""
    products: Float32Array = queries @ block.T
    if metric == "euclidean":
        products *= -2
        products += np.einsum("ij,ij->i", block, block)
        products += np.einsum("ij,ij->i", queries, queries)[:, None]
    return products
