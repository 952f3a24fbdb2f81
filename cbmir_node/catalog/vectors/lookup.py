"""From examples and filters to vector rows, and from vector rows back to images and studies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import BindParameter, bindparam, func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, StudyRootLevel
from cbmir_node.catalog.query.conditions import conditions
from cbmir_node.catalog.query.subjects import SubjectState, subject_state
from cbmir_node.catalog.vectors.candidates import CandidateConditions
from cbmir_node.catalog.vectors.places import Group, Int64Array, Places, placed_vectors
from cbmir_node.catalog.vectors.rows import EMBEDDING
from cbmir_node.catalog.work.series_cap import stand_in

_GROUP_COLUMN: dict[Group, Any] = {
    "patient": schema.patients.c.id,
    "study": schema.studies.c.id,
    "series": schema.series.c.id,
    "instance": schema.instances.c.id,
}
_NAME_COLUMN: dict[Group, Any] = {
    "patient": schema.patients.c.identity,
    "study": schema.studies.c.study_instance_uid,
    "series": schema.series.c.series_instance_uid,
    "instance": schema.instances.c.sop_instance_uid,
}
_OWNER_COLUMN: dict[Group, Any] = {
    "patient": schema.studies.c.patient,
    "study": schema.series.c.study,
    "series": schema.instances.c.series,
    "instance": schema.instances.c.id,
}
"""What names a group nearest to the instances."""
_PLACE = (
    schema.studies.c.patient,
    schema.studies.c.id.label("study"),
    schema.series.c.id.label("series"),
    schema.instances.c.id.label("instance"),
    schema.instances.c.representative,
)
# Statements are built once, with room for any number of rows: building one costs more than running.
_ROWS: BindParameter[Any] = bindparam("rows", expanding=True)
# The instances of a group and their vectors are read one after the other: in one statement SQLite,
# which keeps no statistics, walks all vectors of the model instead of the group's.
_MEMBERS: dict[Group, Any] = {
    group: select(*_PLACE)
    .select_from(schema.studies.join(schema.series).join(schema.instances))
    .where(owner.in_(_ROWS))
    for group, owner in _OWNER_COLUMN.items()
}
_VECTORS_OF = select(schema.vectors.c.id, schema.vectors.c.instance).where(
    schema.vectors.c.model == bindparam("model"),
    schema.vectors.c.space == bindparam("space"),
    schema.vectors.c.instance.in_(_ROWS),
)
_PLACED = (
    select(schema.vectors.c.id, *_PLACE)
    .select_from(schema.vectors.join(schema.instances).join(schema.series).join(schema.studies))
    .where(schema.vectors.c.id.in_(_ROWS))
)
_HIERARCHY = schema.patients.join(schema.studies).join(schema.series).join(schema.instances)
_MEMBERSHIPS: tuple[tuple[Group, Any], ...] = (
    ("instance", schema.vectors.c.instance == schema.instances.c.id),
    ("series", schema.instances.c.series == schema.series.c.id),
    ("study", schema.series.c.study == schema.studies.c.id),
    ("patient", schema.studies.c.patient == schema.patients.c.id),
)
"""How each group's members belong to it, from the vectors upwards."""
_PREDICTED = schema.vectors.alias("predicted")
_VARIABLES = 10_000  # SQLite and PostgreSQL limit the values of one statement


@dataclass(frozen=True)
class Frame:
    """The image behind one vector, and what the model takes it for."""

    sop_instance_uid: str
    frame_number: int
    label: str | None
    probability: float | None


