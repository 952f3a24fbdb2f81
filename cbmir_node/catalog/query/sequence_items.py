"""Items of the sequences that are matched: written once, returned with an answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, exists, insert, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.keys import SEQUENCE_BY_KEYWORD, Level, SequenceKey
from cbmir_node.catalog.query.conditions import item_conditions


def write_items(
    connection: Connection,
    items: Mapping[str, list[dict[str, str]]],
    owners: Mapping[Level, int],
) -> None:
    """Write the items of an object's sequences, unless an earlier object brought some.

    Parameters
    ----------
    connection : Connection
        In the transaction that enters the object.
    items : mapping
        As `records.read_items` returns them.
    owners : mapping of str to int
        Row number of the object's study and series, by level.
    """
    for keyword, columns in items.items():
        owner = owners[SEQUENCE_BY_KEYWORD[keyword].level]
        table = schema.SEQUENCE_ITEMS[keyword]
        if not connection.execute(select(exists().where(table.c.owner == owner))).scalar():
            rows = [{**item, "owner": owner} for item in columns]
            connection.execute(insert(table), rows)


def matching_items(
    connection: Connection,
    sequence: SequenceKey,
    owners: Collection[int],
    keys: Mapping[str, str],
) -> dict[int, list[dict[str, str]]]:
    """Return the items that match `keys`, by owner; a sequence is answered with these alone.

    Returns
    -------
    dict of int to list
        Each item as a mapping of keyword to text.
    """
    table = schema.SEQUENCE_ITEMS[sequence.keyword]
    columns = [table.c[key.column].label(key.keyword) for key in sequence.items]
    query = (
        select(table.c.owner, *columns)
        .where(table.c.owner.in_(list(owners)), *item_conditions(sequence, keys))
        .order_by(table.c.id)
    )
    found: dict[int, list[dict[str, str]]] = {}
    for owner, *values in connection.execute(query):
        item = dict(zip((key.keyword for key in sequence.items), values, strict=True))
        found.setdefault(owner, []).append(item)
    return found
