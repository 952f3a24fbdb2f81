"""Ordinary queries over patient → study → series → image, as C-FIND and QIDO-RS ask them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, select, true
from sqlalchemy.sql.selectable import FromClause

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEYS, LEVELS, SEQUENCES, Level
from cbmir_node.catalog.query.computed_keys import COMPUTED_KEYS, computed, rows_not_kept
from cbmir_node.catalog.query.conditions import MATCHED_COMPUTED_KEYS, conditions, level_of
from cbmir_node.catalog.query.sequence_items import matching_items

_ROWS_AT_ONCE = 1000  # databases limit the parameters of a statement

_JOINED: dict[Level, FromClause] = {
    "PATIENT": schema.patients,
    "STUDY": schema.patients.join(schema.studies),
    "SERIES": schema.patients.join(schema.studies).join(schema.series),
    "IMAGE": schema.patients.join(schema.studies).join(schema.series).join(schema.instances),
}
_BELOW: dict[Level, tuple[Any, tuple[FromClause, ...]]] = {
    "PATIENT": (schema.studies.c.patient, (schema.studies, schema.series, schema.instances)),
    "STUDY": (schema.series.c.study, (schema.series, schema.instances)),
    "SERIES": (schema.instances.c.series, (schema.instances,)),
}
"""What refers to a level's rows, and the tables below it from there."""


@dataclass
class Match:
    """One answer.

    Attributes
    ----------
    row : int
        Row number at the level asked for.
    values : dict of str to str
        Keyword to text, several values joined by backslash.
    items : dict of str to list
        Keyword of a sequence to its items, each a mapping of keyword to text.
    kept : bool
        Whether the pixels of all its objects are in the archive.
    """

    row: int
    values: dict[str, str]
    items: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    kept: bool = True


def supported_keys(level: Level) -> tuple[str, ...]:
    """Return what can be returned at `level`: its keys and those above, and paths in sequences."""
    above = LEVELS[: LEVELS.index(level) + 1]
    stored = [key.keyword for key in KEYS if key.level in above]
    for sequence in SEQUENCES:
        if sequence.level in above:
            stored += [sequence.keyword, *sequence.paths]
    return (*stored, *(keyword for part in above for keyword in COMPUTED_KEYS[part]))


def matched_keys() -> frozenset[str]:
    """Return the keys that can be matched, and paths in sequences."""
    paths = (path for sequence in SEQUENCES for path in sequence.paths)
    return frozenset((*(key.keyword for key in KEYS), *paths, *MATCHED_COMPUTED_KEYS))


def find(
    catalog: Catalog,
    level: Level,
    keys: Mapping[str, str],
    wanted: Collection[str],
    limit: int,
    *,
    offset: int = 0,
    combined_date_times: bool = False,
    fuzzy_names: bool = False,
) -> list[Match]:
    """Return what matches, newest studies first.

    Parameters
    ----------
    keys : mapping of str to str
        Matching keys, as in `matching.conditions`; one of a level below `level` matches where it
        does for something below (PS3.4 C.4.1.3.2.1). What cannot be matched is ignored.
    wanted : collection of str
        Keywords and paths to return; unknown ones are ignored.
    limit : int
        Matches at most.
    offset : int
        Matches to leave out first; the order is always the same.
    combined_date_times, fuzzy_names : bool
        See `matching.conditions`.

    Raises
    ------
    QueryError
        A key's value does not fit.
    """
    known = {keyword: keys[keyword] for keyword in keys if keyword in matched_keys()}
    depth = LEVELS.index(level)
    here = {key: known[key] for key in known if LEVELS.index(level_of(key)) <= depth}
    below = {key: known[key] for key in known if key not in here}
    matching = partial(conditions, combined_date_times=combined_date_times, fuzzy_names=fuzzy_names)
    narrowed = _rows(level).where(matching(here), _some_below(level, below, matching))
    narrowed = narrowed.order_by(*_order(level)).limit(limit).offset(offset)
    return _matches(catalog, level, narrowed, wanted, here)


