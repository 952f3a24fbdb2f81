"""Codes are searched exactly, ties included, and their index follows the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmir_node.index import (
    Disagreement,
    HammingIndex,
    SourceCounts,
    SpaceCache,
    SpaceIdentity,
    hamming,
    read_snapshot,
    write_snapshot,
)
from cbmir_node.index.rows import Rows

SHARES = {"as shipped": None, "all distances": 0.0, "gather": 1.1}


@pytest.fixture(params=SHARES)
def strategy(request, monkeypatch):
    """Force each way, so that small data takes it."""
    if SHARES[request.param] is not None:
        monkeypatch.setattr(hamming, "_GATHER_BELOW", SHARES[request.param])


def brute_force(ids, codes, queries, k):
    found = np.full((len(queries), k), -1)
    distances = np.full((len(queries), k), np.inf)
    for row, query in enumerate(queries):
        differing = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
        order = np.lexsort((ids, differing))[:k]
        found[row, : len(order)], distances[row, : len(order)] = ids[order], differing[order]
    return found, distances


def assert_exact(index, queries, k, allowed=None, excluded=None):
    found = index.search(queries, k, allowed=allowed, excluded=excluded)
    ids = index.ids()
    if allowed is not None:
        ids = ids[np.isin(ids, allowed)]
    if excluded is not None:
        ids = ids[~np.isin(ids, excluded)]
    expected, distances = brute_force(ids, index.vectors(ids), queries, k)
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_array_equal(found.scores, distances)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)


def build(ids, codes, in_base):
    index = HammingIndex(codes.shape[1], Rows.of(ids[:in_base], codes[:in_base]))
    middle = (in_base + len(ids)) // 2
    index.add(ids[in_base:middle], codes[in_base:middle])
    index.add(ids[middle:], codes[middle:])
    return index


@st.composite
def collections(draw):
    """Codes of few different values: many duplicates and ties; also lengths of no whole word."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, width = draw(st.integers(0, 40)), draw(st.sampled_from([1, 2, 3, 8, 9, 16]))
    values = generator.integers(0, 256, (draw(st.integers(1, 6)), width), dtype=np.uint8)
    some = st.none() | st.lists(st.integers(1, 110), max_size=60).map(np.array)
    return {
        "ids": np.sort(generator.choice(100, count, replace=False)).astype(np.int64) + 1,
        "codes": values[generator.integers(0, len(values), count)],
        "queries": values[generator.integers(0, len(values), draw(st.integers(0, 3)))]
        ^ draw(st.integers(0, 255).map(np.uint8)),
        "in_base": draw(st.integers(0, count)),
        "removed": np.array(draw(st.lists(st.integers(1, 110), max_size=20)), dtype=np.int64),
        "filters": {"allowed": draw(some), "excluded": draw(some)},
        "k": draw(st.integers(1, 50)),
    }


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@given(case=collections())
@settings(max_examples=80)
def test_small_collections_match_brute_force(share, case):
    with pytest.MonkeyPatch.context() as patch:
        if share is not None:
            patch.setattr(hamming, "_GATHER_BELOW", share)
        index = build(case["ids"], case["codes"], case["in_base"])
        index.remove(case["removed"])
        np.testing.assert_array_equal(index.ids(), np.setdiff1d(case["ids"], case["removed"]))
        assert_exact(index, case["queries"], case["k"], **case["filters"])


@pytest.mark.usefixtures("strategy")
def test_a_large_collection_matches_brute_force():
    generator = np.random.default_rng(5)
    codes = generator.integers(0, 256, (9000, 16), dtype=np.uint8)
    codes[::3] = codes[: len(codes[::3])]
    ids = np.arange(1, 9001) * 2
    index = build(ids, codes, 7000)
    index.remove(ids[::13])
    queries = np.concatenate([codes[:2], generator.integers(0, 256, (2, 16), dtype=np.uint8)])
    assert_exact(index, queries, 50)
    assert_exact(index, queries, 50, excluded=ids[:200])
    assert_exact(index, queries, 50, allowed=generator.choice(ids, 4000, replace=False))
    assert_exact(index, queries, 50, allowed=ids[::97])


