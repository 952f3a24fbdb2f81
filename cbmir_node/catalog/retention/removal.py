"""Takes objects out of the catalogue, in transactions short enough for receivers to wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.retention.unused_files import name_unused
from cbmir_node.catalog.vectors.rows import remove_vectors
from cbmir_node.catalog.work.series_cap import free_places, places_of

_deleted, _instances = schema.deleted_objects.c, schema.instances.c
_LEVELS = (
    (schema.series, schema.instances.c.series, schema.series.c.study),
    (schema.studies, schema.series.c.study, schema.studies.c.patient),
    (schema.patients, schema.studies.c.patient, schema.patients.c.id),
)
"""Table, what refers to it from below, and what it refers to above (nothing at the top)."""


@dataclass(frozen=True)
class Removed:
    """What a transaction took out.

    Attributes
    ----------
    instances : int
    paths : list of str
        Their files, which nothing names any more.
    size_bytes : int
        Of these files.
    """

    instances: int
    paths: list[str]
    size_bytes: int


def remove_buried(catalog: Catalog, limit: int) -> Removed:
    """Remove up to `limit` objects that have a tombstone: rows, vectors, and what becomes empty.

    Of a long series other images are embedded in place of those that go.
    """
    # a comparison, and no join: so both databases walk the index of what is to be removed
    buried = select(_deleted.instance).where(_deleted.instance > 0).order_by(_deleted.instance)
    with catalog.read() as connection:
        # looked for every few seconds, and as a rule in vain: that must not stop receivers
        if connection.execute(buried.limit(1)).first() is None:
            return Removed(0, [], 0)
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        hold(connection, Lock.MODELS_IN_USE, shared=True)
        rows = connection.execute(
            select(_instances.id, _instances.series, _instances.path, _instances.size_bytes)
            .where(_instances.id.in_(buried.limit(limit)))
            .order_by(_instances.id)
        ).all()
        if not rows:
            return Removed(0, [], 0)
        instances = [row.id for row in rows]
        kept = [row for row in rows if row.path]
        remove_vectors(connection, instances)
        places = places_of(connection, instances)
        connection.execute(delete(schema.instances).where(_instances.id.in_(instances)))
        free_places(connection, places)
        name_unused(connection, [row.path for row in kept])
        remove_empty(connection, sorted({row.series for row in rows}))
    return Removed(len(rows), [row.path for row in kept], sum(row.size_bytes for row in kept))


def remove_empty(connection: Connection, series: Sequence[int]) -> None:
    """Remove series without instances, then their studies and patients that are empty by that.

    In the caller's transaction, which holds `Lock.HIERARCHY`.
    """
    candidates = list(series)
    for table, below, above in _LEVELS:
        if not candidates:
            return
        empty = table.c.id.in_(candidates) & ~exists().where(below == table.c.id)
        gone = connection.execute(select(table.c.id, above).where(empty)).all()
        connection.execute(delete(table).where(table.c.id.in_([row[0] for row in gone])))
        candidates = sorted({row[1] for row in gone})


def remove_empty_series(catalog: Catalog, series: int) -> None:
    """Remove a series, its study and its patient where nothing is in them any more."""
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        remove_empty(connection, [series])


def empty_rows(catalog: Catalog) -> list[tuple[str, int]]:
    """Return (table, row) of the patients, studies and series that nothing is in."""
    found = []
    with catalog.read() as connection:
        for table, below, _ in _LEVELS:
            empty = select(table.c.id).where(~exists().where(below == table.c.id))
            found += [(table.name, int(row)) for row in connection.execute(empty).scalars()]
    return found


def remove_all_empty(catalog: Catalog) -> None:
    """Remove all patients, studies and series that nothing is in."""
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        for table, below, _ in _LEVELS:
            connection.execute(delete(table).where(~exists().where(below == table.c.id)))
