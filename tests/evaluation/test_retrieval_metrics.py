"""Retrieval metrics against values worked out by hand."""

import numpy as np
import pytest

from cbmir_node.evaluation import metrics
from cbmir_node.evaluation.metrics import LabelledVectors, finding_scores, retrieval_scores


def items(cosines_or_vectors, labels, patients=None):
    vectors = np.asarray(cosines_or_vectors, dtype=np.float32)
    if vectors.ndim == 1:  # unit vectors at these cosines to (1, 0)
        vectors = np.stack([vectors, np.sqrt(1 - vectors**2)], axis=1)
    names = patients or [f"{labels[i]}-{i}-{len(labels)}" for i in range(len(labels))]
    return LabelledVectors(vectors, np.array(labels), np.array(names))


def test_one_query_worked_by_hand():
    # Ranking: a b a b b a; relevant at ranks 1, 3 and 6.
    query = items([[1, 0]], ["a"], ["q"])
    database = items([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], list("ababba"))
    scores = retrieval_scores(query, database, cutoffs=(1, 2, 5, 10))
    assert scores.mean_average_precision == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert scores.mean_reciprocal_rank == 1
    assert scores.precision == pytest.approx({1: 1, 2: 1 / 2, 5: 2 / 5, 10: 3 / 6})
    assert scores.recall == pytest.approx({1: 1 / 3, 2: 1 / 3, 5: 2 / 3, 10: 1})
    assert scores.hit == {1: 1, 2: 1, 5: 1, 10: 1}
    # k = 2 is a draw that goes to the label seen first; at 10 it is 3 : 3 and again a.
    assert scores.majority_vote == {1: 1, 2: 1, 5: 0, 10: 1}


def test_reciprocal_rank_and_hit_when_the_first_answer_is_wrong():
    scores = retrieval_scores(
        items([[1, 0]], ["a"], ["q"]), items([0.9, 0.8, 0.7], list("bba")), cutoffs=(2, 3)
    )
    assert scores.mean_reciprocal_rank == pytest.approx(1 / 3)
    assert scores.hit == {2: 0, 3: 1}


def test_images_of_the_query_patient_are_not_in_its_database():
    # Without the exclusion each image would find itself and its sibling first.
    everything = items([0.1, 0.1, 0.9, 0.9], ["a", "a", "b", "a"], ["p1", "p1", "p2", "p3"])
    scores = retrieval_scores(everything, everything, cutoffs=(1,))
    # p1's two images: ranking b, a (a tie, which counts against). p3: b first, then a a.
    # b's only image has nothing relevant elsewhere and is left out.
    assert scores.queries == 3
    assert scores.unanswerable == 1
    assert scores.average_precision == pytest.approx(
        {"a": (1 / 2 + 1 / 2 + (1 / 2 + 2 / 3) / 2) / 3}
    )


@pytest.mark.parametrize("labels", ["aab", "baa", "aba"])
def test_ties_count_against_whatever_the_order_of_the_database(labels):
    scores = retrieval_scores(
        items([[1, 0]], ["a"], ["q"]), items([0.5, 0.5, 0.5], list(labels)), cutoffs=(1,)
    )
    assert scores.mean_average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.precision == {1: 0}


def test_macro_average_counts_classes_and_micro_counts_queries():
    # Three queries of a answer perfectly, one of b finds its item last of two.
    queries = items([[1, 0], [1, 0], [1, 0], [1, 0]], list("aaab"), ["q"] * 4)
    database = items([0.9, 0.1], list("ab"))
    macro = retrieval_scores(queries, database, cutoffs=(1,))
    micro = retrieval_scores(queries, database, cutoffs=(1,), average="query")
    assert macro.mean_average_precision == pytest.approx((1 + 1 / 2) / 2)
    assert micro.mean_average_precision == pytest.approx((1 + 1 + 1 + 1 / 2) / 4)
    assert macro.precision[1] == pytest.approx(1 / 2)
    assert micro.precision[1] == pytest.approx(3 / 4)


def test_signed_codes_rank_by_hamming_distance():
    query = items([[1, 1, 1, 1]], ["a"], ["q"])
    database = items([[1, 1, -1, -1], [1, 1, 1, -1], [-1, -1, -1, -1]], ["b", "a", "a"])
    scores = retrieval_scores(query, database, cutoffs=(1,))
    assert scores.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_chunks_do_not_change_the_result(monkeypatch):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8))
    everything = items(vectors, random.choice(list("abc"), 60).tolist())
    whole = retrieval_scores(everything, everything)
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", 7 * 60)
    assert retrieval_scores(everything, everything) == whole


def test_random_vectors_score_the_share_of_the_class():
    random = np.random.default_rng(1)
    everything = items(random.normal(size=(600, 16)), ["a", "b", "c"] * 200)
    scores = retrieval_scores(everything, everything)
    assert scores.mean_average_precision == pytest.approx(1 / 3, abs=0.02)
    assert scores.precision[10] == pytest.approx(1 / 3, abs=0.02)


def test_findings_are_judged_within_their_class():
    # The nearest item of every query is of the other class, with the same finding's name: a
    # ranking that crossed classes would be perfect, or would be scored on unknown findings.
    everything = items(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0.9, 0.1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        ["knee", "knee", "knee", "chest", "chest", "head"],
    )
    findings = np.array(["ill", "well", "well", "ill", "", "ill"])
    scores = finding_scores(everything, findings, everything, findings, cutoffs=(1,))
    assert list(scores) == ["knee"]  # chest has one known finding, head has one
    # "ill" has no partner. Both "well" rank the other: (0,1) sees .1 before 0, the third item
    # sees "ill" (.9) before "well" (.1).
    assert scores["knee"].queries == 2
    assert scores["knee"].unanswerable == 1
    assert scores["knee"].mean_average_precision == pytest.approx((1 + 1 / 2) / 2)


def test_nothing_to_find_is_an_error():
    alone = items([0.1, 0.2], ["a", "b"])
    with pytest.raises(ValueError, match="no query has a relevant item"):
        retrieval_scores(alone, alone)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="differ in length"):
        LabelledVectors(np.zeros((2, 3)), np.array(["a"]), np.array(["p", "q"]))