class VectorLookup:
    """Relates the vectors of one model and space to the catalogue's hierarchy.

    Class and probability are those of the image, whatever the space: they are kept once, in the
    rows of the space ``embedding``.

    Parameters
    ----------
    catalog : Catalog
        Where both are.
    model : int
        Row of the model.
    space : str
        Vector space.
    """

    def __init__(self, catalog: Catalog, model: int, space: str) -> None:
        self._catalog = catalog
        self._model = model
        self._mine = (schema.vectors.c.model == model) & (schema.vectors.c.space == space)
        self._space = space
        self._predicted: Any = schema.vectors if space == EMBEDDING else _PREDICTED

    def rows_of(self, group: Group, name: str) -> list[int]:
        """Return the rows of the studies, series or instances with this UID.

        A patient's name is its identity (`catalog.reception.records.patient_identity`).
        """
        column = _GROUP_COLUMN[group]
        with self._catalog.read() as connection:
            found = connection.execute(select(column).where(_NAME_COLUMN[group] == name))
            return list(found.scalars())

    def in_groups(self, group: Group, rows: Sequence[int]) -> Places:
        """Return the places of all vectors in these patients, studies, series or instances."""
        found: list[tuple[Any, ...]] = []
        mine = {"model": self._model, "space": self._space}
        for part in _parts(rows):
            with self._catalog.read() as connection:
                members = connection.execute(_MEMBERS[group], {"rows": part}).all()
                owners = {row.instance: row for row in members}
                for instances in _parts(owners):
                    vectors = connection.execute(_VECTORS_OF, {**mine, "rows": instances}).all()
                    found += [(vector, *owners[instance]) for vector, instance in vectors]
        return placed_vectors(found)

    def in_stand_ins(self, instances: Sequence[int]) -> Places:
        """Return the places of the vectors that represent images which were left out.

        These are those of the nearest embedded image of the series (see `catalog.work.series_cap`).
        """
        found = (stand_in(self._catalog, self._model, instance) for instance in instances)
        return self.in_groups("instance", [row for row in found if row is not None])

    def state(self, level: StudyRootLevel, uid: str) -> SubjectState | None:
        """Return how far something is embedded with the model; ``None`` where it is unknown."""
        return subject_state(self._catalog, self._model, level, uid)

    def of_vectors(self, vectors: Sequence[int]) -> Places:
        """Return the places of these vectors of the model and space; gone ones are left out."""
        found: list[tuple[Any, ...]] = []
        for part in _parts(vectors):
            with self._catalog.read() as connection:
                found += map(tuple, connection.execute(_PLACED, {"rows": part}).all())
        return placed_vectors(found)

    def groups(self, group: Group, limit: int) -> Int64Array:
        """Return the patients, studies, series or instances with a vector, at most `limit`."""
        query = select(_GROUP_COLUMN[group]).where(self._has_vector(group)).limit(limit)
        with self._catalog.read() as connection:
            return np.asarray(connection.execute(query).scalars().all(), dtype=np.int64)

    def _has_vector(self, group: Group) -> Any:
        """Nest the levels, so that the search for a group's vector ends at the first."""
        member: Any = schema.vectors.c.id
        condition: Any = self._mine
        for level, membership in _MEMBERSHIPS:
            condition = select(member).where(membership, condition).exists()
            if level == group:
                break
            member = _GROUP_COLUMN[level]
        return condition

    def matching(self, wanted: CandidateConditions) -> Int64Array:
        """Return the vectors of images that fulfil the conditions, ascending.

        Raises
        ------
        QueryError
            A filter's value does not fit its VR.
        """
        source: Any = _HIERARCHY.join(schema.vectors) if wanted.concern_tags else schema.vectors
        if wanted.concern_class:
            source = self._with_prediction(source)
        query = (
            select(schema.vectors.c.id)
            .select_from(source)
            .where(self._mine, wanted.on_tags(), wanted.on_prediction(self._predicted))
        )
        # ordered here: an order in SQL makes SQLite walk the vectors instead of a small index
        with self._catalog.read() as connection:
            return np.sort(np.asarray(connection.execute(query).scalars().all(), dtype=np.int64))

    def _with_prediction(self, source: Any) -> Any:
        """Join the row that holds the image's class, unless that is the vector's own."""
        if self._space == EMBEDDING:
            return source
        mine, held = schema.vectors.c, _PREDICTED.c
        same_frame = (
            (held.instance == mine.instance)
            & (held.model == mine.model)
            & (held.space == EMBEDDING)
            & (held.frame_number == mine.frame_number)
        )
        return source.outerjoin(_PREDICTED, same_frame)

    def tag_values(self, keyword: str, series: Collection[int]) -> set[str]:
        """Return the values of a key, empty ones left out, that occur in these series."""
        key = KEY_BY_KEYWORD[keyword]
        column = schema.TABLE_OF_LEVEL[key.level].c[key.column]
        return {str(value) for value in self._values_in(column, series) if value}

    def ages(self, series: Collection[int]) -> set[float]:
        """Return the patients' ages at the study, years, as far as known, of these series."""
        values = self._values_in(schema.studies.c.age_years, series)
        return {float(age) for age in values if age is not None}

    def _values_in(self, column: Any, series: Collection[int]) -> set[Any]:
        source = schema.patients.join(schema.studies).join(schema.series)
        found: set[Any] = set()
        for part in _parts(series):
            query = select(column).select_from(source).where(schema.series.c.id.in_(part))
            with self._catalog.read() as connection:
                found |= set(connection.execute(query.distinct()).scalars())
        return found

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return the Study Instance UID of the newest matching study, embedded ones first."""
        embedded = func.count(schema.vectors.c.id) > 0
        query = (
            select(schema.studies.c.study_instance_uid)
            .select_from(_HIERARCHY.outerjoin(schema.vectors, _vector_join() & self._mine))
            .where(conditions(filters))
            .group_by(schema.studies.c.id)
            .order_by(
                embedded.desc(),
                schema.studies.c.study_date.desc(),
                schema.studies.c.study_time.desc(),
                schema.studies.c.id.desc(),
            )
            .limit(1)
        )
        with self._catalog.read() as connection:
            return connection.execute(query).scalar()

    def frames(self, vectors: Sequence[int]) -> dict[int, Frame]:
        """Return the image behind each vector row."""
        found: dict[int, Frame] = {}
        for part in _parts(vectors):
            query = (
                select(
                    schema.vectors.c.id,
                    schema.instances.c.sop_instance_uid,
                    schema.vectors.c.frame_number,
                    self._predicted.c.label,
                    self._predicted.c.probability,
                )
                .select_from(self._with_prediction(schema.vectors.join(schema.instances)))
                .where(schema.vectors.c.id.in_(part))
            )
            with self._catalog.read() as connection:
                for row in connection.execute(query):
                    found[row.id] = Frame(
                        row.sop_instance_uid, row.frame_number, row.label, row.probability
                    )
        return found


def _vector_join() -> Any:
    return schema.vectors.c.instance == schema.instances.c.id


def _parts(rows: Collection[int]) -> Iterator[list[int]]:
    unique = sorted({int(row) for row in rows})
    for start in range(0, len(unique), _VARIABLES):
        yield unique[start : start + _VARIABLES]
