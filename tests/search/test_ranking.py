"""The arithmetic of similarity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmir_node.search.query import Method
from cbmir_node.search.ranking import (
    pairwise_similarity,
    rank,
    score_groups,
    similarity_from_score,
    spread,
)

RANDOM = np.random.default_rng(7)


def unit(rows: int, dimension: int = 16) -> np.ndarray:
    vectors = RANDOM.standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["cosine", "euclidean"])
def test_similarity_is_one_for_the_same_and_falls_with_distance(method: Method) -> None:
    query = np.asarray([[1, 0]], np.float32)
    candidates = np.asarray([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    (similarity,) = pairwise_similarity(query, candidates, method)
    assert similarity[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(similarity) < 0).all()
    assert similarity.min() >= 0


def test_cosine_ignores_length_and_euclidean_does_not() -> None:
    query, longer = np.asarray([[1, 1]], np.float32), np.asarray([[5, 5]], np.float32)
    assert pairwise_similarity(query, longer, "cosine") == pytest.approx(1)
    assert pairwise_similarity(query, longer, "euclidean") == pytest.approx(1 / (1 + np.sqrt(32)))
    zero = np.zeros((1, 2), np.float32)
    assert pairwise_similarity(query, zero, "cosine") == pytest.approx(0.5)


def test_a_share_of_bits_is_as_near_as_float32_comes() -> None:
    for size in (1, 3, 5, 6, 15, 64):
        bits = 8 * size
        query = np.zeros((1, size), np.uint8)
        for distance in range(bits + 1):
            code = np.packbits(np.arange(bits) < distance)[None]
            exact = np.float32(1 - distance / bits)
            assert pairwise_similarity(query, code, "hamming") == exact
            assert similarity_from_score(np.float32([distance]), "hamming", bits) == exact


def test_scores_of_the_index_map_like_pairs_do() -> None:
    assert similarity_from_score(np.float32([1, 0, -1, -np.inf]), "cosine").tolist() == [
        1,
        0.5,
        0,
        0,
    ]
    assert similarity_from_score(np.float32([0, 1, np.inf]), "euclidean").tolist() == [1, 0.5, 0]
    assert similarity_from_score(np.float32([0, 4, 16, np.inf]), "hamming", bits=16).tolist() == [
        1,
        0.75,
        0,
        0,
    ]


def test_codes_are_as_alike_as_the_share_of_bits_that_agree() -> None:
    queries = RANDOM.integers(0, 256, (3, 9), dtype=np.uint8)
    candidates = np.concatenate([queries, ~queries, RANDOM.integers(0, 256, (5, 9), np.uint8)])
    differing = np.unpackbits(queries[:, None] ^ candidates[None], axis=2).sum(axis=2)
    similarity = pairwise_similarity(queries, candidates, "hamming")
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity, 1 - differing / 72, rtol=1e-6)
    # equal distances stay equal, or ties would be broken by rounding
    assert len(np.unique(similarity)) == len(np.unique(differing))


def test_a_single_pair_scores_its_similarity() -> None:
    similarities = np.asarray([[0.8]], np.float32)
    for mutual in (True, False):
        scores = score_groups(similarities, np.asarray([4]), mutual=mutual)
        assert scores.groups.tolist() == [4]
        assert scores.similarity == pytest.approx(0.8)
        assert scores.best.tolist() == [0]


def test_mutual_score_by_hand() -> None:
    # two example images; group 1 has images 0 and 2, group 2 has image 1
    similarities = np.asarray([[0.9, 0.5, 0.1], [0.2, 0.6, 0.7]], np.float32)
    scores = score_groups(similarities, np.asarray([1, 2, 1]), mutual=True)
    forward_1, backward_1 = (0.9 + 0.7) / 2, (0.9 + 0.7) / 2
    forward_2, backward_2 = (0.5 + 0.6) / 2, 0.6
    assert scores.similarity.tolist() == pytest.approx(
        [(forward_1 + backward_1) / 2, (forward_2 + backward_2) / 2]
    )
    assert scores.best.tolist() == [0, 1]
    single = score_groups(similarities, np.asarray([1, 2, 1]), mutual=False)
    assert single.similarity.tolist() == pytest.approx([0.9, 0.6])


def test_a_large_study_does_not_win_by_its_size() -> None:
    """2,000 unrelated slices contain a near match by chance; a small alike study still wins."""
    example = unit(1)
    alike = example + 0.35 * unit(3)
    crowd = unit(2000)
    candidates = np.concatenate([alike, crowd]).astype(np.float32)
    groups = np.asarray([1] * len(alike) + [2] * len(crowd))
    similarities = pairwise_similarity(example, candidates, "cosine")
    by_best_pair = score_groups(similarities, groups, mutual=False).similarity
    mutual = score_groups(similarities, groups, mutual=True).similarity
    assert mutual[0] > mutual[1] + 0.1
    # and the crowd gains by the best pair what the mean takes away again
    assert by_best_pair[1] - mutual[1] > 0.1


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 7))
def test_spread_takes_evenly_and_at_most(groups: list[int], most: int) -> None:
    array = np.asarray(groups, dtype=np.int64)
    chosen = spread(array, most)
    assert (np.diff(chosen) > 0).all()
    for group in set(groups):
        members = np.flatnonzero(array == group)
        taken = [position for position in chosen if array[position] == group]
        assert len(taken) == min(most, len(members))
        gaps = np.diff([int(np.flatnonzero(members == position)[0]) for position in taken])
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_equal_similarities_keep_the_order_of_receipt() -> None:
    similarity = np.asarray([0.5, 0.9, 0.5, 0.9], np.float32)
    assert rank(similarity, np.asarray([9, 8, 3, 2])).tolist() == [3, 1, 2, 0]
