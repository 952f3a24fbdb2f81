"""Marked answers: which way the ranking turns, and what is no answer any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.errors import NotEmbeddedError, QueryError, UnknownExampleError
from cbmir_node.search.examples import EXAMPLE_IMAGES, images_of_each
from cbmir_node.search.feedback import (
    NEAR,
    NEGATIVE_WEIGHT,
    fused_similarity,
    similarity_to_positive,
)
from cbmir_node.search.query import (
    MAX_EXAMPLES,
    Example,
    Method,
    SimilarityLevel,
    SimilarityQuery,
)
from cbmir_node.search.ranking import pairwise_similarity
from tests.catalog.test_catalog import record, store
from tests.search.test_similarity_search import Archive

KEPT = np.array([0.9, 0.8, 0.7, 0.2], np.float32)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Put studies at angles into a catalogue; one database is enough, the rule is no SQL."""
    catalog: Catalog = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", create=True)
    return Archive(catalog, tmp_path / "index")


def studies(*uids: str) -> list[Example]:
    return [Example("STUDY", uid) for uid in uids]


def test_one_example_alone_changes_nothing_at_all() -> None:
    fused = fused_similarity(similarity_to_positive([KEPT]))
    assert (fused.dtype, fused.tobytes()) == (np.float32, KEPT.tobytes())
    several = similarity_to_positive([KEPT, KEPT[::-1]])
    assert np.array_equal(several, np.mean([KEPT, KEPT[::-1]], axis=0))


def test_the_mean_of_the_positive_pulls_and_that_of_the_negative_pushes() -> None:
    random = np.random.default_rng(0)
    towards, negative = random.random(200, np.float32), random.random((5, 200), np.float32)
    near = towards >= NEAR * towards.max()
    fused = fused_similarity(towards, negative)
    rocchio = towards - NEGATIVE_WEIGHT * negative.mean(axis=0)
    assert np.array_equal(np.argsort(fused[near]), np.argsort(rocchio[near]))
    # of what is far the negative examples change nothing, and none of it comes before what is near
    assert np.array_equal(np.argsort(fused[~near]), np.argsort(towards[~near]))
    assert fused[~near].max() < fused[near].min()
    assert 0 <= fused.min() < fused.max() <= 1
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert fused_similarity(one, zero[None]).item() == 1
    assert fused_similarity(zero, one[None]).item() == 0
    assert fused_similarity(np.empty(0, np.float32), np.empty((1, 0), np.float32)).shape == (0,)


