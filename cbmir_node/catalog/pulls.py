"""What `pull` remembers of another PACS, and what the catalogue has to compare with it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, FromClause, or_, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.catalog.work.requests import waits_for_pixels

PullState = Literal["fetched", "failed"]

_pulled = schema.pulled_studies.c
_studies, _series, _instances = schema.studies.c, schema.series.c, schema.instances.c
_work, _models, _deleted = schema.work.c, schema.models.c, schema.deleted_objects.c
_LARGEST_READ = 1000


@dataclass(frozen=True)
class PulledStudy:
    """How far a study of another PACS has got.

    Attributes
    ----------
    state : {"fetched", "failed"}
    instances : int
        What the PACS counted then; 0 where it does not count.
    attempts : int
        How often it was tried.
    reduced : bool
        Whether objects of it were deleted or rejected here since.
    """

    state: PullState
    instances: int
    attempts: int
    reduced: bool = False


@dataclass(frozen=True)
class StudyHere:
    """What the catalogue has of a study.

    Attributes
    ----------
    series : mapping of str to set of str
        Series Instance UID to the SOP Instance UIDs known, with their files or without.
    deleted, rejected : set of str
        SOP Instance UIDs that were taken away on purpose, and are not known any more.
    without_file : set of str
        SOP Instance UIDs that are known, but whose file is not kept.
    """

    series: Mapping[str, frozenset[str]]
    deleted: frozenset[str]
    rejected: frozenset[str]
    without_file: frozenset[str]

    @property
    def known(self) -> frozenset[str]:
        """SOP Instance UIDs of all series."""
        return frozenset().union(*self.series.values())


@dataclass(frozen=True)
class InstanceHere:
    """An instance whose pixels are not kept."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


def pulled_study(catalog: Catalog, source: str, study_instance_uid: str) -> PulledStudy | None:
    """Return how far a study has got; None where it was never tried."""
    reduced = (
        select(_deleted.sop_instance_uid)
        .where(
            _deleted.study_instance_uid == study_instance_uid,
            _deleted.deleted_at >= _pulled.updated_at,
        )
        .exists()
    )
    query = select(_pulled.state, _pulled.instances, _pulled.attempts, reduced).where(
        _pulled.source == source, _pulled.study_instance_uid == study_instance_uid
    )
    with catalog.read() as connection:
        row = connection.execute(query).first()
    return None if row is None else PulledStudy(*row)


def record_pulled(
    catalog: Catalog,
    source: str,
    study_instance_uid: str,
    state: PullState,
    *,
    instances: int = 0,
    reason: str = "",
) -> None:
    """Write down how a study ended.

    Parameters
    ----------
    source : str
        AE title or URL of the PACS.
    instances : int
        What the PACS counts; 0 where it does not.
    reason : str
        Why it failed.
    """
    with catalog.write() as connection:
        row = find_or_insert(
            connection,
            schema.pulled_studies,
            {"source": source, "study_instance_uid": study_instance_uid},
            {"state": state, "updated_at": 0.0},
        )
        connection.execute(
            update(schema.pulled_studies)
            .where(_pulled.id == row)
            .values(
                state=state,
                instances=instances,
                reason=reason,
                attempts=_pulled.attempts + 1,
                updated_at=time.time(),
            )
        )


def study_here(catalog: Catalog, study_instance_uid: str) -> StudyHere:
    """Return what the catalogue has of a study."""
    instances = (
        select(_series.series_instance_uid, _instances.sop_instance_uid, _instances.path)
        .select_from(schema.studies.join(schema.series).join(schema.instances))
        .where(_studies.study_instance_uid == study_instance_uid)
    )
    gone = select(_deleted.cause, _deleted.sop_instance_uid).where(
        _deleted.study_instance_uid == study_instance_uid
    )
    with catalog.read() as connection:
        rows = connection.execute(instances).all()
        causes = _gathered(connection.execute(gone))
    buried = frozenset().union(*causes.values())  # their rows go a little later
    known = [(series, uid, path) for series, uid, path in rows if uid not in buried]
    nothing: frozenset[str] = frozenset()
    return StudyHere(
        _gathered((series, uid) for series, uid, _ in known),
        causes.get("deleted", nothing),
        causes.get("rejected", nothing),
        frozenset(uid for _, uid, path in known if not path),
    )


def studies_without_pixels(catalog: Catalog) -> Iterator[str]:
    """Iterate over the Study Instance UIDs of which an instance waits for its pixels.

    It waits when a model in use still has to embed it and its pixels are not kept.
    """
    last = 0
    while True:
        page = (
            select(_studies.id, _studies.study_instance_uid)
            .select_from(_waiting())
            .where(_waits(), _studies.id > last)
            .distinct()
            .order_by(_studies.id)
            .limit(_LARGEST_READ)
        )
        with catalog.read() as connection:
            rows = connection.execute(page).all()
        if not rows:
            return
        for row in rows:
            yield row.study_instance_uid
        last = rows[-1].id


def instances_without_pixels(catalog: Catalog, study_instance_uid: str) -> list[InstanceHere]:
    """Return what of a study waits for its pixels."""
    query = (
        select(
            _series.series_instance_uid,
            _instances.sop_instance_uid,
            _instances.sop_class_uid,
            _instances.transfer_syntax_uid,
        )
        .select_from(_waiting())
        .where(_waits(), _studies.study_instance_uid == study_instance_uid)
        .distinct()
    )
    with catalog.read() as connection:
        return [InstanceHere(*row) for row in connection.execute(query)]


def _waiting() -> FromClause:
    return (
        schema.studies.join(schema.series)
        .join(schema.instances)
        .join(schema.work, _work.instance == _instances.id)
        .join(schema.models, _models.id == _work.model)
    )


def _waits() -> ColumnElement[bool]:
    in_use = _models.state.in_(("active", "next"))
    return (_instances.path == "") & in_use & or_(_work.state == "pending", waits_for_pixels())


def _gathered(pairs: Iterable[Any]) -> dict[str, frozenset[str]]:
    sets: dict[str, set[str]] = {}
    for key, value in pairs:
        sets.setdefault(key, set()).add(value)
    return {key: frozenset(values) for key, values in sets.items()}