@pytest.mark.parametrize(
    "codes", [np.zeros((1, 2), np.float32), np.zeros((1, 3), np.uint8), np.zeros(2, np.uint8)]
)
def test_what_is_no_code_is_refused(codes):
    index = HammingIndex(2)
    with pytest.raises(ValueError, match="codes must be vectors of uint8"):
        index.add(np.array([1]), codes)
    with pytest.raises(ValueError, match="codes must be vectors of uint8"):
        index.search(codes, 1)
    assert len(index) == 0


class Catalogue:
    """A `VectorSource` of codes in memory."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)
        self.present: dict[int, np.ndarray] = {}
        self.removals: list[int] = []

    def add(self, count: int) -> None:
        first = max([*self.present, *self.removals], default=0) + 1
        for row in range(first, first + count):
            self.present[row] = self.generator.integers(0, 256, 2, dtype=np.uint8)

    def remove(self, *rows: int) -> None:
        for row in rows:
            del self.present[row]
            self.removals.append(row)

    def added_after(self, row, limit):
        rows = [key for key in sorted(self.present) if key > row][:limit]
        codes = [self.present[key] for key in rows]
        return np.array(rows, dtype=np.int64), np.array(codes, np.uint8).reshape(-1, 2)

    def removed_after(self, row, limit):
        ids = self.removals[row : row + limit]
        return np.arange(row + 1, row + 1 + len(ids)), np.array(ids, dtype=np.int64)

    def counts(self):
        last = max([*self.present, *self.removals], default=0)
        return SourceCounts(len(self.present), last, len(self.removals))


IDENTITY = SpaceIdentity("ab" * 32, "embedding", "hamming", 2)


def opened(folder: Path, source: Catalogue, *, writable: bool = True) -> SpaceCache:
    # a GPU is wanted and not there: codes do not ask for it
    return SpaceCache.open(folder, IDENTITY, source, "gpu", writable=writable)


def assert_follows(cache: SpaceCache, source: Catalogue) -> None:
    cache.catch_up()
    assert cache.disagreements() == []
    ids = np.array(sorted(source.present), dtype=np.int64)
    codes = np.array([source.present[row] for row in ids])
    np.testing.assert_array_equal(cache.vectors(ids), codes)
    found = cache.search(codes[:5], 30, excluded=ids[:3])
    np.testing.assert_array_equal(found.ids, brute_force(ids[3:], codes[3:], codes[:5], 30)[0])


def test_a_cache_of_codes_follows_the_catalogue(tmp_path):
    source = Catalogue()
    source.add(40)
    cache = opened(tmp_path, source)
    assert_follows(cache, source)
    source.add(20)
    source.remove(3, 41, 60)
    assert_follows(cache, source)
    assert cache.snapshot_if_due(1)
    assert_follows(cache, source)
    source.add(2)
    source.remove(7)
    reader = opened(tmp_path, source, writable=False)
    assert reader.snapshot_problem == ""
    assert_follows(reader, source)
    cache.rebuild()
    assert_follows(cache, source)


def test_disagreements_of_codes_are_listed(tmp_path):
    source = Catalogue()
    source.add(9)
    cache = opened(tmp_path, source)
    source.present[4] = source.present[4] ^ 1
    del source.present[6]  # without a trace in the removal log
    assert cache.disagreements() == [
        Disagreement(4, "another vector"),
        Disagreement(6, "not in the catalogue"),
    ]
    cache.rebuild()
    assert_follows(cache, source)


def test_a_snapshot_of_codes_is_memory_mapped_and_exact(tmp_path):
    codes = np.random.default_rng(1).integers(0, 256, (3000, 2), dtype=np.uint8)
    index = build(np.arange(1, 3001), codes, 0)
    write_snapshot(tmp_path, IDENTITY, index.parts, 3000, 0)
    rows = read_snapshot(tmp_path, IDENTITY).rows
    assert rows.vectors.dtype == np.uint8
    assert not rows.vectors.flags.owndata
    assert not rows.vectors.flags.writeable
    reopened = HammingIndex(2, rows)
    reopened.remove(np.array([5]))
    reopened.add(np.array([4000]), codes[:1])
    assert_exact(reopened, codes[:4], 20)
