"""The cache equals the catalogue after every catch-up, whatever happened before."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cbmir_node.errors import SnapshotError
from cbmir_node.index import Disagreement, SourceCounts, SpaceCache, SpaceIdentity
from cbmir_node.index import cache as cache_module
from cbmir_node.index import snapshot as snapshot_module
from cbmir_node.index import source as source_module
from cbmir_node.index.exact import unit_length

DIMENSION = 3
IDENTITY = SpaceIdentity("ab" * 32, "embedding", "cosine", DIMENSION)


class Catalogue:
    """A `VectorSource` in memory; while `unrest` lasts it changes before every read."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.present: dict[int, np.ndarray] = {}
        self.removals: list[int] = []
        self.last_row = 0
        self.unrest = 0

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.last_row += int(self.generator.integers(1, 3))
            vector = self.generator.standard_normal(DIMENSION).astype(np.float32)
            self.present[self.last_row] = vector

    def remove(self, count: int = 1) -> None:
        for _ in range(min(count, len(self.present))):
            row = int(self.generator.choice(list(self.present)))
            del self.present[row]
            self.removals.append(row)

    def _change(self) -> None:
        if self.unrest:
            self.unrest -= 1
            self.add(int(self.generator.integers(0, 3)))
            self.remove(int(self.generator.integers(0, 3)))

    def added_after(self, row, limit):
        self._change()
        rows = [key for key in sorted(self.present) if key > row][:limit]
        vectors = [self.present[key] for key in rows]
        return np.array(rows, dtype=np.int64), np.array(vectors, np.float32).reshape(-1, DIMENSION)

    def removed_after(self, row, limit):
        self._change()
        ids = self.removals[row : row + limit]
        return np.arange(row + 1, row + 1 + len(ids)), np.array(ids, dtype=np.int64)

    def counts(self):
        self._change()
        return SourceCounts(len(self.present), self.last_row, len(self.removals))


def opened(folder: Path, source: Catalogue, *, writable: bool = True) -> SpaceCache:
    return SpaceCache.open(folder, IDENTITY, source, "cpu", writable=writable)


def assert_equal(cache: SpaceCache, source: Catalogue) -> None:
    ids = np.array(sorted(source.present), dtype=np.int64)
    assert len(cache) == len(ids)
    if not len(ids):
        return
    expected = unit_length(np.array([source.present[key] for key in ids]))
    np.testing.assert_array_equal(cache.vectors(ids), expected)
    found = cache.search(expected, len(ids) + 2).ids
    assert set(found.ravel().tolist()) == {-1, *ids.tolist()}
    np.testing.assert_array_equal(found[:, 0], ids)


class PowerCut(BaseException):
    """Ends the work at once."""


