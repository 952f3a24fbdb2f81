"""How alike two groups of images are, and the order that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cbmir_node.index import UInt8Array, VectorArray
from cbmir_node.search.query import Float32Array, Method

Int64Array = npt.NDArray[np.int64]


def similarity_from_score(scores: Float32Array, method: Method, bits: int = 0) -> Float32Array:
    """Map an index's scores to similarities in [0, 1], higher is more alike.

    ``cosine``: ``(1 + cos) / 2``. ``euclidean``: ``1 / (1 + distance)``. ``hamming``: the share of
    bits that agree, ``1 - distance / bits``.
    """
    if method == "hamming":  # divided in float64: 1 - 2 / 40 is then the float32 nearest to 0.95
        return np.clip(1 - scores.astype(np.float64) / bits, 0, 1).astype(np.float32)
    if method == "cosine":
        return np.clip((1 + scores) / 2, 0, 1).astype(np.float32)
    return (1 / (1 + np.maximum(scores, 0))).astype(np.float32)


def pairwise_similarity(
    queries: VectorArray, candidates: VectorArray, method: Method
) -> Float32Array:
    """Return the similarity of every query to every candidate, float32 [M, N].

    Parameters
    ----------
    queries, candidates : float32 [M, D] and [N, D], or uint8 [M, B / 8] and [N, B / 8]
        Codes with ``hamming``, else vectors.
    """
    if method == "hamming":
        agreement = _signs(queries) @ _signs(candidates).T  # whole numbers: exact in float32
        bits = 8 * queries.shape[1]
        return similarity_from_score((bits - agreement) / 2, method, bits)
    if method == "cosine":
        return similarity_from_score(_unit(queries) @ _unit(candidates).T, method)
    squared = (
        (queries**2).sum(axis=1)[:, None]
        + (candidates**2).sum(axis=1)[None, :]
        - 2 * (queries @ candidates.T)
    )
    return similarity_from_score(np.sqrt(np.maximum(squared, 0)), method)


def _signs(codes: UInt8Array) -> Float32Array:
    """Return the bits of codes [n, B / 8] as 1 and -1, float32 [n, B]."""
    return 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1


def _unit(vectors: Float32Array) -> Float32Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


@dataclass(frozen=True)
class GroupScores:
    """Candidate groups (studies, series or instances) against one example.

    Attributes
    ----------
    groups : int64 [G]
        Row numbers, ascending.
    similarity : float32 [G]
    best : int64 [G]
        Position of the group's image that is most like the example.
    best_similarity : float32 [G]
        How much that is.
    """

    groups: Int64Array
    similarity: Float32Array
    best: Int64Array
    best_similarity: Float32Array


def score_groups(similarities: Float32Array, groups: Int64Array, *, mutual: bool) -> GroupScores:
    """Score candidate groups of images against one example.

    Parameters
    ----------
    similarities : float32 [M, N]
        Of the example's M images to the N candidate images.
    groups : int64 [N]
        Which group each candidate image belongs to.
    mutual : bool
        ``False``: a group is as similar as its best pair of images. ``True``: the mean of two
        means, that of each example image's best match in the group and that of each of the
        group's images' best match in the example. The first alone would grow with the number of
        images a study has; the second holds it down, so that size does not win.
    """
    order = np.argsort(groups, kind="stable")
    unique, starts = np.unique(groups[order], return_index=True)
    by_candidate = similarities.max(axis=0)[order]
    closest = np.maximum.reduceat(by_candidate, starts)
    if mutual:
        counts = np.diff(np.append(starts, len(order)))
        forward = np.maximum.reduceat(similarities[:, order], starts, axis=1).mean(axis=0)
        backward = np.add.reduceat(by_candidate, starts) / counts
        similarity = ((forward + backward) / 2).astype(np.float32)
    else:
        similarity = closest
    best = order[np.lexsort((-by_candidate, groups[order]))[starts]]
    return GroupScores(unique, similarity, best, closest)


def spread(groups: Int64Array, most: int) -> Int64Array:
    """Choose at most `most` members of each group, evenly spread over its order.

    Returns
    -------
    int64 [K]
        Chosen positions, ascending.
    """
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    size = np.repeat(sizes, sizes)
    place = np.arange(len(groups)) - np.repeat(starts, sizes)
    # the middles of `most` equal parts, floor((i + 1/2) size / most): is `place` that of some i?
    part = -(-2 * most * place // np.maximum(size, 1)) // 2
    taken = (size <= most) | ((2 * part + 1) * size // (2 * most) == place)
    return np.sort(order[taken]).astype(np.int64)


def rank(similarity: Float32Array, rows: Int64Array) -> Int64Array:
    """Return positions best first; equal similarities in the order of their rows."""
    return np.lexsort((rows, -similarity)).astype(np.int64)
