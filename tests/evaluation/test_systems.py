"""Rankings: that they are the product's, who may be found, and what options leave out."""

from __future__ import annotations

import numpy as np
import pytest

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.items import Items, Outputs
from cbmir_node.evaluation.protocols import (
    Protocol,
    judged_classes,
    protocols,
    rank_and_score,
)
from cbmir_node.evaluation.scores import METRICS
from cbmir_node.evaluation.studies import group_studies, study_similarity
from cbmir_node.evaluation.systems import by_class, by_space, hamming, reranked, systems_of
from cbmir_node.index import FlatIndex, HammingIndex
from cbmir_node.search.ranking import score_groups

N = 60


@pytest.fixture
def outputs() -> Outputs:
    random = np.random.default_rng(0)
    return Outputs(
        {
            "embedding": random.standard_normal((N, 16), dtype=np.float32),
            "embedding.fc1": random.standard_normal((N, 8), dtype=np.float32),
        },
        random.integers(0, 256, (N, 4), dtype=np.uint8),
        random.choice(["A", "B"], N),
        random.random(N, dtype=np.float32),
    )


def items_of(labels, findings=None, patients=None, studies=None) -> Items:
    number = len(labels)
    return Items(
        np.array(labels),
        np.array(findings or [""] * number),
        np.array(patients or [str(i) for i in range(number)]),
        np.array(studies or [f"s{i}" for i in range(number)]),
    )


def everything(number: int) -> Protocol:
    return Protocol("U", np.arange(number), np.arange(number))


@pytest.mark.parametrize("method", ["cosine", "euclidean", "hamming"])
def test_rankings_are_those_of_the_products_index(outputs: Outputs, method: str) -> None:
    queries = outputs.take(np.arange(5))
    eligible = np.ones((5, N), dtype=bool)
    if method == "hamming":
        index = HammingIndex(4)
        stored, asked = outputs.codes, queries.codes
        similarity = hamming(queries, outputs, eligible)
    else:
        index = FlatIndex(16, method)
        stored, asked = outputs.spaces["embedding"], queries.spaces["embedding"]
        similarity = by_space(method)(queries, outputs, eligible)
    index.add(np.arange(1, N + 1), stored)
    found = index.search(asked, N).ids - 1
    assert np.array_equal(np.argsort(-similarity, axis=1, kind="stable"), found)


