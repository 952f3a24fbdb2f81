"""Scores of labelled vectors, as a training run asks for them."""

from __future__ import annotations

import numpy as np
import pytest

from cbmir_node.evaluation import metrics
from cbmir_node.evaluation.metrics import LabelledVectors, retrieval_scores


def items(cosines_or_vectors, labels, patients=None) -> LabelledVectors:
    vectors = np.asarray(cosines_or_vectors, dtype=np.float32)
    if vectors.ndim == 1:  # unit vectors at these cosines to (1, 0)
        vectors = np.stack([vectors, np.sqrt(1 - vectors**2)], axis=1)
    names = patients or [f"{labels[i]}-{i}-{len(labels)}" for i in range(len(labels))]
    return LabelledVectors(vectors, np.array(labels), np.array(names))


def test_images_of_the_query_patient_are_not_in_its_database() -> None:
    # Without the exclusion each image would find itself and its sibling first.
    everything = items([0.1, 0.1, 0.9, 0.9], ["a", "a", "b", "a"], ["p1", "p1", "p2", "p3"])
    scores = retrieval_scores(everything, everything)
    # p1's two images: b and a tie for the first place. p3: b first, then a a.
    # b's only image has nothing relevant elsewhere and is left out.
    assert (scores.queries, scores.unanswerable) == (3, 1)
    p1, p3 = (1 + 1 / 2) / 2, (1 / 2 + 2 / 3) / 2
    assert scores.classes["a"]["mAP"] == pytest.approx((p1 + p1 + p3) / 3)


def test_every_class_counts_the_same() -> None:
    # Three queries of a answer perfectly, one of b finds its item last of two.
    queries = items([[1, 0], [1, 0], [1, 0], [1, 0]], list("aaab"), ["q"] * 4)
    scores = retrieval_scores(queries, items([0.9, 0.1], list("ab")))
    assert scores.mean_average_precision == pytest.approx((1 + 1 / 2) / 2)
    assert scores.metrics["P@1"] == pytest.approx(1 / 2)


def test_signed_codes_rank_by_hamming_distance() -> None:
    query = items([[1, 1, 1, 1]], ["a"], ["q"])
    database = items([[1, 1, -1, -1], [1, 1, 1, -1], [-1, -1, -1, -1]], ["b", "a", "a"])
    scores = retrieval_scores(query, database)
    assert scores.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8))
    everything = items(vectors, random.choice(list("abc"), 60).tolist())
    whole = retrieval_scores(everything, everything)
    monkeypatch.setattr(metrics, "_QUERIES_AT_ONCE", 7)
    assert retrieval_scores(everything, everything).metrics == pytest.approx(whole.metrics)


def test_random_vectors_score_the_share_of_the_class() -> None:
    random = np.random.default_rng(1)
    everything = items(random.normal(size=(600, 16)), ["a", "b", "c"] * 200)
    scores = retrieval_scores(everything, everything)
    assert scores.mean_average_precision == pytest.approx(1 / 3, abs=0.02)
    assert scores.metrics["P@10"] == pytest.approx(1 / 3, abs=0.02)


def test_nothing_to_find_is_an_error() -> None:
    alone = items([0.1, 0.2], ["a", "b"])
    with pytest.raises(ValueError, match="no query has a relevant item"):
        retrieval_scores(alone, alone)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        LabelledVectors(np.zeros((2, 3)), np.array(["a"]), np.array(["p", "q"]))
