"""Relevance feedback, simulated: a user who knows the findings marks the first answers.

Within each class whose findings are judged, every query is answered; the simulated user marks the
first answers as right or wrong by their finding, and asks again with the marks as positive and
negative examples. What was marked would flatter the second ranking, so both rankings are judged on
what is left (the residual collection of Chang, Cirillo and Razon, in Salton, The SMART Retrieval
System, 1971): without the marked images, and without all other images of their patients, so that
no gain comes from recognising a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cbmir_node.evaluation.bootstrap import PatientBootstrap, intervals
from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import (
    BoolArray,
    CodedItems,
    Float32Array,
    Float64Array,
    IntArray,
    Items,
)
from cbmir_node.evaluation.protocols import Protocol
from cbmir_node.evaluation.result import Feedback, FeedbackRound
from cbmir_node.evaluation.scores import METRICS, score
from cbmir_node.evaluation.systems import PLAIN
from cbmir_node.index import VectorArray
from cbmir_node.search.feedback import fused_similarity, similarity_to_positive
from cbmir_node.search.query import Method
from cbmir_node.search.ranking import pairwise_similarity

ROUNDS = 2
MARKED = 10
"""Answers that are marked in a round."""
QUERIES_OF_A_CLASS = 200
"""Queries of a class at most, evenly spread over it: bounds the time."""

_PRECISION = METRICS.index("P@10")


def simulate(
    source: Source, protocol: Protocol, items: Items, judged: Sequence[str]
) -> list[Feedback]:
    """Return what feedback brings with a model's cosine ranking, and with its codes if it has any.

    Parameters
    ----------
    source : Source
    protocol : Protocol
        U: queries and database are the same images.
    items : Items
        Of everything.
    judged : sequence of str
        Classes whose findings are judged.
    """
    if not judged:
        return []
    compared: list[tuple[str, Method, VectorArray]] = [
        (PLAIN, "cosine", source.outputs.spaces["embedding"])
    ]
    codes = source.outputs.codes
    if codes is not None and not source.baseline:
        compared.append((f"hamming, {8 * codes.shape[1]} bits", "hamming", codes))
    found = []
    for system, method, vectors in compared:
        rounds: list[list[_Scores]] = [[] for _ in range(1 + ROUNDS)]
        for positions in _classes(protocol.database, items, judged):
            for scores, listed in zip(
                _scored_rounds(vectors, method, items, positions), rounds, strict=True
            ):
                listed.append(scores)
        figures = [_averaged(number, scores, items) for number, scores in enumerate(rounds)]
        left = [figure for figure in figures if figure is not None]
        if len(left) > 1:
            found.append(Feedback(f"{source.name}: {system}", left))
    return found


@dataclass(frozen=True)
class _Scores:
    """P@10 of the plain and the refined ranking, float64 [Q, 2], of the queries at `positions`."""

    positions: IntArray
    values: Float64Array


def _classes(database: IntArray, items: Items, judged: Sequence[str]) -> Iterator[IntArray]:
    """Yield the images of each judged class whose finding is known."""
    for label in judged:
        mine = (items.labels[database] == label) & (items.findings[database] != "")
        yield database[mine]


def _scored_rounds(
    vectors: VectorArray, method: Method, items: Items, positions: IntArray
) -> Iterator[_Scores]:
    """Yield the scores of the rounds of one class, whose images ask each other."""
    spread = np.linspace(0, len(positions) - 1, min(len(positions), QUERIES_OF_A_CLASS))
    asking = np.unique(spread.round().astype(np.intp))
    own = items.coded.take(positions)
    for plain, refined, eligible in _rounds(vectors[positions], method, own, asking):
        values = [
            score(ranking, eligible, own.finding[asking], own.finding)[0][:, _PRECISION]
            for ranking in (plain, refined)
        ]
        yield _Scores(positions[asking], np.stack(values, axis=1))


def _rounds(
    vectors: VectorArray, method: Method, own: CodedItems, asking: IntArray
) -> Iterator[tuple[Float32Array, Float32Array, BoolArray]]:
    """Yield plain and refined similarity and what is left to be found, each [Q, N].

    Round 0 is the plain ranking twice.
    """
    similarity = pairwise_similarity(vectors[asking], vectors, method)
    eligible = own.patient[asking][:, None] != own.patient
    right = own.finding[asking][:, None] == own.finding
    refined, marked = similarity, np.zeros_like(eligible)
    for number in range(1 + ROUNDS):
        if number:
            order = np.argsort(np.where(eligible, -refined, np.inf), axis=1, kind="stable")
            first = np.zeros_like(eligible)
            np.put_along_axis(first, order[:, :MARKED], values=True, axis=1)
            marked |= first & eligible
            eligible = eligible & ~_of_marked_patients(own.patient, marked)
            refined = np.zeros_like(similarity)
            for place, query in enumerate(asking):
                left, good = eligible[place], right[place]
                positive = [query, *np.flatnonzero(marked[place] & good)]
                negative = np.flatnonzero(marked[place] & ~good)
                refined[place, left] = fused_similarity(
                    similarity_to_positive(
                        pairwise_similarity(vectors[positive], vectors[left], method)
                    ),
                    pairwise_similarity(vectors[negative], vectors[left], method),
                )
        yield similarity, refined, eligible


def _of_marked_patients(patients: IntArray, marked: BoolArray) -> BoolArray:
    """Return which images [Q, N] are of patients of whom an image was marked."""
    return np.stack([np.isin(patients, patients[row]) for row in marked])


def _averaged(number: int, parts: Sequence[_Scores], items: Items) -> FeedbackRound | None:
    """Average a round's queries over the classes; ``None`` where nothing is left to be found."""
    positions = np.concatenate([part.positions for part in parts])
    values = np.concatenate([part.values for part in parts])
    answerable = ~np.isnan(values).any(axis=1)
    if not answerable.any():
        return None
    positions, values = positions[answerable], values[answerable]
    resample = PatientBootstrap(items.labels[positions], items.patients[positions])
    gain = values[:, 1] - values[:, 0]
    figures = intervals(resample.macro(np.column_stack([values, gain])))
    return FeedbackRound(number, number * MARKED, len(positions), *figures)