def test_what_is_near_by_code_is_put_in_order_by_cosine(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmir_node.evaluation.systems.RERANKED", 10)
    query = outputs.take(np.array([0]))
    eligible = np.ones((1, N), dtype=bool)
    eligible[0, 0] = False  # itself would be both nearest and of no use
    codes = np.where(eligible, hamming(query, outputs, eligible), -1)[0]
    nearest = set(np.argsort(-codes, kind="stable")[:10].tolist())
    order = np.argsort(-np.where(eligible, reranked(query, outputs, eligible), -1)[0])
    assert set(order[:10].tolist()) == nearest
    cosine = by_space("cosine")(query, outputs, eligible)[0]
    assert np.all(np.diff(cosine[order[:10]]) <= 0)
    assert np.all(np.diff(codes[order[10:]]) <= 0)


def test_only_trusted_predictions_leave_candidates_out() -> None:
    queries = Outputs(
        {"embedding": np.eye(2, dtype=np.float32)},
        predicted=np.array(["A", "A"]),
        probability=np.array([0.95, 0.5], dtype=np.float32),
    )
    database = Outputs(
        {"embedding": np.ones((3, 2), dtype=np.float32)},
        predicted=np.array(["A", "B", "B"]),
        probability=np.array([0.4, 0.95, 0.5], dtype=np.float32),
    )
    eligible = np.ones((2, 3), dtype=bool)

    def kept(trusted: float) -> list[list[bool]]:
        return np.isfinite(by_class(queries, database, eligible, trusted)).tolist()

    assert kept(0.9) == [[True, False, True], [True, True, True]]
    assert kept(0.0) == [[True, False, False], [True, False, False]]


def test_systems_follow_from_the_outputs(outputs: Outputs) -> None:
    names = [system.name for system in systems_of(outputs, 0.9, findings=True)]
    assert names == [
        "cosine",
        "euclidean",
        "embedding.fc1, cosine",
        "embedding.fc1, euclidean",
        "hamming, 32 bits",
        "hamming, best 200 by cosine",
        "hamming, random projection to 32 bits",
        "by class, every prediction trusted",
        "by class, trusted from 0.9",
        "cosine, same tags",
    ]
    bare = systems_of(Outputs({"embedding": outputs.spaces["embedding"]}), 0.9, findings=False)
    assert [system.name for system in bare] == ["cosine", "euclidean"]


def test_no_query_finds_its_own_patient_at_either_level(outputs: Outputs) -> None:
    # every image has a twin of its patient: found, it would be first
    twins = Outputs({"embedding": np.repeat(outputs.spaces["embedding"][:30], 2, axis=0)})
    patients = [str(i // 2) for i in range(N)]
    items = items_of(["A", "B"] * 30, patients=patients, studies=patients)
    tables = rank_and_score(by_space("cosine"), everything(N), items, (twins, twins), [])
    # of each patient one image is A and one B: at the distance of the twin there is none relevant
    assert tables["coarse", "image"].values[:, 0].max() < 1
    without = items_of(["A", "B"] * 30)
    alone = rank_and_score(by_space("cosine"), everything(N), without, (twins, twins), [])
    difference = alone["coarse", "image"].values[:, 0] != tables["coarse", "image"].values[:, 0]
    assert difference.all()


def test_findings_are_judged_within_their_class() -> None:
    # The nearest item of every query is of the other class, with the same finding's name: a
    # ranking that crossed classes would be perfect, or would be scored on unknown findings.
    vectors = np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0.9, 0.1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        dtype=np.float32,
    )
    items = items_of(
        ["knee", "knee", "knee", "chest", "chest", "head"],
        ["ill", "well", "well", "ill", "", "ill"],
    )
    outputs = Outputs({"embedding": vectors})
    judged = judged_classes(items, np.arange(6), [])
    assert judged == ["knee"]  # chest has one known finding, head has one
    tables = rank_and_score(by_space("cosine"), everything(6), items, (outputs, outputs), judged)
    table = tables["finding", "image"]
    # "ill" has no partner. Both "well" rank the other: (0,1) sees .1 before 0, the third item
    # sees "ill" (.99) before "well" (.11).
    assert table.answerable.tolist() == [False, True, True]
    mean_ap = METRICS.index("mAP")
    assert table.values[1:, mean_ap] == pytest.approx([1, 1 / 2])
    # among all classes, the chest image is in the way of the third item, and "" of nobody
    opened = tables["open finding", "image"].values[1:, mean_ap]
    assert opened == pytest.approx([1, 1 / 3])
    tagged = rank_and_score(
        by_space("cosine"), everything(6), items, (outputs, outputs), judged, same_tags=True
    )
    assert tagged["open finding", "image"].values[1:, mean_ap] == pytest.approx([1, 1 / 2])


def test_studies_are_scored_as_the_product_scores_them(outputs: Outputs) -> None:
    random = np.random.default_rng(4)
    names = [f"s{i}" for i in random.integers(0, 12, N)]
    items = items_of(["A"] * N, patients=names, studies=names)
    similarity = by_space("cosine")(outputs, outputs, np.ones((N, N), dtype=bool))
    coded = items.coded
    studies = group_studies(coded)
    eligible = coded.patient[:, None] != coded.patient
    table = study_similarity(similarity, eligible, studies, studies)
    rows = np.flatnonzero(studies.study_of == 3)
    others = np.flatnonzero(studies.study_of != 3)
    expected = score_groups(similarity[np.ix_(rows, others)], studies.study_of[others], mutual=True)
    assert np.array_equal(table[3, expected.groups], expected.similarity)
    assert table[3, 3] == -np.inf


def test_a_study_of_several_findings_has_none() -> None:
    items = items_of(
        ["A"] * 4, ["ill", "ill", "well", ""], studies=["s", "s", "t", "t"], patients=list("ppqq")
    )
    assert (group_studies(items.coded).items.finding >= 0).tolist() == [True, False]


def test_parts_of_the_queries_make_the_same_table(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    studies = [f"s{i}" for i in random.integers(0, 25, N)]
    items = items_of(random.choice(["A", "B"], N).tolist(), patients=studies, studies=studies)
    whole = rank_and_score(by_space("cosine"), everything(N), items, (outputs, outputs), [])
    monkeypatch.setattr("cbmir_node.evaluation.protocols._CELLS_AT_ONCE", 7 * N)
    parts = rank_and_score(by_space("cosine"), everything(N), items, (outputs, outputs), [])
    for key, table in whole.items():
        assert np.array_equal(table.queries, parts[key].queries)
        np.testing.assert_allclose(table.values, parts[key].values, rtol=1e-6)


def test_protocols_and_their_errors() -> None:
    splits = np.array(["train", "val", "test", "test"])
    unseen, papers = protocols(splits, "test")
    assert unseen.queries.tolist() == unseen.database.tolist() == [2, 3]
    assert papers.database.tolist() == [0, 1]
    assert protocols(splits, "val")[1].database.tolist() == [0]
    assert [p.name for p in protocols(splits[2:], "test")] == ["U"]
    with pytest.raises(ConfigurationError, match="no image is of split val"):
        protocols(splits[2:], "val")
    with pytest.raises(ConfigurationError, match=r"--ignore-findings.*Z"):
        judged_classes(items_of(["A"]), np.array([0]), ["Z"])
