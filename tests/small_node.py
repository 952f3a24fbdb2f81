"""A data folder with a tiny network instead of the shipped one, and ways to look into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import open_catalog
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.config import Settings
from cbmir_node.node import open_intake
from cbmir_node.stores import Stores, open_stores
from cbmir_node.worker import Worker
from tests.models import build_model
from tests.objects import write


def open_small_stores(settings: Settings) -> Stores:
    """Create the data folder with a tiny network in use, or open it when it is there."""
    open_catalog(settings.catalog_url, create=True).close()
    stores = open_stores(settings, create=False)
    if not stores.registry.in_use():
        model = settings.data_dir.with_name(f"{settings.data_dir.name}-tiny.onnx")
        stores.use(stores.install(build_model(model)))
    return stores


def keep(stores: Stores, folder: Path, *datasets: Dataset) -> list[str]:
    """Put objects into the archive without the network; return their SOP Instance UIDs."""
    intake = open_intake(stores)
    try:
        for dataset in datasets:
            intake.accept_file(write(dataset, folder / "one.dcm"))
    finally:
        intake.close()
    return [str(dataset.SOPInstanceUID) for dataset in datasets]


def work(stores: Stores) -> dict[str, tuple[str, str, int]]:
    """Return state, reason and attempts of each instance with the model in use."""
    table, instances = schema.work.c, schema.instances.c
    query = (
        select(instances.sop_instance_uid, table.state, table.reason, table.attempts)
        .join(schema.instances, instances.id == table.instance)
        .where(table.model == stores.registry.active().row)
    )
    with stores.catalog.read() as connection:
        return {
            uid: (state, reason, tries) for uid, state, reason, tries in connection.execute(query)
        }


def vectors_of_each(stores: Stores) -> dict[str, int]:
    """Return how many vectors of the model in use each instance has."""
    instances, vectors = schema.instances.c, schema.vectors.c
    mine = (vectors.instance == instances.id) & (vectors.model == stores.registry.active().row)
    query = (
        select(instances.sop_instance_uid, func.count(vectors.id))
        .select_from(schema.instances.outerjoin(schema.vectors, mine))
        .group_by(instances.sop_instance_uid)
    )
    with stores.catalog.read() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def archive_file(stores: Stores, uid: str) -> Path:
    """Return where an instance's file is."""
    query = select(schema.instances.c.path).where(schema.instances.c.sop_instance_uid == uid)
    with stores.catalog.read() as connection:
        return stores.archive.path(connection.execute(query).scalar_one())


def states(stores: Stores, uids: Sequence[str]) -> list[str]:
    """Return the work states of some instances in order."""
    found = work(stores)
    return [found[uid][0] for uid in uids]


def drain(worker: Worker, model: InstalledModel) -> int:
    """Work until nothing of `model` is left for this worker; return how many instances it did."""
    total = 0
    while done := worker.work_once(model):
        total += done
    return total
