"""Queries with their first answers, the worst first: what the figures look like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import Items
from cbmir_node.evaluation.protocols import Protocol, Task
from cbmir_node.evaluation.scores import QueryScores
from cbmir_node.evaluation.systems import by_space

ANSWERS = 10
MOST = 24
MOST_OF_A_CLASS = 3


@dataclass(frozen=True)
class SheetRow:
    """One query and what it found; numbers are positions among the items.

    Attributes
    ----------
    answers : list of (int, bool)
        Position, and whether it is what was asked for.
    """

    task: Task
    query: int
    average_precision: float
    answers: list[tuple[int, bool]]


def worst_queries(
    scores: QueryScores, task: Task, source: Source, protocol: Protocol, items: Items
) -> list[SheetRow]:
    """Return the worst queries under the plain ranking, the worst first.

    Queries that rank everything right are not among them.
    """
    mean_ap = np.where(scores.answerable, scores.values[:, 0], 1.0)
    shown: list[SheetRow] = []
    taken: Counter[str] = Counter()
    for row in np.argsort(mean_ap, kind="stable"):
        label = str(scores.classes[row])
        if len(shown) == MOST or mean_ap[row] >= 1:
            break
        if taken[label] < MOST_OF_A_CLASS:
            taken[label] += 1
            query = int(scores.queries[row])
            answers = _answers(query, task, source, protocol, items)
            shown.append(SheetRow(task, query, float(mean_ap[row]), answers))
    return shown


def _answers(
    query: int, task: Task, source: Source, protocol: Protocol, items: Items
) -> list[tuple[int, bool]]:
    candidates = protocol.database
    eligible = items.patients[candidates] != items.patients[query]
    right = items.labels[candidates] == items.labels[query]
    if task != "coarse":
        eligible &= right & (items.findings[candidates] != "")
        right = items.findings[candidates] == items.findings[query]
    similarity = by_space("cosine")(
        source.outputs.take(np.array([query])), source.outputs.take(candidates), eligible[None]
    )[0]
    order = np.argsort(-np.where(eligible, similarity, -np.inf), kind="stable")[:ANSWERS]
    return [(int(candidates[place]), bool(right[place])) for place in order if eligible[place]]