def rows_by_number(
    catalog: Catalog,
    level: Level,
    rows: Sequence[int],
    wanted: Collection[str],
    keys: Mapping[str, str] | None = None,
) -> dict[int, Match]:
    """Return the attributes of known rows, by row number; `keys` choose items of sequences."""
    known = _rows(level).where(schema.TABLE_OF_LEVEL[level].c.id.in_(list(rows)))
    return {match.row: match for match in _matches(catalog, level, known, wanted, keys or {})}


def _rows(level: Level) -> Select[Any]:
    """Return the query of all rows of a level, without their attributes."""
    return select(schema.TABLE_OF_LEVEL[level].c.id.label("row")).select_from(_JOINED[level])


def _some_below(
    level: Level,
    keys: Mapping[str, str],
    matching: Callable[[Mapping[str, str]], ColumnElement[bool]],
) -> ColumnElement[bool]:
    """Match what has something below it that matches all of `keys`."""
    if not keys:
        return true()
    owner, tables = _BELOW[level]
    deepest = max(LEVELS.index(level_of(keyword)) for keyword in keys)
    source = tables[0]
    for table in tables[1 : deepest - LEVELS.index(level)]:
        source = source.join(table)
    query = select(owner).select_from(source)
    return schema.TABLE_OF_LEVEL[level].c.id.in_(query.where(matching(keys)))


def _matches(
    catalog: Catalog,
    level: Level,
    query: Select[Any],
    wanted: Collection[str],
    keys: Mapping[str, str],
) -> list[Match]:
    """Read what is wanted of the rows that `query` chooses."""
    above = LEVELS[: LEVELS.index(level) + 1]
    stored = [key for key in KEYS if key.level in above and key.keyword in wanted]
    columns = [schema.TABLE_OF_LEVEL[key.level].c[key.column].label(key.keyword) for key in stored]
    owners = [schema.TABLE_OF_LEVEL[part].c.id.label(part) for part in above]
    with catalog.read() as connection:
        found = connection.execute(query.add_columns(*columns, *owners)).mappings().all()
        matches = [
            (Match(row["row"], {key.keyword: str(row[key.keyword]) for key in stored}), row)
            for row in found
        ]
        for start in range(0, len(matches), _ROWS_AT_ONCE):
            part = matches[start : start + _ROWS_AT_ONCE]
            _complete(connection, level, part, wanted, keys)
    return [match for match, _ in matches]


def _complete(
    connection: Connection,
    level: Level,
    matches: Sequence[tuple[Match, RowMapping]],
    wanted: Collection[str],
    keys: Mapping[str, str],
) -> None:
    """Add what is not in the columns of a match: counts, lists, sequences, availability."""
    rows = {match.row for match, _ in matches}
    lacking = rows_not_kept(connection, level, rows)
    for match, _ in matches:
        match.kept = match.row not in lacking
    for part in LEVELS[: LEVELS.index(level) + 1]:
        owners = {row[part] for _, row in matches}
        for keyword in (keyword for keyword in COMPUTED_KEYS[part] if keyword in wanted):
            values = computed(connection, keyword, owners)
            for match, row in matches:
                match.values[keyword] = values.get(row[part], "")
        for sequence in (one for one in SEQUENCES if one.level == part):
            if not {sequence.keyword, *sequence.paths}.isdisjoint(wanted):
                items = matching_items(connection, sequence, owners, keys)
                for match, row in matches:
                    match.items[sequence.keyword] = items.get(row[part], [])


def _order(level: Level) -> list[Any]:
    match level:
        case "PATIENT":
            return [schema.patients.c.patient_name_alphabetic, schema.patients.c.id]
        case "STUDY":
            return [schema.studies.c.study_date.desc(), schema.studies.c.id]
        case "SERIES":
            return [schema.studies.c.study_date.desc(), schema.series.c.study, schema.series.c.id]
        case _:
            return [schema.instances.c.series, schema.instances.c.id]