@settings(max_examples=25, stateful_step_count=30)
class CacheFollowsCatalogue(RuleBasedStateMachine):
    """Additions, removals, snapshots, crashes and restarts in any order."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(source_module, "ROWS_PER_READ", 3)
        self.source = Catalogue(seed)
        self.cache = opened(self.folder, self.source)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 12))
    def add(self, count: int) -> None:
        self.source.add(count)

    @rule(count=st.integers(1, 8))
    def remove(self, count: int) -> None:
        self.source.remove(count)

    @rule(changes=st.integers(1, 10))
    def others_write_meanwhile(self, changes: int) -> None:
        self.source.unrest = changes

    @rule()
    def catch_up(self) -> None:
        self.cache.catch_up()

    @rule(rows=st.integers(1, 10))
    def snapshot(self, rows: int) -> None:
        self.cache.snapshot_if_due(rows)

    @rule(step=st.integers(0, 8))
    def power_cut_during_snapshot(self, step: int) -> None:
        left = step

        def sync(descriptor: int) -> None:
            nonlocal left
            if not left:
                raise PowerCut
            left -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snapshot_module.os, "fsync", sync)
            patch.setattr(snapshot_module.shutil, "rmtree", lambda *_, **__: None)
            try:
                self.cache.snapshot_if_due(1)
            except PowerCut:
                patch.undo()
                self.reopen(writable=True)

    @rule(writable=st.booleans())
    def reopen(self, writable: bool) -> None:
        self.cache = opened(self.folder, self.source, writable=writable)

    @rule()
    def rebuild(self) -> None:
        self.cache.rebuild()

    @rule()
    def damage_and_reopen(self) -> None:
        for path in self.folder.rglob("ids.npy"):
            path.write_bytes(b"damaged")
        self.cache = opened(self.folder, self.source)

    @invariant()
    def equal_once_caught_up(self) -> None:
        if not hasattr(self, "cache"):
            return
        problems = self.cache.disagreements()
        unrest, self.source.unrest = self.source.unrest, 0
        if not unrest:
            assert problems == []
        self.cache.catch_up()
        assert_equal(self.cache, self.source)
        assert self.cache.disagreements() == []
        assert self.cache.catch_up() == 0
        self.source.unrest = unrest


test_cache_follows_catalogue = CacheFollowsCatalogue.TestCase


def test_a_restart_reads_only_what_is_new(tmp_path):
    source = Catalogue()
    source.add(100)
    opened(tmp_path, source)
    source.add(2)
    source.remove(3)
    reads = []
    original = source.added_after
    source.added_after = lambda row, limit: reads.append(row) or original(row, limit)
    cache = opened(tmp_path, source, writable=False)
    assert_equal(cache, source)
    assert 0 not in reads


def test_a_snapshot_waits_until_it_is_due(tmp_path):
    source = Catalogue()
    cache = opened(tmp_path, source)
    source.add(6)
    cache.catch_up()
    source.remove(1)
    cache.catch_up()
    assert not cache.snapshot_if_due(7)
    assert cache.snapshot_if_due(6)
    assert not cache.snapshot_if_due(1)
    source.remove(1)
    cache.catch_up()
    assert cache.snapshot_if_due(1)
    assert_equal(cache, source)
    source.add(500)
    cache.catch_up()
    assert cache.snapshot_if_due(1)
    source.add(20)
    cache.catch_up()
    assert not cache.snapshot_if_due(1)  # less than 5 %
    source.add(10)
    cache.catch_up()
    assert cache.snapshot_if_due(1)


def test_a_reader_writes_nothing(tmp_path):
    source = Catalogue()
    source.add(5)
    cache = opened(tmp_path, source, writable=False)
    assert not cache.snapshot_if_due(1)
    assert list(tmp_path.iterdir()) == []
    assert_equal(cache, source)


def test_changes_during_a_snapshot_are_kept(tmp_path, monkeypatch):
    source = Catalogue()
    source.add(10)
    cache = opened(tmp_path, source)
    source.add(10)
    cache.catch_up()
    original = cache_module.write_snapshot

    def slow(*arguments):
        source.add(4)
        source.remove(6)
        cache.catch_up()
        assert_equal(cache, source)  # searched meanwhile
        original(*arguments)
        source.add(3)
        source.remove(2)

    monkeypatch.setattr(cache_module, "write_snapshot", slow)
    assert cache.snapshot_if_due(1)
    assert_equal(cache, source)
    monkeypatch.undo()
    assert_equal(opened(tmp_path, source), source)


def test_a_catalogue_restored_from_a_backup_is_indexed_anew(tmp_path, caplog):
    source = Catalogue(1)
    source.add(10)
    opened(tmp_path, source)
    restored = Catalogue(1)
    restored.add(6)
    with caplog.at_level(logging.WARNING):
        cache = opened(tmp_path, restored)
    assert "rebuilt" in caplog.text
    assert_equal(cache, restored)
    restored.add(2)
    cache.catch_up()
    assert_equal(cache, restored)


def test_a_row_that_vanished_without_a_trace_is_noticed_when_opening(tmp_path, caplog):
    source = Catalogue()
    source.add(10)
    opened(tmp_path, source)
    del source.present[min(source.present)]
    with caplog.at_level(logging.WARNING):
        assert_equal(opened(tmp_path, source), source)
    assert "rebuilt" in caplog.text


def test_an_unwritable_folder_is_no_reason_not_to_search(tmp_path, caplog):
    (tmp_path / "index").write_text("a file where the folder should be")
    source = Catalogue()
    source.add(5)
    with caplog.at_level(logging.WARNING):
        cache = opened(tmp_path / "index", source)
    assert "cannot write the index snapshot" in caplog.text
    assert_equal(cache, source)
    source.add(5)
    cache.catch_up()
    with pytest.raises(SnapshotError, match="cannot write"):
        cache.snapshot_if_due(1)
    assert_equal(cache, source)


def test_disagreements_are_listed_and_repaired(tmp_path):
    source = Catalogue()
    source.add(40)
    cache = opened(tmp_path, source)
    rows = sorted(source.present)
    del source.present[rows[3]]  # without a trace in the removal log
    source.present[rows[5]] = source.present[rows[5]][::-1]
    late = next(row for row in range(1, rows[-1]) if row not in rows)
    source.present[late] = np.ones(DIMENSION, np.float32)
    expected = [
        Disagreement(rows[3], "not in the catalogue"),
        Disagreement(rows[5], "another vector"),
        Disagreement(late, "not in the index"),
    ]
    assert cache.disagreements() == sorted(expected, key=lambda problem: problem.id)
    cache.rebuild()
    assert cache.disagreements() == []
    assert_equal(cache, source)
    assert_equal(opened(tmp_path, source, writable=False), source)


def test_a_damaged_vector_keeps_no_other_from_being_found(tmp_path, caplog):
    source = Catalogue()
    source.add(30)
    cache = opened(tmp_path, source)
    source.add(6)
    rows = sorted(source.present)
    damaged = {rows[-5]: np.nan, rows[-4]: np.inf, rows[-2]: 1e20}
    for row, value in damaged.items():
        source.present[row] = np.array([1, value, 0], np.float32)
    with caplog.at_level(logging.WARNING):
        cache.catch_up()
        cache.rebuild()
    (warning,) = caplog.messages
    assert "3 vectors are damaged" in warning
    assert f"row {rows[-5]}" in warning
    assert cache.disagreements() == [Disagreement(row, "not in the index") for row in damaged]
    asked = np.array(rows, dtype=np.int64)
    assert asked[~cache.holds(asked)].tolist() == list(damaged)
    source.present = {row: v for row, v in source.present.items() if row not in damaged}
    source.removals += damaged
    cache.catch_up()
    assert cache.disagreements() == []
    assert_equal(cache, source)
    assert_equal(opened(tmp_path, source), source)
    damaged_later = min(source.present)
    source.present[damaged_later] = np.array([np.inf, 0, 0], np.float32)
    assert cache.disagreements() == [Disagreement(damaged_later, "another vector")]
