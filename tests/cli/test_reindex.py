"""``reindex`` embeds everything again, also while objects keep arriving."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from cbmir_node.catalog import consistency, schema
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.stores import Stores
from cbmir_node.worker import Worker
from tests.cli.conftest import Command
from tests.objects import make_object
from tests.small_node import keep, states


def vectors(stores: Stores) -> set[int]:
    with stores.catalog.read() as connection:
        return set(connection.execute(select(schema.vectors.c.id)).scalars())


@pytest.fixture
def embedded(stores: Stores, command: Command, tmp_path: Path) -> list[str]:
    """Fill the data folder with six embedded objects."""
    uids = keep(stores, tmp_path, *(make_object() for _ in range(6)))
    done = command("reindex")
    assert done.exit_code == 0, done.output
    assert states(stores, uids) == ["embedded"] * 6
    return uids


def test_a_new_arrival_is_no_interrupted_reindex(
    stores: Stores, command: Command, embedded: list[str], tmp_path: Path
) -> None:
    before = vectors(stores)
    new = keep(stores, tmp_path, make_object())
    done = command("reindex")
    assert done.exit_code == 0, done.output
    assert "resuming" not in done.output
    assert not before & vectors(stores)
    assert states(stores, [*embedded, *new]) == ["embedded"] * 7


def test_it_ends_while_objects_keep_arriving(
    stores: Stores,
    command: Command,
    embedded: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, rounds, work_once = vectors(stores), [0], Worker.work_once

    def work_and_receive(self: Worker, model: InstalledModel) -> int:
        rounds[0] += 1
        assert rounds[0] < 10, "reindex runs after what arrives"
        done = work_once(self, model)
        keep(stores, tmp_path, make_object())
        return done

    monkeypatch.setattr(Worker, "work_once", work_and_receive)
    done = command("reindex")
    assert done.exit_code == 0, done.output
    assert not before & vectors(stores)
    assert "1 pending" in done.output


def test_an_interrupted_one_is_resumed(
    stores: Stores, command: Command, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stores.registry.active()
    request_again(stores.catalog, model.row, ["embedded"])
    before = vectors(stores)
    queue = WorkQueue(stores.catalog, "another/1", 60)
    for claim in queue.claim(model.row, 2):
        queue.finish(claim, "failed", "for the test", 1)
    done = command("reindex")
    assert "resuming: 4 instances wait" in done.output
    assert states(stores, embedded) == ["failed"] * 2 + ["embedded"] * 4
    assert len(before & vectors(stores)) == 2
    restarted = command("reindex")
    assert "resuming" not in restarted.output
    assert states(stores, embedded) == ["embedded"] * 6


def test_a_repaired_instance_is_no_interrupted_reindex(
    stores: Stores, command: Command, embedded: list[str]
) -> None:
    before = vectors(stores)
    row = next(iter(consistency.stored_instances(stores.catalog))).instance
    consistency.queue_again(stores.catalog, stores.registry.active().row, row)
    done = command("reindex")
    assert "resuming" not in done.output
    assert not before & vectors(stores)
