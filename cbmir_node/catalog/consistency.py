"""Queries that find what does not fit together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import and_, func, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.upsert import insert_unless_present
from cbmir_node.catalog.vectors.rows import EMBEDDING
from cbmir_node.catalog.work.queue import set_state
from cbmir_node.catalog.work.requests import NOT_KEPT, reset_work

_PAGE = 10_000
_FLOAT_BYTES = 4

_instances = schema.instances.c
_work = schema.work.c
_vectors = schema.vectors.c
_deleted, _unused = schema.deleted_objects.c, schema.unused_files.c


class StoredInstance(NamedTuple):
    """An instance and the file it should have."""

    instance: int
    sop_instance_uid: str
    path: str
    size_bytes: int
    sha256: str


def stored_instances(catalog: Catalog) -> Iterator[StoredInstance]:
    """Iterate over all instances, page by page."""
    last = 0
    while True:
        with catalog.read() as connection:
            rows = connection.execute(
                select(
                    _instances.id,
                    _instances.sop_instance_uid,
                    _instances.path,
                    _instances.size_bytes,
                    _instances.content_sha256,
                )
                .where(_instances.id > last)
                .order_by(_instances.id)
                .limit(_PAGE)
            ).all()
        if not rows:
            return
        for row in rows:
            yield StoredInstance(*row)
        last = rows[-1].id


def has_file(catalog: Catalog, expected: StoredInstance) -> bool:
    """Tell whether an instance still has the file that it had when it was read."""
    return file_of(catalog, expected.instance) == expected.path


def file_of(catalog: Catalog, instance: int) -> str | None:
    """Return the file an instance has; empty without one, None when there is no such instance."""
    with catalog.read() as connection:
        query = select(_instances.path).where(_instances.id == instance)
        path: str | None = connection.execute(query).scalar()
    return path


def let_go(catalog: Catalog, instance: int, path: str) -> None:
    """Take a file that is lost from its instance, which has no pixels then.

    What waits to be embedded, or could not be, does so no more before its pixels come again.
    """
    with catalog.write() as connection:
        taken = connection.execute(
            update(schema.instances)
            .where(_instances.id == instance, _instances.path == path)
            .values(path="")
        )
        if taken.rowcount:
            models = select(_work.model).where(
                _work.instance == instance, _work.state.in_(("pending", "failed"))
            )
            for model in connection.execute(models).scalars().all():
                set_state(connection, model, [instance], "failed", NOT_KEPT)


def to_be_removed(catalog: Catalog, until: float) -> list[str]:
    """Return the SOP Instance UIDs of objects that were deleted before a moment and are here."""
    query = (
        select(_deleted.sop_instance_uid)
        .where(_deleted.instance.is_not(None), _deleted.deleted_at <= until)
        .order_by(_deleted.sop_instance_uid)
    )
    with catalog.read() as connection:
        return list(connection.execute(query).scalars())


def unused_since(catalog: Catalog, until: float) -> list[str]:
    """Return the files that nothing names since a moment, whether they are there or not."""
    query = select(_unused.path).where(_unused.since <= until).order_by(_unused.path)
    with catalog.read() as connection:
        return list(connection.execute(query).scalars())


def never_queued(catalog: Catalog, model: InstalledModel) -> list[tuple[int, str]]:
    """Return (row, SOP Instance UID) of instances without a work row for the model."""
    query = (
        select(_instances.id, _instances.sop_instance_uid)
        .select_from(
            schema.instances.outerjoin(
                schema.work, and_(_work.instance == _instances.id, _work.model == model.row)
            )
        )
        .where(_work.instance.is_(None))
    )
    with catalog.read() as connection:
        return [(row.id, row.sop_instance_uid) for row in connection.execute(query)]


def without_vector(catalog: Catalog, model: InstalledModel) -> list[tuple[int, str]]:
    """Return (row, SOP Instance UID) of instances marked embedded that have no vector."""
    query = (
        select(_instances.id, _instances.sop_instance_uid)
        .join(schema.work, and_(_work.instance == _instances.id, _work.model == model.row))
        .where(
            _work.state == "embedded",
            ~select(_vectors.id)
            .where(_vectors.instance == _instances.id, _vectors.model == model.row)
            .exists(),
        )
    )
    with catalog.read() as connection:
        return [(row.id, row.sop_instance_uid) for row in connection.execute(query)]


def wrong_length(catalog: Catalog, model: InstalledModel) -> list[tuple[int, str]]:
    """Return (row, SOP Instance UID) of instances with a vector or code of another length."""
    lengths = [
        (space, func.length(_vectors.vector), dimension * _FLOAT_BYTES)
        for space, dimension in model.spaces.items()
    ]
    if model.code_bits:
        code = func.coalesce(func.length(_vectors.code), 0)
        lengths.append((EMBEDDING, code, model.code_bits // 8))
    found: dict[int, str] = {}
    with catalog.read() as connection:
        for space, length, expected in lengths:
            query = (
                select(_instances.id, _instances.sop_instance_uid)
                .join(schema.vectors, _vectors.instance == _instances.id)
                .where(_vectors.model == model.row, _vectors.space == space, length != expected)
            )
            found.update((row.id, row.sop_instance_uid) for row in connection.execute(query))
    return sorted(found.items())


def queue_again(catalog: Catalog, model: int, instance: int) -> None:
    """Queue an instance for a model, whatever its work row says."""
    now = time.time()
    row = {"instance": instance, "model": model, "state": "pending", "requested_at": now}
    with catalog.write() as connection:
        insert_unless_present(connection, schema.work, [row])
        reset_work(connection, (_work.model == model) & (_work.instance == instance), now)
