"""Every back end and strategy gives the exact answer, ties included."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmir_node.errors import MissingPackageError
from cbmir_node.index import (
    FlatIndex,
    GpuFlatIndex,
    VectorIndex,
    exact,
    faiss_cpu,
    faiss_gpu,
    gpu_count,
    scan,
)
from cbmir_node.index.rows import Rows

METRICS = ["cosine", "euclidean"]


def _flat_on_cpu(vectors, metric):
    index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(vectors.shape[1])
    index.add(vectors)
    return index


# Constants are forced, so that small data takes each way and no spare candidate hides a mistake.
STRATEGIES = {
    "as shipped": (FlatIndex, {}),
    "kernel": (FlatIndex, {(scan, "_PRODUCT_FROM"): 10**9, (faiss_cpu, "_GATHER_BELOW"): 0.0}),
    "product": (FlatIndex, {(scan, "_PRODUCT_FROM"): 0, (faiss_cpu, "_GATHER_BELOW"): 0.0}),
    "blocks": (FlatIndex, {(scan, "_PRODUCT_FROM"): 0, (scan, "_BLOCK_ROWS"): 7}),
    "gather": (FlatIndex, {(faiss_cpu, "_GATHER_BELOW"): 1.0}),
    "gpu logic": (GpuFlatIndex, {(faiss_gpu, "_copy_to_gpu"): _flat_on_cpu}),
    "gpu": (GpuFlatIndex, {}),
}


@pytest.fixture(params=STRATEGIES, scope="module")
def strategy(request):
    if request.param == "gpu" and gpu_count() == 0:
        pytest.skip("FAISS sees no GPU: GpuFlatIndex is tested where there is one")
    return request.param


@contextlib.contextmanager
def forced(strategy: str) -> Iterator[type[FlatIndex]]:
    kind, constants = STRATEGIES[strategy]
    with pytest.MonkeyPatch.context() as patch:
        if strategy != "as shipped":
            patch.setattr(faiss_cpu, "_SPARE_CANDIDATES", 0)
        for (module, name), value in constants.items():
            patch.setattr(module, name, value)
        yield kind


def oracle(index: VectorIndex, queries, k, allowed=None, excluded=None):
    """Brute force in extended precision over the stored vectors, rounded to float32 like them."""
    ids = index.ids()
    stored = index.vectors(ids).astype(np.longdouble)
    if allowed is not None:
        stored, ids = stored[np.isin(ids, allowed)], ids[np.isin(ids, allowed)]
    if excluded is not None:
        stored, ids = stored[~np.isin(ids, excluded)], ids[~np.isin(ids, excluded)]
    wanted = exact.unit_length(queries) if index.metric == "cosine" else queries
    found_ids = np.full((len(queries), k), -1)
    found_scores = np.full((len(queries), k), -np.inf if index.metric == "cosine" else np.inf)
    for row, query in enumerate(wanted.astype(np.longdouble)):
        if index.metric == "cosine":
            scores = np.clip((stored * query).sum(axis=1), -1, 1).astype(np.float32)
            order = np.lexsort((ids, -scores))[:k]
        else:
            scores = np.sqrt(((stored - query) ** 2).sum(axis=1)).astype(np.float32)
            order = np.lexsort((ids, scores))[:k]
        found_ids[row, : len(order)], found_scores[row, : len(order)] = ids[order], scores[order]
    return found_ids, found_scores


def assert_exact(index, queries, k, **filters):
    found = index.search(queries, k, **filters)
    ids, scores = oracle(index, queries, k, **filters)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6, atol=1e-7)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)


def build(kind, metric, ids, vectors, in_base, dimension):
    """Put the first `in_base` rows into the base and the others, in two batches, into the tail."""
    stored = exact.unit_length(vectors) if metric == "cosine" else vectors
    base = Rows.of(ids[:in_base], np.ascontiguousarray(stored[:in_base]))
    index = kind(dimension, metric, base)
    middle = (in_base + len(ids)) // 2
    index.add(ids[in_base:middle], vectors[in_base:middle])
    index.add(ids[middle:], vectors[middle:])
    return index


@st.composite
def collections(draw):
    """Few small integers as values: many duplicates, ties, zero vectors and opposite vectors."""
    count, dimension = draw(st.integers(0, 40)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    values = draw(st.sampled_from([1, 2, 1000]))
    vectors = generator.integers(-values, values + 1, (count, dimension)).astype(np.float32)
    queries = generator.integers(-values, values + 1, (draw(st.integers(0, 20)), dimension))
    ids = np.sort(generator.choice(100, count, replace=False)) + 1
    some = st.none() | st.lists(st.integers(1, 110), max_size=60).map(np.array)
    return {
        "dimension": dimension,
        "ids": ids.astype(np.int64),
        "vectors": vectors,
        "queries": queries.astype(np.float32),
        "in_base": draw(st.integers(0, count)),
        "removed": np.array(draw(st.lists(st.integers(1, 110), max_size=20)), dtype=np.int64),
        "allowed": draw(some),
        "excluded": draw(some),
        "k": draw(st.integers(1, 50)),
    }


@pytest.mark.parametrize("metric", METRICS)
@given(case=collections())
@settings(max_examples=60)
def test_small_collections_match_brute_force(strategy, metric, case):
    with forced(strategy) as kind:
        index = build(
            kind, metric, case["ids"], case["vectors"], case["in_base"], case["dimension"]
        )
        index.remove(case["removed"])
        expected = np.setdiff1d(case["ids"], case["removed"])
        np.testing.assert_array_equal(index.ids(), expected)
        assert len(index) == len(expected)
        assert_exact(
            index,
            case["queries"],
            case["k"],
            allowed=case["allowed"],
            excluded=case["excluded"],
        )


def _images_of_a_series(generator, count, dimension):
    """Tight groups far from the origin, and a third of the rows exact copies of other rows."""
    centres = 3 + generator.standard_normal((20, dimension))
    vectors = centres[generator.integers(0, 20, count)]
    vectors += 1e-4 * generator.standard_normal(vectors.shape)
    copies = generator.choice(count, count // 3, replace=False)
    vectors[copies] = vectors[generator.integers(0, 40, len(copies))]
    return vectors.astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 5, 40])
def test_near_duplicates_match_brute_force(strategy, metric, queries):
    """Neighbours closer to each other than float32 sums resolve still come out in true order."""
    generator = np.random.default_rng(queries)
    vectors = _images_of_a_series(generator, 3000, 96)
    ids = np.arange(1, 3001) * 3
    with forced(strategy) as kind:
        index = build(kind, metric, ids, vectors, 2500, 96)
        index.remove(ids[::11])
        wanted = np.concatenate([vectors[: queries // 2], vectors[-queries // 2 - 1 :] + 1e-5])
        assert_exact(index, wanted[:queries], 20)
        assert_exact(index, wanted[:queries], 20, excluded=ids[100:160])
        assert_exact(index, wanted[:queries], 20, allowed=ids[5:900:7])
        assert_exact(index, wanted[:queries], 7, allowed=generator.permutation(ids)[:1500])


def test_equal_vectors_come_by_ascending_id_wherever_they_lie(strategy):
    vectors = np.tile(np.float32([[0.1, 0.7, -0.3]]), (500, 1))
    ids = np.arange(1, 501)
    with forced(strategy) as kind:
        index = build(kind, "cosine", ids, vectors, 250, 3)
        index.remove(np.array([2]))
        found = index.search(vectors[:1], 6)
    assert found.ids.tolist() == [[1, 3, 4, 5, 6, 7]]
    assert np.all(found.scores == found.scores[0, 0])


def test_zero_vectors_have_cosine_zero():
    index = FlatIndex(2, "cosine")
    index.add(np.array([1, 2, 3]), np.float32([[0, 0], [5, 0], [-1, 0]]))
    found = index.search(np.float32([[2, 0], [0, 0]]), 3)
    assert found.ids.tolist() == [[2, 1, 3], [1, 2, 3]]
    assert found.scores.tolist() == [[1, 0, -1], [0, 0, 0]]
    np.testing.assert_array_equal(index.vectors(np.array([2, 1])), [[1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        ([3, 3], np.zeros((2, 2))),
        ([4, 3], np.zeros((2, 2))),
        ([2, 9], np.zeros((2, 2))),
        ([3], np.zeros((2, 2))),
        ([3], np.zeros((1, 3))),
        ([3], np.zeros(2)),
        ([3, 4], [[0, 0], [np.nan, 0]]),
        ([3], [[np.inf, 0]]),
        ([3], [[0, 1e20]]),
    ],
)
def test_unusable_additions_change_nothing(ids, vectors):
    index = FlatIndex(2, "euclidean")
    index.add(np.array([2]), np.float32([[1, 1]]))
    with pytest.raises(ValueError, match=r"ids|vectors"):
        index.add(np.array(ids), np.asarray(vectors, dtype=np.float32))
    assert index.ids().tolist() == [2]


def test_a_removed_id_stays_used():
    index = FlatIndex(1, "euclidean")
    index.add(np.array([5]), np.float32([[1]]))
    index.remove(np.array([5, 77]))
    with pytest.raises(ValueError, match="above 5"):
        index.add(np.array([5]), np.float32([[1]]))
    with pytest.raises(KeyError, match="5"):
        index.vectors(np.array([5]))


def test_a_view_taken_earlier_does_not_change():
    """What lets a search run without a lock, also while the tail moves to a larger buffer."""
    index = FlatIndex(2, "euclidean")
    vectors = np.random.default_rng(0).standard_normal((5000, 2)).astype(np.float32)
    index.add(np.arange(1, 901), vectors[:900])
    _, tail = index.parts
    for start in range(900, 5000, 41):
        end = min(start + 41, 5000)
        index.add(np.arange(start + 1, end + 1), vectors[start:end])
    _, longer = index.parts
    index.remove(np.arange(1, 700))
    assert (len(tail), len(longer), longer.dead) == (900, 5000, 0)
    np.testing.assert_array_equal(tail.vectors, vectors[:900])
    assert index.ids().tolist() == list(range(700, 5001))
    np.testing.assert_array_equal(index.vectors(index.ids()), vectors[699:])


@pytest.mark.parametrize(("queries", "k"), [(np.zeros((1, 2)), 0), (np.zeros((1, 3)), 1)])
def test_unusable_queries_are_refused(queries, k):
    with pytest.raises(ValueError, match=r"k must|vectors must"):
        FlatIndex(2, "cosine").search(queries.astype(np.float32), k)


def test_searches_beside_changes_see_whole_states(strategy):
    """A search sees each batch of additions or removals completely or not at all."""
    batch, batches = 50, 60
    done = threading.Event()

    def change() -> None:
        generator = np.random.default_rng(3)
        for number in range(batches):
            first = number * batch + 1
            ids = np.arange(first, first + batch)
            index.add(ids, generator.standard_normal((batch, 4)).astype(np.float32))
            if number % 2:
                index.remove(ids)
        done.set()

    with forced(strategy) as kind:
        index = kind(4, "euclidean")
        thread = threading.Thread(target=change)
        thread.start()
        looks, last = 0, False
        while not last:
            last = done.is_set() or looks > 5000
            found = index.search(np.zeros((2, 4), np.float32), batch * batches).ids
            live, counts = np.unique((found[0][found[0] > 0] - 1) // batch, return_counts=True)
            assert np.all(counts == batch)
            # Batches come in order and odd ones go again, so at most the last may be odd.
            assert not np.any(live[:-1] % 2)
            looks += 1
        thread.join(30)
    assert len(index) == batch * batches // 2


def test_absent_faiss_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"cbmir-node\[cpu\].*cbmir-node\[gpu\]"):
        FlatIndex(2, "cosine")
