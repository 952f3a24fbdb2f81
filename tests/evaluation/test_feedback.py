"""The simulated user: what it marks, what is judged afterwards, and that it helps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cbmir_node.evaluation import feedback
from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import Float32Array, Items, Outputs
from cbmir_node.evaluation.protocols import Protocol

CLASS, OF_EACH = "CT_HEAD", 60


def collection() -> tuple[Items, Source, Float32Array]:
    """Return images whose finding is a weak direction among strong ones that say nothing."""
    random = np.random.default_rng(0)
    number = 2 * OF_EACH
    findings = np.array(["ill", "well"] * OF_EACH)
    vectors = random.standard_normal((number, 12), dtype=np.float32)
    vectors[:, 0] = np.where(findings == "ill", 1.2, -1.2) + vectors[:, 0] / 4
    names = np.array([f"P{index // 4}{findings[index]}" for index in range(number)])
    items = Items(np.full(number, CLASS), findings, names, names)
    return items, Source("tiny", Outputs({"embedding": vectors})), vectors


def test_two_rounds_of_marks_raise_the_precision() -> None:
    items, source, _ = collection()
    everything = np.arange(len(items))
    (found,) = feedback.simulate(source, Protocol("U", everything, everything), items, [CLASS])
    assert found.name == "tiny: cosine"
    assert [(one.round, one.marked) for one in found.rounds] == [(0, 0), (1, 10), (2, 20)]
    start, *rounds = found.rounds
    assert start.queries == len(items)
    assert start.gain.value == 0
    assert all(one.gain.low > 0 for one in rounds)
    assert all(
        one.gain.value == pytest.approx(one.refined.value - one.plain.value) for one in rounds
    )
    assert feedback.simulate(source, Protocol("U", everything, everything), items, []) == []


def test_marked_images_and_their_patients_are_in_neither_ranking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feedback, "MARKED", 3)
    items, _, vectors = collection()
    own = items.coded
    asking = np.array([0, 7])
    rounds = list(feedback._rounds(vectors, "cosine", own, asking))
    assert len(rounds) == 1 + feedback.ROUNDS
    for row, query in enumerate(asking):
        left = own.patient != own.patient[query]
        for (_, ranking, eligible), (_, _, after) in itertools.pairwise(rounds):
            assert np.array_equal(eligible[row], left)
            first = np.argsort(np.where(left, -ranking[row], np.inf), kind="stable")[:3]
            left = left & ~np.isin(own.patient, own.patient[first])
            assert not after[row][first].any()
    plain = [similarity for similarity, _, _ in rounds]
    assert all(np.array_equal(one, plain[0]) for one in plain)
