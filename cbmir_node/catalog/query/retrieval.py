"""The stored objects that a retrieval names (PS3.4 C.4.2.2 and C.4.3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, LEVELS, UNIQUE_KEY, Level

_ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class StoredObject:
    """One instance of the catalogue and where its file is.

    Attributes
    ----------
    instance : int
        Row number.
    transfer_syntax_uid : str
        In which it was received, and in which its file is.
    path : str
        Relative to the archive; empty when the pixels are not kept (any more).
    """

    instance: int
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: str


def stored_objects(catalog: Catalog, level: Level, keys: Mapping[str, str]) -> list[StoredObject]:
    """Return the objects that the unique keys name, study by study, series by series.

    Parameters
    ----------
    catalog : Catalog
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
        Query/Retrieve Level.
    keys : mapping of str to str
        Keyword to value, matched as it is: unique keys of `level` and above, of which UIDs may
        be lists joined by backslash; IssuerOfPatientID beside PatientID.

    Raises
    ------
    ValueError
        The unique key of `level` has no value: everything would be named.
    """
    if not keys.get(UNIQUE_KEY[level]):
        raise ValueError(f"{UNIQUE_KEY[level]} names nothing to retrieve")
    query = _objects().order_by(
        schema.series.c.study, schema.instances.c.series, schema.instances.c.id
    )
    within = LEVELS[: LEVELS.index(level) + 1]
    for keyword, value in keys.items():
        key = KEY_BY_KEYWORD[keyword]
        if key.level in within and value:
            column = schema.TABLE_OF_LEVEL[key.level].c[key.column]
            named = value.split("\\") if key.vr == "UI" else [value]
            query = query.where(column.in_(named))
    with catalog.read() as connection:
        return [StoredObject(*row) for row in connection.execute(query)]


def stored_objects_of(catalog: Catalog, instances: Sequence[int]) -> list[StoredObject]:
    """Return the objects of row numbers in their order, without those that are gone."""
    found: dict[int, StoredObject] = {}
    with catalog.read() as connection:
        for first in range(0, len(instances), _ROWS_AT_ONCE):
            rows = list(instances[first : first + _ROWS_AT_ONCE])
            query = _objects().where(schema.instances.c.id.in_(rows))
            found.update({row[0]: StoredObject(*row) for row in connection.execute(query)})
    return [found[row] for row in instances if row in found]


def _objects() -> Select[Any]:
    """Return the query of `StoredObject`'s fields, joined with all that may narrow it."""
    patients, studies, series = schema.patients, schema.studies, schema.series
    instances = schema.instances
    columns = instances.c
    return select(
        columns.id,
        columns.sop_class_uid,
        columns.sop_instance_uid,
        studies.c.study_instance_uid,
        columns.transfer_syntax_uid,
        columns.path,
    ).select_from(instances.join(series).join(studies).join(patients))
