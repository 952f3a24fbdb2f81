"""Retrieval scores of labelled vectors in one call: what a training run watches.

Every query ranks its whole database; a database item is relevant when it carries the query's
label. Items of the query's own patient are never in its database: they would be found by the
patient, not by the disease.

Similarity is the inner product. For unit vectors that is the cosine; for codes given as -1 and +1
it is ``B - 2 * Hamming distance`` and ranks as Hamming distance does. Ties are scored by
expectation (`cbmir_node.evaluation.ties`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cbmir_node.evaluation.scores import METRICS, class_means, score

_QUERIES_AT_ONCE = 512


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

    vectors: npt.NDArray[np.floating]
    labels: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise ValueError(f"vectors must be [N, D], not {self.vectors.shape}")
        if not len(self.vectors) == len(self.labels) == len(self.patients):
            raise ValueError("vectors, labels and patients differ in length")


@dataclass(frozen=True)
class RetrievalScores:
    """Macro averages over the classes.

    Attributes
    ----------
    mean_average_precision : float
        Over the full ranking.
    metrics : dict of str to float
        By the names of `cbmir_node.evaluation.scores.METRICS`.
    classes : dict of str to dict
        The same of each class.
    queries, unanswerable : int
        Queries that count, and queries left out because nothing relevant was in their database.
    """

    mean_average_precision: float
    metrics: dict[str, float]
    classes: dict[str, dict[str, float]]
    queries: int
    unanswerable: int


def retrieval_scores(queries: LabelledVectors, database: LabelledVectors) -> RetrievalScores:
    """Let every query rank the items of all other patients.

    Parameters
    ----------
    queries, database : LabelledVectors
        The same set twice is the unseen-database protocol: each image asks all images of other
        patients. Two sets are the usual query and gallery.

    Raises
    ------
    ValueError
        If no query has a relevant item in its database.
    """
    _, numbers = np.unique(np.concatenate([queries.labels, database.labels]), return_inverse=True)
    asked, held = np.split(numbers, [len(queries.labels)])
    tables = []
    for start in range(0, len(queries.labels), _QUERIES_AT_ONCE):
        rows = slice(start, start + _QUERIES_AT_ONCE)
        similarity = (queries.vectors[rows] @ database.vectors.T).astype(np.float32)
        eligible = queries.patients[rows, None] != database.patients
        tables.append(score(similarity, eligible, asked[rows], held)[0])
    table = np.concatenate(tables)
    answered = ~np.isnan(table[:, 0])
    if not answered.any():
        raise ValueError("no query has a relevant item of another patient in the database")
    classes = class_means(queries.labels[answered], table[answered])
    means = np.mean(list(classes.values()), axis=0)
    return RetrievalScores(
        mean_average_precision=float(means[0]),
        metrics=dict(zip(METRICS, means.tolist(), strict=True)),
        classes={
            name: dict(zip(METRICS, row.tolist(), strict=True)) for name, row in classes.items()
        },
        queries=int(answered.sum()),
        unanswerable=int((~answered).sum()),
    )
