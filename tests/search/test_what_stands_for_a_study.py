"""A study is what its pictures of the patient show: neither its size nor its screenshots decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue, set_state
from cbmir_node.catalog.work.requests import request_missing_work
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import NotEmbeddedError
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.search.examples import IMAGES_PER_GROUP, IMAGES_PER_SERIES
from cbmir_node.search.query import Example, SimilarityLevel, SimilarityQuery

DIMENSION = 24
RANDOM = np.random.default_rng(11)
Vectors = np.ndarray[Any, np.dtype[np.float32]]
NOTHING: Vectors = np.empty((0, DIMENSION), np.float32)


def unrelated(images: int) -> Vectors:
    return _unit(RANDOM.standard_normal((images, DIMENSION)))


def alike(to: Vectors, images: int, noise: float) -> Vectors:
    return _unit(to + noise * unrelated(images))


def _unit(vectors: Any) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Archive:
    """A catalogue whose studies are written with their vectors, many at a time."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog = catalog
        registry = ModelRegistry(catalog)
        registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": DIMENSION}))
        self.model = registry.active()
        self.search = SimilaritySearch(
            catalog, folder, SearchSettings(), IndexSettings(), writable=False
        )

    def add(self, study: str, *series: Vectors, screenshots: Vectors = NOTHING) -> None:
        """Store a study whose series have these vectors, an image each."""
        with self.catalog.write() as connection:
            patient = _insert(connection, schema.patients, identity=study)
            row = _insert(
                *(connection, schema.studies),
                patient=patient,
                study_instance_uid=study,
                received_at=0,
                updated_at=0,
            )
            for number, vectors in enumerate([*series, screenshots], start=1):
                stands = number <= len(series)
                uid = f"{study}.{number}"
                owner = _insert(connection, schema.series, study=row, series_instance_uid=uid)
                if len(vectors):
                    images = [_image(owner, uid, n, stands) for n in range(1, len(vectors) + 1)]
                    connection.execute(insert(schema.instances), images)
            request_missing_work(connection, self.model.row, 0)
        claims = WorkQueue(self.catalog, "t/1", 60).claim(self.model.row, 10_000)
        frames = [
            FrameVectors(1, {"embedding": vector})
            for vector in np.concatenate([*series, screenshots])
        ]
        pairs = zip(claims, frames, strict=True)
        write_vectors(self.catalog, [(claim, [frame]) for claim, frame in pairs])

    def ask(self, uid: str, level: SimilarityLevel = "STUDY", k: int = 10) -> dict[str, float]:
        """Return similarity by Study Instance UID, best first."""
        matches = self.search.answer(SimilarityQuery([Example(level, uid)], k=k)).matches
        return {
            ".".join(match.matched_sop_instance_uid.split(".")[:2]): match.similarity
            for match in matches
        }


def _insert(connection: Any, table: Any, **values: Any) -> int:
    (row,) = connection.execute(insert(table).values(**values)).inserted_primary_key
    return int(row)


def _image(series: int, uid: str, number: int, stands: bool) -> dict[str, Any]:
    return {
        "series": series,
        "sop_instance_uid": f"{uid}.{number}",
        "instance_number": str(number),
        "representative": stands,
        "has_pixels": True,
        "path": "a file",
        **dict.fromkeys(("transfer_syntax_uid", "content_sha256", "source"), ""),
        **dict.fromkeys(("size_bytes", "received_at"), 0),
    }


@pytest.fixture
def archive(catalog: Catalog, tmp_path: Path) -> Archive:
    return Archive(catalog, tmp_path / "index")


def test_a_study_of_2000_slices_neither_wins_nor_costs_by_its_size(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,950 unrelated slices with 50 near-copies lose to 20 slices that are alike."""
    organ = unrelated(1)
    archive.add("1.1", alike(organ, 20, 0.4))
    archive.add("1.2", alike(organ, 20, 0.4))
    giant = [unrelated(200) for _ in range(9)]
    archive.add("1.3", *giant, np.concatenate([unrelated(150), alike(organ, 50, 0.1)]))
    for number in range(4, 8):
        archive.add(f"1.{number}", unrelated(20))
    cache = archive.search.active_cache()
    vectors, compared = cache.vectors, list[int]()
    monkeypatch.setattr(cache, "vectors", lambda ids: compared.append(len(ids)) or vectors(ids))
    found = archive.ask("1.1")
    assert list(found)[:2] == ["1.2", "1.3"]
    assert found["1.2"] > found["1.3"] + 0.1
    small = 5 * 20
    assert max(compared) == min(10 * IMAGES_PER_SERIES, IMAGES_PER_GROUP) + small


def test_many_series_cost_no_more_than_the_cap(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("1.1", unrelated(3))
    archive.add("1.2", *(unrelated(20) for _ in range(40)))
    cache = archive.search.active_cache()
    vectors, compared = cache.vectors, list[int]()
    monkeypatch.setattr(cache, "vectors", lambda ids: compared.append(len(ids)) or vectors(ids))
    assert list(archive.ask("1.1")) == ["1.2"]
    assert max(compared) == IMAGES_PER_GROUP


def test_screenshots_stand_for_a_study_only_where_there_is_nothing_else(archive: Archive) -> None:
    organ, screen = unrelated(1), unrelated(1)
    archive.add("1.1", alike(organ, 5, 0.2), screenshots=alike(screen, 50, 0.1))
    archive.add("1.2", alike(organ, 5, 0.2))
    archive.add("1.3", screenshots=alike(screen, 50, 0.1))  # nothing else
    archive.add("1.4", alike(screen, 5, 0.1))
    found = archive.ask("1.2")
    assert next(iter(found)) == "1.1"
    assert found["1.1"] > 0.9
    assert set(found) == {"1.1", "1.3", "1.4"}
    found = archive.ask("1.3")
    assert next(iter(found)) == "1.4"
    assert found["1.4"] > found["1.1"] + 0.2


def test_a_skipped_image_asks_by_its_neighbour(archive: Archive) -> None:
    organ = unrelated(1)
    archive.add("1.1", np.concatenate([unrelated(1), alike(organ, 1, 0.1), unrelated(1)]))
    archive.add("1.2", alike(organ, 2, 0.1))
    archive.add("1.3", unrelated(5))
    rows = schema.instances.c
    with archive.catalog.write() as connection:
        query = select(rows.id).where(rows.sop_instance_uid == "1.1.1.3")
        skipped = connection.execute(query).scalar_one()
        vector = schema.vectors.c.instance == skipped
        connection.execute(schema.vectors.delete().where(vector))
        set_state(connection, archive.model.row, [skipped], "skipped")
    with archive.catalog.write() as connection:  # its nearest neighbour
        set_state(connection, archive.model.row, [skipped - 2], "failed")
    assert next(iter(archive.ask("1.1.1.3", "IMAGE"))) == "1.2"
    with archive.catalog.write() as connection:
        set_state(connection, archive.model.row, [skipped], "failed")
    with pytest.raises(NotEmbeddedError):
        archive.ask("1.1.1.3", "IMAGE")
