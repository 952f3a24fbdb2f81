"""Retrieval metrics over labelled vectors.

Every query ranks its whole database; a database item is relevant when it carries the query's
label. Items of the query's own patient are never in its database: they would be found by the
patient, not by the disease.

Similarity is the inner product. For unit vectors that is the cosine; for codes given as -1 and +1
it is ``B - 2 * Hamming distance`` and ranks as Hamming distance does.

Ties count against the system: among equally similar items the irrelevant ones come first. The
order of the database can then never flatter a metric, which matters for short hash codes and for
manifests sorted by class. (McSherry and Najork, ECIR 2008, show how far arbitrary order can move
a score.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.intp]

_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class LabelledVectors:
    """Vectors with what is known of them.

    Attributes
    ----------
    vectors : float [N, D]
        Unit vectors, or codes of -1 and +1.
    labels, patients : array of str [N]
        Class and patient of each vector.
    """

    vectors: FloatArray
    labels: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise ValueError(f"vectors must be [N, D], not {self.vectors.shape}")
        if not len(self.vectors) == len(self.labels) == len(self.patients):
            raise ValueError("vectors, labels and patients differ in length")


@dataclass(frozen=True)
class RetrievalScores:
    """Averages over the queries, or over the classes' averages.

    Attributes
    ----------
    mean_average_precision : float
        Over the full ranking: the mean of the precision at every relevant item.
    mean_reciprocal_rank : float
        Mean of 1 / rank of the first relevant item.
    precision, hit, recall, majority_vote : dict of int to float
        By cut-off k. Precision: relevant share of the first k (of all, where the database holds
        fewer). Hit: at least one relevant item. Recall: found share of the relevant items.
        Majority vote: the most frequent label of the first k is the query's; a draw goes to the
        label that appears first.
    average_precision : dict of str to float
        Mean average precision of each label's queries.
    queries, unanswerable : int
        Queries that count, and queries left out because nothing relevant was in their database.
    """

    mean_average_precision: float
    mean_reciprocal_rank: float
    precision: dict[int, float]
    hit: dict[int, float]
    recall: dict[int, float]
    majority_vote: dict[int, float]
    average_precision: dict[str, float]
    queries: int
    unanswerable: int


def retrieval_scores(
    queries: LabelledVectors,
    database: LabelledVectors,
    cutoffs: Sequence[int] = (1, 5, 10, 20),
    average: Literal["class", "query"] = "class",
) -> RetrievalScores:
    """Let every query rank the items of all other patients.

    Parameters
    ----------
    queries, database : LabelledVectors
        The same set twice is the unseen-database protocol: each image asks all images of other
        patients. Two sets are the usual query and gallery.
    cutoffs : sequence of int
        Values of k.
    average : {"class", "query"}
        ``class`` is the macro average: each label counts the same, however many queries it has.

    Raises
    ------
    ValueError
        If no query has a relevant item in its database.
    """
    names, numbers = np.unique(
        np.concatenate([queries.labels, database.labels]), return_inverse=True
    )
    query_numbers, database_numbers = np.split(numbers, [len(queries.labels)])
    rows = [
        _row(database_numbers[ranking], query_numbers[query], cutoffs)
        for query, ranking in _rankings(queries, database, query_numbers, database_numbers)
    ]
    table = np.array(rows).reshape(len(rows), 2 + 4 * len(cutoffs))
    answered = ~np.isnan(table[:, 0])
    if not answered.any():
        raise ValueError("no query has a relevant item of another patient in the database")
    table, answered_numbers = table[answered], query_numbers[answered]
    present = np.unique(answered_numbers)
    by_label = np.array([table[answered_numbers == number].mean(axis=0) for number in present])
    means = by_label.mean(axis=0) if average == "class" else table.mean(axis=0)
    at_k = [dict(zip(cutoffs, group.tolist(), strict=True)) for group in means[2:].reshape(4, -1)]
    return RetrievalScores(
        mean_average_precision=float(means[0]),
        mean_reciprocal_rank=float(means[1]),
        precision=at_k[0],
        hit=at_k[1],
        recall=at_k[2],
        majority_vote=at_k[3],
        average_precision=dict(zip(names[present].tolist(), by_label[:, 0].tolist(), strict=True)),
        queries=int(answered.sum()),
        unanswerable=int((~answered).sum()),
    )


def finding_scores(
    queries: LabelledVectors,
    query_findings: npt.NDArray[np.str_],
    database: LabelledVectors,
    database_findings: npt.NDArray[np.str_],
    cutoffs: Sequence[int] = (1, 5, 10, 20),
) -> dict[str, RetrievalScores]:
    """Judge findings within each class.

    Parameters
    ----------
    queries, database : LabelledVectors
        Their labels are the coarse classes. May be the same set, see `retrieval_scores`.
    query_findings, database_findings : array of str [N]
        Empty where unknown; such items neither ask nor answer.
    cutoffs : sequence of int
        Values of k.

    Returns
    -------
    dict of str to RetrievalScores
        For every class whose queries have at least two findings: they ask the database's items of
        their class. Averaged over queries, because a rare finding's few queries would make a mean
        over findings jump.
    """
    scores: dict[str, RetrievalScores] = {}
    for label in np.unique(queries.labels):
        asking = _with_findings(queries, query_findings, label)
        answering = _with_findings(database, database_findings, label)
        if len(np.unique(asking.labels)) > 1:
            scores[str(label)] = retrieval_scores(asking, answering, cutoffs, average="query")
    return scores


def _with_findings(
    items: LabelledVectors, findings: npt.NDArray[np.str_], label: str
) -> LabelledVectors:
    """Keep one class's items of known finding, labelled by their finding."""
    chosen = (items.labels == label) & (findings != "")
    return LabelledVectors(items.vectors[chosen], findings[chosen], items.patients[chosen])


def _rankings(
    queries: LabelledVectors,
    database: LabelledVectors,
    query_numbers: IntArray,
    database_numbers: IntArray,
) -> Iterator[tuple[int, IntArray]]:
    """Yield each query's database rows, best first, in chunks that bound the memory."""
    step = max(1, _CHUNK_CELLS // max(1, len(database.labels)))
    for start in range(0, len(queries.labels), step):
        similarities = queries.vectors[start : start + step] @ database.vectors.T
        for offset, similarity in enumerate(similarities):
            query = start + offset
            others = np.flatnonzero(database.patients != queries.patients[query])
            relevant = database_numbers[others] == query_numbers[query]
            yield query, others[np.lexsort((relevant, -similarity[others]))]


def _row(ranked: IntArray, label: int, cutoffs: Sequence[int]) -> FloatArray:
    """Average precision, reciprocal rank, then precision, hit, recall and vote at each k."""
    relevant = ranked == label
    positions = np.flatnonzero(relevant)
    if not len(positions):
        return np.full(2 + 4 * len(cutoffs), np.nan)
    found = np.arange(1, len(positions) + 1)
    at_k = [
        (
            relevant[:k].mean(),
            float(relevant[:k].any()),
            relevant[:k].sum() / len(positions),
            float(_vote(ranked[:k]) == label),
        )
        for k in cutoffs
    ]
    summary = [(found / (positions + 1)).mean(), 1 / (positions[0] + 1)]
    return np.concatenate([summary, np.array(at_k).T.ravel()])


def _vote(ranked: IntArray) -> int:
    names, first, counts = np.unique(ranked, return_index=True, return_counts=True)
    return int(names[np.lexsort((first, -counts))[0]])
