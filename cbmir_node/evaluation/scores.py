"""One row of metrics per query: what averages, intervals and tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbmir_node.evaluation.items import BoolArray, Float32Array, Float64Array, IntArray, StrArray
from cbmir_node.evaluation.ties import TiedRankings

CUTOFFS = (1, 5, 10, 20)
VOTERS = 10
RECALL_LEVELS: Float64Array = np.linspace(0, 1, 101)

METRICS = (
    "mAP",
    "mAP@20",
    "MRR",
    *(f"{name}@{k}" for name in ("P", "hit", "recall", "F1") for k in CUTOFFS),
    f"vote@{VOTERS}",
)
"""Columns of `QueryScores`; docs/evaluation.md defines them."""

_CELLS_AT_ONCE = 200_000
"""Small enough for a processor's cache: every step goes through all of it."""


@dataclass(frozen=True)
class QueryScores:
    """Metrics of Q queries, NaN where nothing relevant could be found.

    Attributes
    ----------
    queries : int [Q]
        Position of each query among the items.
    classes, patients : array of str [Q]
        Coarse class and patient of each query.
    values : float64 [Q, len(METRICS)]
    precision : float64 [Q, len(RECALL_LEVELS)] or None
        Interpolated precision at each recall, where it was asked for.
    """

    queries: IntArray
    classes: StrArray
    patients: StrArray
    values: Float64Array
    precision: Float64Array | None = None

    @property
    def answerable(self) -> BoolArray:
        """Which queries count [Q]."""
        return np.asarray(~np.isnan(self.values[:, 0]))


def score(
    similarity: Float32Array,
    eligible: BoolArray,
    query_names: IntArray,
    names: IntArray,
    *,
    curves: bool = False,
) -> tuple[Float64Array, Float64Array | None]:
    """Score M queries that rank the same N candidates.

    Parameters
    ----------
    similarity : float32 [M, N]
        Higher is more alike, -inf where a system leaves a candidate out.
    eligible : bool [M, N]
        What the protocol lets a query find; the rest is in no ranking and not missed.
    query_names, names : int [M], [N]
        A candidate is relevant when it has the query's name; names also vote.
    curves : bool
        Compute the interpolated precision too.

    Returns
    -------
    values : float64 [M, len(METRICS)]
    precision : float64 [M, len(RECALL_LEVELS)] or None
    """
    unique, numbers = np.unique(np.concatenate([query_names, names]), return_inverse=True)
    asked, held = np.split(numbers.astype(np.intp), [len(query_names)])
    step = max(1, _CELLS_AT_ONCE // max(1, len(names)))
    values = np.full((len(query_names), len(METRICS)), np.nan)
    precision = np.full((len(query_names), len(RECALL_LEVELS)), np.nan) if curves else None
    for start in range(0, len(query_names) if len(names) else 0, step):
        rows = slice(start, start + step)
        relevant = (held == asked[rows, None]) & eligible[rows]
        rankings = TiedRankings(np.where(eligible[rows], similarity[rows], -np.inf), relevant)
        votes = rankings.votes(VOTERS, held, len(unique))
        values[rows] = _table(rankings, eligible[rows].sum(axis=1), votes, asked[rows])
        if precision is not None:
            precision[rows] = rankings.interpolated_precision(RECALL_LEVELS)
    return values, precision


def _table(
    rankings: TiedRankings, database: IntArray, votes: Float64Array, classes: IntArray
) -> Float64Array:
    """Return the columns of `METRICS` side by side."""
    wanted = np.maximum(rankings.wanted, 1)
    found = {k: rankings.found_at(k) for k in CUTOFFS}
    columns = [
        rankings.average_precision(),
        rankings.average_precision_at(20),
        rankings.reciprocal_rank(),
        # of all, where the database holds fewer; what a system left out still counts as not found
        *(found[k] / np.maximum(np.minimum(k, database), 1) for k in CUTOFFS),
        *(rankings.hit_at(k) for k in CUTOFFS),
        *(found[k] / wanted for k in CUTOFFS),
        # 2 P R / (P + R) with P = found / k and R = found / wanted
        *(2 * found[k] / (k + wanted) for k in CUTOFFS),
        _right_votes(votes, classes),
    ]
    table = np.stack(columns, axis=1)
    table[rankings.wanted == 0] = np.nan
    return table


def _right_votes(votes: Float64Array, classes: IntArray) -> Float64Array:
    """Return 1 where the query's class wins the vote, shared where classes are level."""
    winners = votes >= votes.max(axis=1, keepdims=True) - 1e-12
    right = winners[np.arange(len(classes)), classes]
    return np.asarray(right / winners.sum(axis=1))


def class_means(classes: StrArray, values: Float64Array) -> Mapping[str, Float64Array]:
    """Return the mean row of each class, in alphabetical order."""
    return {str(name): values[classes == name].mean(axis=0) for name in np.unique(classes)}