def kinds() -> tuple[np.ndarray, np.ndarray]:
    """Return 40 vectors of 8 kinds: four anatomies, each in two kinds that look alike."""
    random = np.random.default_rng(0)
    kind = np.repeat(np.arange(8), 5)
    vectors = 0.12 * random.standard_normal((40, 16), dtype=np.float32)
    vectors[np.arange(40), kind // 2] += 1
    vectors[np.arange(40), 8 + kind] += 0.3
    return vectors, kind


@pytest.mark.parametrize("method", ["cosine", "euclidean"])
def test_a_mark_brings_up_nothing_unrelated_in_a_small_archive(method: Method) -> None:
    vectors, kind = kinds()
    similarity = pairwise_similarity(vectors, vectors, method)
    overtaken = 0
    for query in range(40):
        order = np.argsort(-similarity[query])[1:]
        # one that is all but the query, then all that was first
        for marked in (order[:1], order[:6]):
            left = np.setdiff1d(order, marked)
            towards, negative = similarity[query, left], similarity[np.ix_(marked, left)]
            related = kind[left] // 2 == kind[query] // 2
            first = np.argsort(-fused_similarity(towards, negative))[: min(5, related.sum())]
            assert related[first].all()
            overtaken += not related[np.argsort(negative.mean(axis=0) - towards)[:5]].all()
    assert overtaken  # subtracted everywhere, the marks do bring it up


def test_answers_turn_towards_the_positive_and_away_from_the_negative(archive: Archive) -> None:
    for study, angle in {"1.1": 0, "1.2": 20, "1.3": -21, "1.4": 40, "1.5": -40}.items():
        archive.add(study, angle)
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.2", "1.3", "1.4", "1.5"]
    assert [uid for uid, _ in archive.ask("1.1", "1.5")] == ["1.3", "1.2", "1.4"]
    orders = {"cosine": ["1.5", "1.3", "1.2"], "euclidean": ["1.3", "1.2", "1.5"]}
    for method, order in orders.items():
        answers = archive.ask("1.1", negative_examples=studies("1.4"), method=method)
        assert [uid for uid, _ in answers] == order
        values = [value for _, value in answers]
        assert values == sorted(values, reverse=True)
        assert 0 <= min(values) <= max(values) <= 1


def test_the_similarity_to_the_examples_is_told_and_limited(archive: Archive) -> None:
    for study, angle in {"1.1": 0, "1.2": 20, "1.3": -21, "1.4": 40}.items():
        archive.add(study, angle)

    def told(**query: Any) -> list[tuple[str, float, float]]:
        matches = archive.search.answer(SimilarityQuery(studies("1.1"), **query)).matches
        return [
            (m.matched_sop_instance_uid[:3], m.similarity, m.similarity_to_examples)
            for m in matches
        ]

    plain = told()
    assert all(fused == alone for _, fused, alone in plain)
    alone = {uid: value for uid, _, value in plain}
    refined = told(negative_examples=studies("1.4"))
    assert [(uid, value) for uid, _, value in refined] == [
        ("1.3", alone["1.3"]),
        ("1.2", alone["1.2"]),
    ]
    assert all(fused < value for _, fused, value in refined)
    limited = told(negative_examples=studies("1.4"), minimum_similarity=alone["1.2"])
    assert [uid for uid, *_ in limited] == ["1.2"]


def test_negative_examples_turn_hash_codes_too(archive: Archive) -> None:
    codes = np.array([[0b11110000], [0b11111100], [0b11000000], [0b11111111]], np.uint8)
    bits = 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1
    similarity = (8 + bits @ bits.T) / 16
    plain = fused_similarity(similarity[0, 1:3])
    assert plain[0] == plain[1]
    refined = fused_similarity(similarity[0, 1:3], similarity[3:, 1:3])
    assert refined[0] < refined[1]


@pytest.mark.parametrize(
    ("level", "negative", "left"),
    [
        ("STUDY", Example("STUDY", "1.2"), ["1.3"]),
        ("STUDY", Example("IMAGE", "1.2.1.1"), ["1.3"]),  # the study it is in was judged
        ("SERIES", Example("SERIES", "1.2.1"), ["1.3.1"]),
        ("IMAGE", Example("IMAGE", "1.2.1.1"), ["1.3.1.1", "1.2.1.2"]),
        ("IMAGE", Example("STUDY", "1.2"), ["1.3.1.1"]),
    ],
)
def test_of_a_negative_example_only_what_was_judged_is_left_out(
    archive: Archive, level: SimilarityLevel, negative: Example, left: list[str]
) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 10, 60, PatientID="P")
    archive.add("1.3", 20, PatientID="P")  # the patient of a negative example stays
    answers = archive.ask("1.1", level=level, negative_examples=[negative])
    assert [uid for uid, _ in answers] == left


def test_a_file_is_marked_against_stored_studies(archive: Archive) -> None:
    for study, angle in {"1.1": 20, "1.2": -20, "1.3": -40}.items():
        archive.add(study, angle)
    upload = Example("IMAGE", "a.png", np.array([[1, 0]], np.float32), archive.model.sha256)
    query = SimilarityQuery([upload], negative_examples=studies("1.3"))
    matches = archive.search.answer(query).matches
    assert [match.matched_sop_instance_uid for match in matches] == ["1.1.1.1", "1.2.1.1"]
    against = SimilarityQuery(studies("1.1"), negative_examples=[upload])
    assert len(archive.search.answer(against).matches) == 2


def test_what_cannot_be_a_negative_example_is_named(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 10)
    store(archive.catalog, record(StudyInstanceUID="1.5"))

    def refusal(kind: type[QueryError], negative: list[Example], **query: Any) -> QueryError:
        with pytest.raises(kind) as refused:
            archive.ask("1.1", negative_examples=negative, **query)
        assert refused.value.field == "negative_examples"
        return refused.value

    assert "1.9" in str(refusal(UnknownExampleError, studies("1.2", "1.9")))
    assert "it waits to be embedded; ask again in a moment (study 1.5)" in str(
        refusal(NotEmbeddedError, studies("1.5"))
    )
    assert "1.1 is positive and negative" in str(refusal(QueryError, studies("1.1")))
    many = studies(*(f"2.{number}" for number in range(MAX_EXAMPLES + 1)))
    assert "at most 100 negative examples, not 101" in str(refusal(QueryError, many))
    with pytest.raises(QueryError, match="at most 100 examples, not 101"):
        archive.ask(*(one.uid for one in many))


def test_many_examples_share_the_images_that_are_compared() -> None:
    assert [images_of_each(number) for number in (1, 16, 32, 200, 5000)] == [
        *(EXAMPLE_IMAGES, EXAMPLE_IMAGES, 32, 5, 1)
    ]
