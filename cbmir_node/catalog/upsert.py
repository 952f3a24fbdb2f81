"""Find a row by its unique columns, or insert it, whoever else does the same at this moment."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite


def insert_unless_present(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Insert the rows that break no unique constraint; return how many those were."""
    if not rows:
        return 0
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).on_conflict_do_nothing()
    return connection.execute(statement, rows).rowcount


def find_or_insert(
    connection: Connection, table: Table, unique: dict[str, Any], values: dict[str, Any]
) -> int:
    """Return the id of the row whose `unique` columns match; insert it with `values` if absent.

    The first description of a patient, study or series stays: later objects do not change it.
    """
    query = select(table.c.id).where(*(table.c[name] == value for name, value in unique.items()))
    found = connection.execute(query).scalar()
    if found is None:
        insert_unless_present(connection, table, [{**values, **unique}])
        found = connection.execute(query).scalar_one()
    return int(found)
