"""How much the catalogue holds, and how far the embedding of it is."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.work.requests import NOT_KEPT, waits_for_pixels

_work = schema.work.c
_HAS_PIXELS_HERE = (
    select(schema.instances.c.id)
    .where(schema.instances.c.id == _work.instance, schema.instances.c.path != "")
    .exists()
)


def count_objects(catalog: Catalog) -> dict[str, int]:
    """Return the number of patients, studies, series and instances."""
    tables = {
        "patients": schema.patients,
        "studies": schema.studies,
        "series": schema.series,
        "instances": schema.instances,
    }
    with catalog.read() as connection:
        return {
            name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            for name, table in tables.items()
        }


def has_instances(catalog: Catalog) -> bool:
    """Tell whether the catalogue names any object."""
    with catalog.read() as connection:
        return connection.execute(select(schema.instances.c.id).limit(1)).first() is not None


def count_states(catalog: Catalog, model: int) -> dict[str, int]:
    """Return how many instances are in each state for a model."""
    wanted = ("pending", "embedded", "no_pixels", "failed", "skipped")
    with catalog.read() as connection:
        row = connection.execute(
            select(
                *(
                    func.sum(case((_work.state == state, 1), else_=0)).label(state)
                    for state in wanted
                )
            ).where(_work.model == model)
        ).one()
    return {state: int(getattr(row, state) or 0) for state in wanted}


def oldest_pending(catalog: Catalog, model: int) -> float | None:
    """Return since when the instance that has waited longest has, seconds since 1970."""
    query = select(func.min(_work.requested_at)).where(
        _work.model == model, _work.state == "pending", _HAS_PIXELS_HERE
    )
    with catalog.read() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else float(found)


def count_requested_again(catalog: Catalog, model: int) -> int:
    """Return how many instances still wait of a request for everything that was interrupted.

    They had an outcome before. Where another instance's outcome is older than their request, only
    some were requested again, by a repair or because they had failed: that is 0. Those whose pixels
    are not kept are left out.
    """
    waiting = (
        (_work.model == model)
        & (_work.state == "pending")
        & _work.finished_at.is_not(None)
        & _HAS_PIXELS_HERE
    )
    since = select(func.min(_work.requested_at)).where(waiting).scalar_subquery()
    untouched = select(func.count()).where(
        _work.model == model, _work.state != "pending", _work.finished_at < since, _HAS_PIXELS_HERE
    )
    with catalog.read() as connection:
        if connection.execute(untouched).scalar_one():
            return 0
        return int(connection.execute(select(func.count()).where(waiting)).scalar_one())


def count_not_kept(catalog: Catalog, model: int) -> int:
    """Return how many instances cannot be embedded because their pixels are not kept here."""
    query = select(func.count()).where(_work.model == model, waits_for_pixels())
    with catalog.read() as connection:
        return int(connection.execute(query).scalar_one())


def count_pending(catalog: Catalog, model: int, until: float) -> int:
    """Return how many instances wait that were requested up to a moment, seconds since 1970.

    Those whose pixels are not kept are left out: nobody can embed them.
    """
    query = select(func.count()).where(
        _work.model == model,
        _work.state == "pending",
        _work.requested_at <= until,
        _HAS_PIXELS_HERE,
    )
    with catalog.read() as connection:
        return int(connection.execute(query).scalar_one())


def failures(catalog: Catalog, model: int, limit: int = 100) -> list[tuple[str, str, str]]:
    """Return (SOP Instance UID, state, reason) of instances without a vector, failed ones first."""
    with catalog.read() as connection:
        rows = connection.execute(
            select(schema.instances.c.sop_instance_uid, _work.state, _work.reason)
            .join(schema.instances, schema.instances.c.id == _work.instance)
            .where(_work.model == model, _work.state.in_(("failed", "no_pixels")))
            .order_by(_work.state, schema.instances.c.id)
            .limit(limit)
        ).all()
    return [(row.sop_instance_uid, row.state, row.reason) for row in rows]


@dataclass(frozen=True)
class FailureGroup:
    """Instances that could not be embedded for the same reason.

    Attributes
    ----------
    instances : int
        How many.
    sop_instance_uid, study_instance_uid : str
        One of them.
    can_be_retried : bool
        Whether trying again may help: not before pixels come that are not kept here.
    """

    reason: str
    instances: int
    sop_instance_uid: str
    study_instance_uid: str
    can_be_retried: bool


def failures_by_reason(catalog: Catalog, model: int, limit: int = 100) -> list[FailureGroup]:
    """Return the failed instances of a model by their reason, the most frequent first."""
    groups = (
        select(
            _work.reason,
            func.count().label("instances"),
            func.min(_work.instance).label("example"),
        )
        .where(_work.model == model, _work.state == "failed")
        .group_by(_work.reason)
        .order_by(func.count().desc(), _work.reason)
        .limit(limit)
        .subquery()
    )
    instances, studies = schema.instances, schema.studies.c
    query = (
        select(
            groups.c.reason,
            groups.c.instances,
            instances.c.sop_instance_uid,
            studies.study_instance_uid,
        )
        .select_from(
            groups.join(instances, instances.c.id == groups.c.example)
            .join(schema.series)
            .join(schema.studies)
        )
        .order_by(groups.c.instances.desc(), groups.c.reason)
    )
    with catalog.read() as connection:
        return [FailureGroup(*row, row.reason != NOT_KEPT) for row in connection.execute(query)]
