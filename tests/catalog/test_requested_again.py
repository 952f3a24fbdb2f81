"""What a reindex still has to do, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.statistics import count_pending, count_requested_again
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.requests import request_again
from tests.catalog.test_catalog import record, store


def test_only_what_had_an_outcome_was_requested_again(catalog: Catalog) -> None:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
    model = registry.active().row
    store(catalog, record(), record())
    assert count_requested_again(catalog, model) == 0
    queue = WorkQueue(catalog, "test/1", 60)
    for claim in queue.claim(model, 2):
        queue.finish(claim, "embedded", "", 1)
    request_again(catalog, model, ["embedded"])
    begin = time.time()
    store(catalog, record())
    assert count_requested_again(catalog, model) == 2
    assert count_pending(catalog, model, begin) == 2
    assert count_pending(catalog, model, time.time()) == 3
    [first] = queue.claim(model, 1)
    queue.finish(first, "embedded", "", 1)
    assert count_requested_again(catalog, model) == 1
    assert count_pending(catalog, model, begin) == 1
