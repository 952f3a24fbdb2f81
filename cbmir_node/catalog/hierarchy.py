"""Ordinary queries over patient → study → series → image, as C-FIND and QIDO-RS ask them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, distinct, func, select
from sqlalchemy.sql.selectable import FromClause

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, LEVELS, Level
from cbmir_node.catalog.matching import conditions

COMPUTED_KEYS: dict[Level, tuple[str, ...]] = {
    "PATIENT": ("NumberOfPatientRelatedStudies",),
    "STUDY": (
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    "SERIES": ("NumberOfSeriesRelatedInstances",),
    "IMAGE": (),
}
"""Keys that are counted or gathered when they are asked for."""

_JOINED: dict[Level, FromClause] = {
    "PATIENT": schema.patients,
    "STUDY": schema.patients.join(schema.studies),
    "SERIES": schema.patients.join(schema.studies).join(schema.series),
    "IMAGE": schema.patients.join(schema.studies).join(schema.series).join(schema.instances),
}


@dataclass(frozen=True)
class Match:
    """One answer.

    Attributes
    ----------
    row : int
        Row number at the level asked for.
    values : dict of str to str
        Keyword to text, several values joined by backslash.
    """

    row: int
    values: dict[str, str]


def supported_keys(level: Level) -> tuple[str, ...]:
    """Return the keywords that can be matched or returned at `level`."""
    above = LEVELS[: LEVELS.index(level) + 1]
    stored = tuple(key.keyword for key in KEY_BY_KEYWORD.values() if key.level in above)
    return (*stored, *(keyword for part in above for keyword in COMPUTED_KEYS[part]))


def find(
    catalog: Catalog,
    level: Level,
    keys: Mapping[str, str],
    wanted: Collection[str],
    limit: int,
) -> list[Match]:
    """Return what matches, newest studies first.

    Parameters
    ----------
    keys : mapping of str to str
        Matching keys at `level` or above.
    wanted : collection of str
        Keywords to return; unknown ones are ignored.
    limit : int
        Matches at most.

    Raises
    ------
    QueryError
        A key's value does not fit.
    """
    supported = supported_keys(level)
    matching = conditions({key: value for key, value in keys.items() if key in supported})
    narrowed = _rows(level).where(matching).order_by(*_order(level)).limit(limit)
    return _matches(catalog, level, narrowed, wanted)


def rows_by_number(
    catalog: Catalog, level: Level, rows: Sequence[int], wanted: Collection[str]
) -> dict[int, Match]:
    """Return the attributes of known rows, by row number."""
    known = _rows(level).where(schema.TABLE_OF_LEVEL[level].c.id.in_(list(rows)))
    return {match.row: match for match in _matches(catalog, level, known, wanted)}


def _rows(level: Level) -> Select[Any]:
    """Return the query of all rows of a level, without their attributes."""
    return select(schema.TABLE_OF_LEVEL[level].c.id.label("row")).select_from(_JOINED[level])


def _matches(
    catalog: Catalog, level: Level, query: Select[Any], wanted: Collection[str]
) -> list[Match]:
    """Read the wanted attributes of the rows that `query` chooses."""
    stored = [key for key in supported_keys(level) if key in wanted and key in KEY_BY_KEYWORD]
    with_attributes = query.add_columns(*(_column(key).label(key) for key in stored))
    with catalog.read() as connection:
        found = connection.execute(with_attributes).mappings().all()
    matches = [Match(row["row"], {key: str(row[key]) for key in stored}) for row in found]
    add_computed(catalog, level, matches, wanted)
    return matches


def add_computed(
    catalog: Catalog, level: Level, matches: Sequence[Match], wanted: Collection[str]
) -> None:
    """Add the computed keys of `level` that are wanted to each match."""
    names = [name for name in COMPUTED_KEYS[level] if name in wanted]
    if not names or not matches:
        return
    rows = [match.row for match in matches]
    with catalog.read() as connection:
        for name in names:
            gathered: dict[int, list[str]] = {}
            for row, value in connection.execute(_computed(name, rows)):
                gathered.setdefault(row, []).append(str(value))
            for match in matches:
                match.values[name] = "\\".join(sorted(gathered.get(match.row, [])))


def _computed(name: str, rows: Sequence[int]) -> Select[Any]:
    """Return a query of (row, value): one row each for counts, several for lists of values."""
    studies, series, instances = schema.studies.c, schema.series.c, schema.instances.c
    joined = schema.series.join(schema.instances)
    match name:
        case "NumberOfPatientRelatedStudies":
            counted = select(studies.patient, func.count())
            return counted.where(studies.patient.in_(rows)).group_by(studies.patient)
        case "NumberOfStudyRelatedSeries":
            counted = select(series.study, func.count())
            return counted.where(series.study.in_(rows)).group_by(series.study)
        case "NumberOfStudyRelatedInstances":
            counted = select(series.study, func.count()).select_from(joined)
            return counted.where(series.study.in_(rows)).group_by(series.study)
        case "NumberOfSeriesRelatedInstances":
            counted = select(instances.series, func.count())
            return counted.where(instances.series.in_(rows)).group_by(instances.series)
        case "ModalitiesInStudy":
            return select(series.study, series.modality).where(series.study.in_(rows)).distinct()
        case _:
            return (
                select(series.study, distinct(instances.sop_class_uid))
                .select_from(joined)
                .where(series.study.in_(rows))
            )


def _column(keyword: str) -> Any:
    key = KEY_BY_KEYWORD[keyword]
    return schema.TABLE_OF_LEVEL[key.level].c[key.column]


def _order(level: Level) -> list[Any]:
    match level:
        case "PATIENT":
            return [schema.patients.c.patient_name, schema.patients.c.id]
        case "STUDY":
            return [schema.studies.c.study_date.desc(), schema.studies.c.id]
        case "SERIES":
            return [schema.studies.c.study_date.desc(), schema.series.c.study, schema.series.c.id]
        case _:
            return [schema.instances.c.series, schema.instances.c.id]
