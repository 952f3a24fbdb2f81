"""What is counted or gathered below a row when it is asked for (PS3.4 C.3.4), and availability."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, exists, func, literal_column, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.keys import Level

COMPUTED_KEYS: dict[Level, tuple[str, ...]] = {
    "PATIENT": (
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
    ),
    "STUDY": (
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    "SERIES": ("NumberOfSeriesRelatedInstances",),
    "IMAGE": (),
}
"""Keys that are counted or gathered when they are asked for, by what they describe."""

_studies, _series, _instances = schema.studies.c, schema.series.c, schema.instances.c
_OF_STUDIES = schema.studies.join(schema.series)
_OF_SERIES = schema.series.join(schema.instances)
_COUNTED: dict[str, tuple[Any, Any]] = {
    "NumberOfPatientRelatedStudies": (_studies.patient, schema.studies),
    "NumberOfPatientRelatedSeries": (_studies.patient, _OF_STUDIES),
    "NumberOfPatientRelatedInstances": (_studies.patient, _OF_STUDIES.join(schema.instances)),
    "NumberOfStudyRelatedSeries": (_series.study, schema.series),
    "NumberOfStudyRelatedInstances": (_series.study, _OF_SERIES),
    "NumberOfSeriesRelatedInstances": (_instances.series, schema.instances),
}
_GATHERED: dict[str, tuple[Any, Any]] = {
    "ModalitiesInStudy": (_series.modality, schema.series),
    "SOPClassesInStudy": (_instances.sop_class_uid, _OF_SERIES),
}


def computed(connection: Connection, keyword: str, rows: Collection[int]) -> dict[int, str]:
    """Return the value of a computed key, by the row that it describes.

    Parameters
    ----------
    keyword : str
        One of `COMPUTED_KEYS`.
    rows : collection of int
        Row numbers of patients, studies or series.
    """
    gathered: dict[int, list[str]] = {}
    for row, value in connection.execute(_query(keyword, list(rows))):
        gathered.setdefault(row, []).append(str(value))
    return {row: "\\".join(sorted(values)) for row, values in gathered.items()}


def rows_not_kept(connection: Connection, level: Level, rows: Collection[int]) -> set[int]:
    """Return the rows below which at least one object's pixels are not in the archive."""
    # as it stands in the partial index: a database does not look through a parameter
    not_kept = _instances.path == literal_column("''")
    if level == "IMAGE":
        query = select(_instances.id).where(_instances.id.in_(list(rows)), not_kept)
    else:
        row, source = _above_series(level)
        lacking = exists().where(_instances.series == _series.id, not_kept)
        query = select(row).select_from(source).where(row.in_(list(rows)), lacking).distinct()
    return set(connection.execute(query).scalars())


def _above_series(level: Level) -> tuple[Any, Any]:
    """Return the column that numbers what is above a series, and where it stands."""
    match level:
        case "PATIENT":
            return _studies.patient, _OF_STUDIES
        case "STUDY":
            return _series.study, schema.series
        case _:
            return _series.id, schema.series


def _query(keyword: str, rows: list[int]) -> Select[Any]:
    """Return a query of (row, value): one row each for counts, several for lists of values."""
    if keyword in _GATHERED:
        value, source = _GATHERED[keyword]
        query = select(_series.study, value).select_from(source)
        return query.where(_series.study.in_(rows), value != "").distinct()
    owner, source = _COUNTED[keyword]
    return select(owner, func.count()).select_from(source).where(owner.in_(rows)).group_by(owner)
