"""The queue of objects to be sent on, as an administrator sees and changes it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import ColumnElement, Select, case, delete, func, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.forwarding.queue import ForwardState, request_forwards
from cbmir_node.catalog.forwarding.resting_destinations import wake_destination
from cbmir_node.errors import SelectionError

FORWARD_STATES: tuple[ForwardState, ...] = get_args(ForwardState)

_forwards = schema.forwards.c
_resting = schema.resting_destinations.c


@dataclass(frozen=True)
class DestinationQueue:
    """What is queued for a destination.

    Attributes
    ----------
    states : mapping of str to int
        Objects in each state.
    oldest_pending : float or None
        Since when the object waits that has waited longest, seconds since 1970.
    reason : str
        Of the object queued last that failed, for good or for now; empty where none did.
    """

    destination: str
    states: Mapping[str, int]
    oldest_pending: float | None
    reason: str


@dataclass(frozen=True)
class ForwardedStudy:
    """Objects of one study with the same destination, state and reason.

    Attributes
    ----------
    objects : int
        How many.
    attempts : int
        Tries of the one that was tried most often.
    requested_at : float
        When the first of them arrived, seconds since 1970.
    due_at : float or None
        When the next of them is tried; None where none is.
    """

    destination: str
    study_instance_uid: str
    state: ForwardState
    objects: int
    attempts: int
    requested_at: float
    due_at: float | None
    reason: str


def forwarded_studies(
    catalog: Catalog, states: Sequence[ForwardState], destination: str | None, limit: int
) -> list[ForwardedStudy]:
    """Return what is queued, oldest first, at most `limit` studies.

    What waits for a destination that cannot be reached has that as its reason.
    """
    reason = case(
        (_forwards.state != "pending", _forwards.reason),
        else_=func.coalesce(_resting.reason, _forwards.reason),
    )
    due = case(
        (_forwards.due_at > func.coalesce(_resting.due_at, 0), _forwards.due_at),
        else_=_resting.due_at,
    )
    rested = _resting.destination == _forwards.destination
    query = (
        select(
            _forwards.destination,
            schema.studies.c.study_instance_uid,
            _forwards.state,
            func.count().label("objects"),
            func.max(_forwards.attempts).label("attempts"),
            func.min(_forwards.requested_at).label("requested_at"),
            func.min(due).label("due_at"),
            reason.label("reason"),
        )
        .select_from(
            schema.forwards.join(schema.instances)
            .join(schema.series)
            .join(schema.studies)
            .outerjoin(schema.resting_destinations, rested)
        )
        .where(_forwards.state.in_(states))
        .group_by(
            _forwards.destination, schema.studies.c.study_instance_uid, _forwards.state, reason
        )
        .order_by(func.min(_forwards.requested_at))
        .limit(limit)
    )
    if destination is not None:
        query = query.where(_forwards.destination == destination)
    with catalog.read() as connection:
        found = connection.execute(query).all()
    return [
        ForwardedStudy(
            *(row.destination, row.study_instance_uid, row.state, row.objects, row.attempts),
            requested_at=row.requested_at,
            due_at=row.due_at if row.state == "pending" else None,
            reason=row.reason,
        )
        for row in found
    ]


def destination_queues(catalog: Catalog) -> list[DestinationQueue]:
    """Return what is queued for each destination, by its name."""
    counted = select(
        *(_forwards.destination, _forwards.state, func.count().label("objects")),
        func.min(_forwards.requested_at).label("oldest"),
        func.max(case((_forwards.reason != "", _forwards.id))).label("last_failed"),
    ).group_by(_forwards.destination, _forwards.state)
    with catalog.read() as connection:
        rows = connection.execute(counted).all()
        failed = [row.last_failed for row in rows if row.last_failed is not None]
        reasons = select(_forwards.id, _forwards.reason).where(_forwards.id.in_(failed))
        reason_of = {row[0]: str(row[1]) for row in connection.execute(reasons)}
    queues = []
    for destination in sorted({row.destination for row in rows}):
        of_state = {row.state: row for row in rows if row.destination == destination}
        last = max((row.last_failed or 0 for row in of_state.values()), default=0)
        queues.append(
            DestinationQueue(
                destination,
                {s: of_state[s].objects if s in of_state else 0 for s in FORWARD_STATES},
                of_state["pending"].oldest if "pending" in of_state else None,
                reason_of.get(last, ""),
            )
        )
    return queues


def count_forwards(catalog: Catalog) -> dict[str, int]:
    """Return how many objects are in each state of being sent on."""
    query = select(_forwards.state, func.count()).group_by(_forwards.state)
    with catalog.read() as connection:
        found = {row[0]: int(row[1]) for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in FORWARD_STATES}


def forward_destinations(catalog: Catalog) -> list[str]:
    """Return the AE titles that the queue has objects for, in any state."""
    query = select(_forwards.destination).distinct().order_by(_forwards.destination)
    with catalog.read() as connection:
        return [str(title) for title in connection.execute(query).scalars()]


def retry_forwards(catalog: Catalog, destination: str | None, *, refused: bool) -> int:
    """Let all that waits or was given up be tried at once, on request also what was refused.

    Returns
    -------
    int
        How many objects are due now.
    """
    now = time.time()
    states = ["given_up", "refused"] if refused else ["given_up"]
    with catalog.write() as connection:
        connection.execute(
            update(schema.forwards)
            .where(_forwards.state.in_(states), *_to(destination))
            .values(**_anew(now))
        )
        connection.execute(
            update(schema.forwards)
            .where(_forwards.state == "pending", _forwards.due_at > now, *_to(destination))
            .values(due_at=now)
        )
        due = select(func.count()).where(_forwards.state == "pending", *_to(destination))
        objects = int(connection.execute(due).scalar_one())
    wake_destination(catalog, destination)
    return objects


@dataclass(frozen=True)
class QueuedObjects:
    """What became of the wish to send a study.

    Attributes
    ----------
    new : int
        Objects that were queued by it, also once more.
    waiting : int
        Those that were queued before it, and wait on.
    """

    new: int
    waiting: int


def add_forwards(catalog: Catalog, destination: str, study_instance_uid: str) -> QueuedObjects:
    """Queue what is kept of a study, whatever the rules say and also what was sent before."""
    kept = _instances_of(study_instance_uid).where(schema.instances.c.path != "")
    queued = select(func.count()).where(
        _forwards.instance.in_(kept), _forwards.state == "pending", *_to(destination)
    )
    with catalog.write() as connection:
        waiting = int(connection.execute(queued).scalar_one())
        instances = [int(instance) for instance in connection.execute(kept).scalars()]
        connection.execute(
            update(schema.forwards)
            .where(_forwards.instance.in_(kept), _forwards.state != "pending", *_to(destination))
            .values(**_anew(time.time()))
        )
        for instance in instances:
            request_forwards(connection, instance, [destination], time.time())
    return QueuedObjects(len(instances) - waiting, waiting)


def send_study(
    catalog: Catalog, peers: Collection[str], destination: str, study_instance_uid: str
) -> QueuedObjects:
    """Queue what is kept of a study for a peer, as `add_forwards`, or say why that cannot be.

    Parameters
    ----------
    peers : collection of str
        AE titles that may be sent to.

    Raises
    ------
    SelectionError
        The destination is none of them, or no pixels of the study are kept here.
    """
    if destination not in peers:
        known = ", ".join(sorted(peers)) or "none"
        raise SelectionError(f"there is no [peers.{destination}] to send to; choose from: {known}")
    queued = add_forwards(catalog, destination, study_instance_uid)
    if not queued.new + queued.waiting:
        raise SelectionError(
            f"no pixels of {study_instance_uid} are kept here; nothing can be sent"
        )
    return queued


def cancel_forwards(
    catalog: Catalog,
    destination: str,
    states: Sequence[ForwardState],
    study_instance_uid: str | None = None,
) -> int:
    """Take objects out of the queue; return how many."""
    which = [*_to(destination), _forwards.state.in_(states)]
    if study_instance_uid is not None:
        which.append(_forwards.instance.in_(_instances_of(study_instance_uid)))
    with catalog.write() as connection:
        return int(connection.execute(delete(schema.forwards).where(*which)).rowcount)


def _instances_of(study_instance_uid: str) -> Select[Any]:
    return (
        select(schema.instances.c.id)
        .select_from(schema.instances.join(schema.series).join(schema.studies))
        .where(schema.studies.c.study_instance_uid == study_instance_uid)
    )


def _anew(now: float) -> dict[str, Any]:
    """Return the columns of an object that is queued as if it had just arrived."""
    again = {"state": "pending", "reason": "", "attempts": 0, "finished_at": None}
    return {**again, "requested_at": now, "due_at": now}


def _to(destination: str | None) -> list[ColumnElement[bool]]:
    return [] if destination is None else [_forwards.destination == destination]
