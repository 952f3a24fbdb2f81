"""Closed forms against the mean over every order of the tied items, and against scikit-learn."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cbmir_node.evaluation.scores import METRICS, score
from cbmir_node.evaluation.ties import TiedRankings

LEFT_OUT = -np.inf


def ranked(similarity, relevant):
    return TiedRankings(np.array([similarity], dtype=np.float32), np.array([relevant], dtype=bool))


def every_order(similarity):
    """Yield each ranking that a sort may return; what is left out is in none."""
    values = sorted({value for value in similarity if value > LEFT_OUT}, reverse=True)
    groups = [[i for i, v in enumerate(similarity) if v == value] for value in values]
    for parts in product(*(permutations(group) for group in groups)):
        yield [index for part in parts for index in part]


def by_hand(order, relevant, k):
    """Return the metrics of one strict ranking from their definitions."""
    wanted = sum(relevant)
    places = [place for place, index in enumerate(order, start=1) if relevant[index]]
    precisions = [(number / place, place) for number, place in enumerate(places, start=1)]
    found = sum(place <= k for place in places)
    return {
        "AP": sum(p for p, _ in precisions) / wanted,
        "AP@k": sum(p for p, place in precisions if place <= k) / min(k, wanted),
        "found": found,
        "hit": float(found > 0),
        "RR": 1 / places[0] if places else 0.0,
    }


CASES = [
    # similarity, relevant
    ([3, 2, 2, 2, 1, 1], [0, 1, 0, 1, 1, 0]),
    ([1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]),
    ([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
    ([2, 2, 2, 1, 1, 1], [0, 0, 0, 1, 0, 1]),
    ([4, 3, 3, 2, 2, 2, 1], [1, 0, 1, 0, 1, 0, 1]),
    ([6, 5, 4, 3, 2, 1], [0, 1, 0, 0, 1, 1]),
    ([2, 2, LEFT_OUT, 1, 1, LEFT_OUT], [1, 0, 1, 1, 0, 0]),
    ([2, 2, LEFT_OUT], [0, 0, 1]),
]


@pytest.mark.parametrize(("similarity", "relevant"), CASES)
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_closed_forms_are_means_over_all_orders(similarity, relevant, k) -> None:
    orders = [by_hand(order, relevant, k) for order in every_order(similarity)]
    expected = {name: np.mean([one[name] for one in orders]) for name in orders[0]}
    rankings = ranked(similarity, relevant)
    assert rankings.average_precision()[0] == pytest.approx(expected["AP"])
    assert rankings.average_precision_at(k)[0] == pytest.approx(expected["AP@k"])
    assert rankings.found_at(k)[0] == pytest.approx(expected["found"])
    assert rankings.hit_at(k)[0] == pytest.approx(expected["hit"])
    assert rankings.reciprocal_rank()[0] == pytest.approx(expected["RR"])


def test_large_groups_stay_finite() -> None:
    relevant = np.zeros(5000, dtype=bool)
    relevant[:2000] = True
    rankings = ranked(np.zeros(5000), relevant)
    assert rankings.average_precision()[0] == pytest.approx(0.4, abs=1e-3)
    assert rankings.hit_at(20)[0] == pytest.approx(1 - 0.6**20, rel=1e-4)
    # a draw with chance .4: the mean of 1 / place is -.4 ln .4 / .6
    assert rankings.reciprocal_rank()[0] == pytest.approx(-0.4 * np.log(0.4) / 0.6, rel=1e-3)


def test_strict_rankings_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    similarity = random.permutation(200).reshape(2, 100).astype(np.float32)
    relevant = random.random((2, 100)) < 0.2
    rankings = TiedRankings(similarity, relevant)
    for row in range(2):
        expected = average_precision_score(relevant[row], similarity[row])
        assert rankings.average_precision()[row] == pytest.approx(expected)


def metrics(similarity, labels, asked=0, eligible=None):
    names = np.array(labels)
    allowed = np.ones((1, len(names)), dtype=bool) if eligible is None else np.array([eligible])
    values, _ = score(np.array([similarity], dtype=np.float32), allowed, np.array([asked]), names)
    return dict(zip(METRICS, values[0].tolist(), strict=True))


def test_one_query_worked_by_hand() -> None:
    # Ranking: a b a b b a; relevant at ranks 1, 3 and 6.
    found = metrics([9, 8, 7, 6, 5, 4], [0, 1, 0, 1, 1, 0])
    assert found["mAP"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert found["mAP@20"] == pytest.approx(found["mAP"])
    assert found["MRR"] == 1
    # of all, where the database holds fewer than k
    assert [found[f"P@{k}"] for k in (1, 5, 10)] == pytest.approx([1, 2 / 5, 3 / 6])
    assert [found[f"recall@{k}"] for k in (1, 5, 10)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [found[f"hit@{k}"] for k in (1, 5, 10)] == [1, 1, 1]
    # P = 2/5, R = 2/3
    assert found["F1@5"] == pytest.approx(2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3))
    assert found["vote@10"] == 1  # 3 : 3 goes to the class that comes first


def test_what_a_system_leaves_out_is_not_found_but_missed() -> None:
    found = metrics([3, LEFT_OUT, 1, LEFT_OUT], [0, 0, 1, 1])
    assert found["mAP"] == pytest.approx(1 / 2)
    assert found["recall@20"] == pytest.approx(1 / 2)
    assert found["P@5"] == pytest.approx(1 / 4)
    assert found["vote@10"] == 1  # 1 : 1, and left-out images do not vote


def test_what_a_query_may_not_find_is_not_missed() -> None:
    found = metrics([3, 2, 1], [0, 0, 1], eligible=[False, True, True])
    assert found["mAP"] == found["recall@5"] == 1
    assert found["P@5"] == pytest.approx(1 / 2)


def test_the_answer_does_not_depend_on_the_order_of_the_database() -> None:
    random = np.random.default_rng(3)
    similarity = random.integers(0, 4, 40).astype(np.float32)
    labels = random.integers(0, 3, 40)
    shuffled = random.permutation(40)
    assert metrics(similarity, labels) == pytest.approx(
        metrics(similarity[shuffled], labels[shuffled])
    )


def test_votes_of_tied_images_share_the_places_that_are_left() -> None:
    # nine of class 1 first, then a tie of three: the tenth vote is a third each
    rankings = ranked([2] * 9 + [1] * 3, [1] * 12)
    votes = rankings.votes(10, np.array([1] * 9 + [0, 0, 2]), 3)
    assert votes[0] == pytest.approx([2 / 3, 9, 1 / 3], abs=1e-6)


def test_interpolated_precision() -> None:
    # relevant at ranks 1 and 4: precision 1 up to recall 1/2, then 2/4
    curve = ranked([4, 3, 2, 1], [1, 0, 0, 1]).interpolated_precision(np.array([0, 0.5, 0.51, 1]))
    assert curve[0] == pytest.approx([1, 1, 0.5, 0.5])
    # the second one is left out: its recall is never reached
    curve = ranked([4, LEFT_OUT], [1, 1]).interpolated_precision(np.array([0.5, 1]))
    assert curve[0] == pytest.approx([1, 0])
