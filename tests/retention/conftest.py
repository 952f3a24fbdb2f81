"""Stores on both databases, with a tiny network and retention rules of choice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.config import DicomSettings, Settings
from cbmir_node.dicom.server import DicomServer
from cbmir_node.node import open_intake
from cbmir_node.retention.duty import RetentionDuty
from cbmir_node.stores import Stores
from cbmir_node.verification import Verification
from cbmir_node.worker import Worker
from tests.objects import make_object
from tests.small_node import drain, open_small_stores

OpenStores = Callable[..., Stores]
PACS = {"PACS": {"host": "127.0.0.1", "port": 4242}}
NONE = {"retain": "none", "retrieve_from": "PACS"}


@pytest.fixture
def open_stores_with(catalog: Catalog, tmp_path: Path) -> Iterator[OpenStores]:
    """Return a function that opens stores; keyword arguments are sections of `Settings`."""
    opened: list[Stores] = []

    def open_with(**sections: Any) -> Stores:
        url = catalog.engine.url.render_as_string(hide_password=False)
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        settings = Settings.model_validate(
            {"data_dir": folder, "catalog": {"url": url}, "peers": PACS, **sections}
        )
        opened.append(open_small_stores(settings))
        return opened[-1]

    yield open_with
    for stores in opened:
        stores.close()


@pytest.fixture
def stores(open_stores_with: OpenStores) -> Stores:
    """Open stores that keep everything."""
    return open_stores_with()


def study_of(number: int, **attributes: Any) -> list[Dataset]:
    """Return objects of one study of a new patient, in two series where there are several."""
    common = {
        "StudyInstanceUID": generate_uid(),
        "PatientID": f"P{generate_uid()[-9:]}",
        **attributes,
    }
    series = [generate_uid(), generate_uid()]
    return [
        make_object(**{**common, "SeriesInstanceUID": series[k % 2], "InstanceNumber": k + 1})
        for k in range(number)
    ]


def work_off(stores: Stores) -> None:
    """Embed everything with real pixels and the tiny network."""
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())


def embed(stores: Stores, failing: Collection[str] = ()) -> None:
    """Give everything that waits some vector, without the cost of decoders and networks."""
    model = stores.registry.active()
    queue = WorkQueue(stores.catalog, "test/1", 60)
    random = np.random.default_rng(0)
    while claims := queue.claim(model.row, 100):
        results = []
        for claim in claims:
            if claim.sop_instance_uid in failing:
                queue.finish(claim, "failed", "on purpose", 1)
                continue
            vectors = {
                space: random.standard_normal(dimension).astype(np.float32)
                for space, dimension in model.spaces.items()
            }
            code = random.bytes(model.code_bits // 8)
            results.append((claim, [FrameVectors(1, vectors, code, "A", 0.5)]))
        write_vectors(stores.catalog, results)


def apply_retention(stores: Stores) -> None:
    RetentionDuty(stores).run_once()


def assert_sound(stores: Stores) -> None:
    """Check that archive and catalogue agree, that every file has a row, and nothing is left."""
    assert Verification(stores).findings(deep=True) == []
    paths = {path for path in column(stores, schema.instances.c.path) if path}
    assert paths == set(stores.archive.files())
    assert count(stores, schema.unused_files) == 0


def column(stores: Stores, wanted: Any) -> list[Any]:
    with stores.catalog.read() as connection:
        return list(connection.execute(select(wanted)).scalars())


def uids(stores: Stores) -> set[str]:
    return set(column(stores, schema.instances.c.sop_instance_uid))


def buried(stores: Stores) -> dict[str, str]:
    """Return SOP Instance UID and cause of each tombstone."""
    deleted = schema.deleted_objects.c
    with stores.catalog.read() as connection:
        rows = connection.execute(select(deleted.sop_instance_uid, deleted.cause))
        return {row[0]: row[1] for row in rows}


def count(stores: Stores, *tables: Any) -> int:
    """Return how many rows some tables have together."""
    with stores.catalog.read() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables
        )


@pytest.fixture
def start_server() -> Iterator[Callable[[Stores], int]]:
    """Return a function that starts the DICOM port on stores and returns its number."""
    parts: list[Callable[[], None]] = []

    def start(stores: Stores) -> int:
        intake = open_intake(stores)
        settings = stores.settings.model_copy(update={"dicom": DicomSettings(port=0)})
        server = DicomServer(settings, intake, stores.catalog, None)  # type: ignore[arg-type]
        server.start()
        parts.extend([intake.close, server.stop])
        return server.port

    yield start
    for close in reversed(parts):
        close()
