"""The index of the model that is about to answer is ready before it does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cbmir_node import node as composition
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.config import IndexSettings, SearchSettings, Settings
from cbmir_node.errors import SnapshotError
from cbmir_node.index import SpaceCache
from cbmir_node.search import engine
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.search.query import Example, SimilarityQuery
from tests.catalog.test_catalog import record, store

QUERY = SimilarityQuery([Example("STUDY", "1.1")])


class Node:
    """Two studies, two models; `search` may write snapshots."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog, self.folder = catalog, folder
        self.registry = ModelRegistry(catalog)
        self.old = self.registry.add("a" * 64, "tiny", "1", {"embedding": 2})
        self.new = self.registry.add("b" * 64, "tiny", "2", {"embedding": 3})
        self.registry.use(self.old)
        store(catalog, record(StudyInstanceUID="1.1"), record(StudyInstanceUID="1.2"))
        self.embed(self.old)
        self.search = SimilaritySearch(
            catalog, folder, SearchSettings(), IndexSettings(), writable=True
        )

    def embed(self, model: InstalledModel) -> None:
        claims = WorkQueue(self.catalog, "t/1", 60).claim(model.row, 10)
        frame = FrameVectors(1, {"embedding": np.ones(model.spaces["embedding"], np.float32)})
        write_vectors(self.catalog, [(claim, [frame]) for claim in claims])


@pytest.fixture
def node(catalog: Catalog, tmp_path: Path) -> Node:
    return Node(catalog, tmp_path / "index")


def test_the_next_index_is_open_before_the_switch_and_the_old_one_is_freed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.search.answer(QUERY).model == "tiny:1"
    keep = node.folder / "not a digest"
    keep.mkdir()
    node.registry.use(node.new)
    node.embed(node.new)
    assert node.search.prepare() == {node.old.row, node.new.row}
    old, opened = node.search.cache(node.old, "cosine"), []
    monkeypatch.setattr(engine.SpaceCache, "open", lambda *_, **__: opened.append(1))
    assert node.registry.switch_if_ready() is not None
    assert node.search.answer(QUERY).model == "tiny:2"
    assert opened == []
    monkeypatch.undo()
    assert {path.name for path in node.folder.iterdir()} == {"a" * 64, "b" * 64, keep.name}
    node.search.tidy()
    assert {path.name for path in node.folder.iterdir()} == {"b" * 64, keep.name}
    assert node.search.answer(QUERY).model == "tiny:2"
    assert node.search.cache(node.old, "cosine") is not old


def test_queries_go_on_while_another_index_is_opened(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.search.answer(QUERY)
    node.registry.use(node.new)
    opening, may_end = threading.Event(), threading.Event()
    original = SpaceCache.open

    def slow(*arguments: Any, **options: Any) -> SpaceCache:
        opening.set()
        assert may_end.wait(60)
        return original(*arguments, **options)

    monkeypatch.setattr(engine.SpaceCache, "open", slow)
    maintenance = threading.Thread(target=node.search.prepare, daemon=True)
    maintenance.start()
    assert opening.wait(60)
    asked = threading.Thread(target=node.search.answer, args=[QUERY], daemon=True)
    asked.start()
    asked.join(60)
    answered = not asked.is_alive()
    may_end.set()
    maintenance.join(60)
    asked.join(60)
    assert answered
    assert not maintenance.is_alive()


def test_what_fails_with_the_next_model_does_not_hold_it_up(node: Node) -> None:
    node.registry.use(node.new)
    queue = WorkQueue(node.catalog, "t/1", 60)
    failing, _ = queue.claim(node.new.row, 10)
    queue.finish(failing, "failed", "no vector from this one", 2)
    assert node.registry.switch_if_ready() is None
    queue.release()
    node.embed(node.new)
    switched = node.registry.switch_if_ready()
    assert switched is not None
    assert switched.version == "2"


def test_receptions_that_go_on_do_not_put_the_switch_off(node: Node) -> None:
    """What arrives is pending with both models: it cannot be found now and is not lost."""
    node.registry.use(node.new)
    node.embed(node.new)
    store(node.catalog, record(StudyInstanceUID="1.3"))
    node.embed(node.old)
    assert node.registry.switch_if_ready() is None  # it would be found no longer
    node.embed(node.new)
    store(node.catalog, record(StudyInstanceUID="1.4"))
    assert node.registry.switch_if_ready() is not None
    node.embed(node.new)
    found = {match.row for match in node.search.answer(QUERY).matches}
    assert len(found) == 3


def test_vectors_that_are_asked_for_anew_are_not_lost(node: Node) -> None:
    """After a reindex the active model's work is pending, and its vectors answer on."""
    request_again(node.catalog, node.old.row, ["embedded"])
    assert len(node.search.answer(QUERY).matches) == 1
    node.registry.use(node.new)
    assert node.registry.switch_if_ready() is None
    node.embed(node.new)
    assert node.registry.switch_if_ready() is not None
    assert len(node.search.answer(QUERY).matches) == 1


def test_a_model_chosen_during_maintenance_waits_for_the_next_round(node: Node) -> None:
    prepared = node.search.prepare()
    node.registry.use(node.new)
    node.embed(node.new)
    assert node.registry.switch_if_ready(prepared) is None
    assert node.registry.switch_if_ready(node.search.prepare()) is not None


def test_an_index_that_only_a_query_wanted_does_not_stay(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    wished = SimilarityQuery(QUERY.examples, method="euclidean")
    folder = node.folder / ("a" * 64)
    for query in (QUERY, wished):
        assert len(node.search.answer(query).matches) == 1
    node.search.tidy()
    names = {"embedding-cosine", "embedding-euclidean"}
    assert {path.name for path in folder.iterdir()} == names
    node.registry.use(node.new)
    node.embed(node.new)
    node.search.prepare()
    assert [path.name for path in (node.folder / ("b" * 64)).iterdir()] == ["embedding-cosine"]
    later = time.monotonic() + 3600
    monkeypatch.setattr(engine.time, "monotonic", lambda: later)
    node.search.tidy()
    assert [path.name for path in folder.iterdir()] == ["embedding-cosine"]
    assert len(node.search.answer(wished).matches) == 1


def test_a_snapshot_that_cannot_be_written_holds_no_switch_up(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise SnapshotError("the disk is full")

    class OneRound(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            was_set = self.is_set()
            self.set()
            return was_set

    node.registry.use(node.new)
    node.embed(node.new)
    running: Any = composition.Node(Settings(data_dir=tmp_path))
    running.search, running.stores = node.search, SimpleNamespace(registry=node.registry)
    running.services = SimpleNamespace(examples=SimpleNamespace(forget_unused=lambda: None))
    running._stop = OneRound()
    monkeypatch.setattr(node.search, "tidy", full)
    running._maintain()
    assert node.registry.active().version == "2"
    assert running._maintenance_error == "the disk is full"
