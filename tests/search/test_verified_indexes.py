"""``verify`` and the worker know the indexes of codes and layers as they do that of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import open_catalog
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.config import SearchSettings, Settings
from cbmir_node.node import open_search
from cbmir_node.search.query import Example, SimilarityQuery
from cbmir_node.stores import Stores, open_stores
from cbmir_node.verification import Verification
from cbmir_node.worker import Worker
from tests.models import build_model
from tests.objects import make_object
from tests.small_node import drain, keep

LAYER = "embedding.fc7"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    search = SearchSettings(method="hamming", rerank=True, space=LAYER)
    settings = Settings(data_dir=tmp_path / "data", search=search)
    open_catalog(settings.catalog_url, create=True).close()
    opened = open_stores(settings, create=False)
    opened.use(opened.install(build_model(tmp_path / "tiny.onnx", layers={"fc7": 12})))
    yield opened
    opened.close()


def embed(stores: Stores) -> None:
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())


def kinds(stores: Stores) -> list[str]:
    return [finding.kind for finding in Verification(stores).findings()]


def test_indexes_of_codes_and_layers_are_verified_and_mended(
    stores: Stores, tmp_path: Path
) -> None:
    assert stores.registry.active().code_bits == 16
    studies = [make_object() for _ in range(5)]
    uids = keep(stores, tmp_path, *studies)
    embed(stores)
    query = SimilarityQuery([Example("STUDY", str(studies[0].StudyInstanceUID))])
    search = open_search(stores, writable=True)
    answer = search.answer(query)
    assert (answer.method, answer.space, len(answer.matches)) == ("hamming", LAYER, 4)
    # both indexes follow when everything is embedded again
    request_again(stores.catalog, stores.registry.active().row, ["embedded"])
    embed(stores)
    assert len(search.answer(query).matches) == 4
    assert [len(cache) for cache in search.active_caches()] == [5, 5]
    assert kinds(stores) == []
    for snapshot in (stores.settings.data_dir / "index").rglob("vectors.npy"):
        snapshot.write_bytes(b"damaged")
    assert kinds(stores) == ["index differs"] * 2
    verification = Verification(stores)
    assert len(verification.repair(verification.findings())) == 2
    assert kinds(stores) == []
    with stores.catalog.write() as connection:  # one instance has lost its code
        connection.execute(
            update(schema.vectors).where(schema.vectors.c.instance == 2).values(code=None)
        )
    verification = Verification(stores)
    damaged = [one for one in verification.findings() if one.kind == "vector of a wrong length"]
    assert [one.subject for one in damaged] == [uids[1]]
    verification.repair(verification.findings())
    embed(stores)
    assert kinds(stores) == []
    assert len(open_search(stores, writable=False).answer(query).matches) == 4
