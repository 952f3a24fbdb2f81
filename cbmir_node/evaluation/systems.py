"""The ways to rank that a model's outputs allow: rows of the table.

Each is a choice of the product's one retrieval pipeline (docs/retrieval.md). A ranking over the
whole database is asked for here, so similarities come from the product's functions directly and
not through an index, which would order the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cbmir_node.evaluation.items import BoolArray, Float32Array, Outputs
from cbmir_node.search.query import Method
from cbmir_node.search.ranking import pairwise_similarity

RERANKED = 200
"""Images nearest by code that are put in order by their embeddings."""

PLAIN = "cosine"
"""The system that the options of the same model are compared with."""

Ranker = Callable[[Outputs, Outputs, BoolArray], Float32Array]
"""Queries [M], database [N] and which of it each query may find [M, N] → similarity [M, N].

Higher is more alike; -inf for what the system leaves out.
"""

_SEED = 0


@dataclass(frozen=True)
class System:
    """A way to rank.

    Attributes
    ----------
    name : str
    rank : Ranker
    changed : str
        Change of the query pictures, empty for none.
    same_tags : bool
        Candidates share Modality and BodyPartExamined with the query, which on labelled pictures
        are the class: findings only.
    """

    name: str
    rank: Ranker
    changed: str = ""
    same_tags: bool = False


def systems_of(outputs: Outputs, trusted_probability: float, *, findings: bool) -> list[System]:
    """Return every system that these outputs allow, the plain one first.

    Parameters
    ----------
    outputs : Outputs
    trusted_probability : float
        ``search.trusted_probability``.
    findings : bool
        Whether there are findings to rank within the same tags.
    """
    systems = [System(PLAIN, by_space("cosine")), System("euclidean", by_space("euclidean"))]
    for space in outputs.spaces:
        if space != "embedding":
            systems += [
                System(f"{space}, {method}", by_space(method, space))
                for method in ("cosine", "euclidean")
            ]
    if outputs.codes is not None:
        bits = 8 * outputs.codes.shape[1]
        systems += [
            System(f"hamming, {bits} bits", hamming),
            System(f"hamming, best {RERANKED} by cosine", reranked),
            System(f"hamming, random projection to {bits} bits", random_projection(outputs)),
        ]
    if outputs.predicted is not None:
        systems += [
            System("by class, every prediction trusted", partial(by_class, trusted=0.0)),
            System(
                f"by class, trusted from {trusted_probability:g}",
                partial(by_class, trusted=trusted_probability),
            ),
        ]
    if findings:
        systems.append(System("cosine, same tags", by_space("cosine"), same_tags=True))
    return systems


def by_space(method: Method, space: str = "embedding") -> Ranker:
    """Rank by one of the model's vector spaces."""

    def rank(queries: Outputs, database: Outputs, eligible: BoolArray) -> Float32Array:
        return pairwise_similarity(queries.spaces[space], database.spaces[space], method)

    return rank


def hamming(queries: Outputs, database: Outputs, eligible: BoolArray) -> Float32Array:
    """Rank by the share of equal bits."""
    assert queries.codes is not None  # noqa: S101  (asked only of models with codes)
    assert database.codes is not None  # noqa: S101
    return pairwise_similarity(queries.codes, database.codes, "hamming")


def reranked(queries: Outputs, database: Outputs, eligible: BoolArray) -> Float32Array:
    """Rank the images nearest by code by their cosine, the rest behind them by code.

    Codes that tie at the last place are taken in the order of the database, as an index does.
    """
    similarity = hamming(queries, database, eligible)
    order = np.argsort(np.where(eligible, -similarity, np.inf), axis=1, kind="stable")
    nearest = order[:, :RERANKED]
    exact = by_space("cosine")(queries, database, eligible)
    ahead = 2 + np.take_along_axis(exact, nearest, axis=1)
    np.put_along_axis(similarity, nearest, ahead, axis=1)
    return similarity


def random_projection(outputs: Outputs) -> Ranker:
    """Rank by the signs of as many random projections of the embedding as the code has bits."""
    assert outputs.codes is not None  # noqa: S101  (asked only of models with codes)
    shape = (outputs.spaces["embedding"].shape[1], 8 * outputs.codes.shape[1])
    projection = np.random.default_rng(_SEED).standard_normal(shape, dtype=np.float32)

    def codes(items: Outputs) -> npt.NDArray[np.uint8]:
        return np.packbits(items.spaces["embedding"] @ projection > 0, axis=1)

    def rank(queries: Outputs, database: Outputs, eligible: BoolArray) -> Float32Array:
        return pairwise_similarity(codes(queries), codes(database), "hamming")

    return rank


def by_class(
    queries: Outputs, database: Outputs, eligible: BoolArray, trusted: float
) -> Float32Array:
    """Rank by cosine, without candidates that are trusted to be of another class.

    A prediction is trusted from the probability `trusted` on; both sides must be.
    """
    similarity = by_space("cosine")(queries, database, eligible)
    sides = []
    for side in (queries, database):
        assert side.predicted is not None  # noqa: S101  (asked only of models with classes)
        assert side.probability is not None  # noqa: S101
        sides.append((side.predicted, side.probability >= trusted))
    (asked, sure), (candidates, certain) = sides
    other = (asked[:, None] != candidates) & sure[:, None] & certain
    return np.where(other, np.float32(-np.inf), similarity)
