"""Scores that do not depend on how the candidates were found.

A fast scan in float32 rounds differently from kernel to kernel, so that two equal vectors may get
unequal scores. Every back end therefore only proposes candidates; here they are scored in float64
and ordered, which makes results and ties the same on every machine.
"""

from __future__ import annotations

import numpy as np

from cbmir_node.index.protocol import (
    NO_NEIGHBOUR,
    BoolArray,
    Float32Array,
    Int64Array,
    Metric,
    Neighbours,
)

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding in float32 (IEEE 754 binary32)."""

LARGEST_VALUE = 1e15
"""Values beyond are refused: their squares leave the range of float32."""

_CHUNK = 4096


def checked(vectors: Float32Array, dimension: int) -> Float32Array:
    """Return `vectors` as contiguous float32 [n, dimension].

    Raises
    ------
    ValueError
        Another shape, or values that are not finite or beyond `LARGEST_VALUE`.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(f"vectors must be [n, {dimension}], not {list(rows.shape)}")
    if not bool(np.all(usable(rows))):
        raise ValueError(f"vectors must be finite and within ±{LARGEST_VALUE:g}")
    return rows


def usable(vectors: Float32Array) -> BoolArray:
    """Return which of `vectors` [n, D] are finite and not beyond `LARGEST_VALUE`."""
    return np.asarray(np.all(np.abs(vectors) <= LARGEST_VALUE, axis=1))  # false for NaN as well


def unit_length(vectors: Float32Array) -> Float32Array:
    """Return `vectors` [n, D] divided by their Euclidean norms; zero vectors stay zero."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.sum(wide * wide, axis=1, keepdims=True))
    return np.asarray(wide / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def scores(query: Float32Array, vectors: Float32Array, metric: Metric) -> Float32Array:
    """Return the scores [n] of `vectors` [n, D] for one query [D], summed in float64."""
    wide = query.astype(np.float64)
    result = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _CHUNK):
        rows = vectors[start : start + _CHUNK].astype(np.float64)
        # One sum per row, and not a matrix product, whose rounding depends on the row's place.
        if metric == "cosine":
            chunk = np.clip(np.sum(rows * wide, axis=1), -1.0, 1.0)
        else:
            difference = rows - wide
            chunk = np.sqrt(np.sum(difference * difference, axis=1))
        result[start : start + _CHUNK] = chunk
    return result


def best(
    keys: Int64Array, values: Float32Array, k: int, metric: Metric
) -> tuple[Int64Array, Float32Array]:
    """Return the `k` best of `keys` with their scores, best first, equal scores by key."""
    order = np.lexsort((keys, -values if metric == "cosine" else values))[:k]
    return keys[order], values[order]


def still_possible(kth: float, query_norm: float, relative_error: float, metric: Metric) -> float:
    """Return the scanned score from which on a vector may belong to the k best.

    Parameters
    ----------
    kth : float
        Exact score of the k-th best candidate so far.
    query_norm : float
        Euclidean norm of the query.
    relative_error : float
        Bound e of the scan: a scanned inner product of x and y is off by at most e‖x‖‖y‖
        (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).

    Returns
    -------
    float
        A cosine, or a *squared* distance. Vectors scanned as worse are out. For the distance the
        triangle inequality bounds the unknown vector's norm by that of the query plus `kth`.
    """
    # Twice the roundoff on top: exact scores are rounded to float32 before they are compared.
    error = relative_error + 2 * UNIT_ROUNDOFF
    if metric == "cosine":
        return kth - error
    smallest = float(np.finfo(np.float32).tiny)  # squares below it lose their digits
    return kth * kth + error * (2 * query_norm + kth) ** 2 + smallest


def merged(
    parts: list[list[tuple[Int64Array, Float32Array]]], queries: int, k: int, metric: Metric
) -> Neighbours:
    """Combine the ids and scores found per part and query into one padded answer."""
    ids = np.full((queries, k), NO_NEIGHBOUR, dtype=np.int64)
    worst = -np.inf if metric == "cosine" else np.inf
    values = np.full((queries, k), worst, dtype=np.float32)
    for row in range(queries if parts else 0):
        found_ids = np.concatenate([part[row][0] for part in parts])
        found_values = np.concatenate([part[row][1] for part in parts])
        top_ids, top_values = best(found_ids, found_values, k, metric)
        ids[row, : len(top_ids)] = top_ids
        values[row, : len(top_ids)] = top_values
    return Neighbours(ids, values)
