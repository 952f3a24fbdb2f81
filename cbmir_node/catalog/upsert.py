"""Find a row by its unique columns, or insert it, whoever else does the same at this moment."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Connection, Insert, Select, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite


def insert_unless_present(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert the rows that break no unique constraint."""
    if rows:
        connection.execute(_insertion(connection.dialect.name, table), rows)


def find_or_insert(
    connection: Connection, table: Table, unique: dict[str, Any], values: dict[str, Any]
) -> int:
    """Return the id of the row whose `unique` columns match; insert it with `values` if absent.

    The first description of a patient, study or series stays: later objects do not change it.
    """
    query = _search(table, tuple(unique))
    found = connection.execute(query, unique).scalar()
    if found is None:
        insert_unless_present(connection, table, [{**values, **unique}])
        found = connection.execute(query, unique).scalar_one()
    return int(found)


# Statements are built once: building one costs more than running it.


@functools.cache
def _insertion(dialect: str, table: Table) -> Insert:
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


@functools.cache
def _search(table: Table, unique: tuple[str, ...]) -> Select[Any]:
    return select(table.c.id).where(*(table.c[name] == bindparam(name) for name in unique))
