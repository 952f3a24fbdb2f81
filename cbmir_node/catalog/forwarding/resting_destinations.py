"""Destinations that nothing can be sent on to at the moment: all that waits for them rests.

One row each, so that a destination which is down costs one try per pause, however many objects
wait for it and however many nodes share the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.forwarding.queue import due_forwards, fitting_reason
from cbmir_node.catalog.upsert import insert_unless_present

_resting = schema.resting_destinations.c


@dataclass(frozen=True)
class RestingDestination:
    """A destination that nothing can be sent on to at the moment.

    Attributes
    ----------
    reason : str
        What the last try ended with.
    due_at : float
        When it is tried again, seconds since 1970.
    """

    destination: str
    reason: str
    due_at: float


def resting_destinations(catalog: Catalog) -> list[RestingDestination]:
    """Return the destinations whose last try failed, by name.

    One that is due stays among them until a try succeeds.
    """
    query = select(_resting.destination, _resting.reason, _resting.due_at)
    with catalog.read() as connection:
        rows = connection.execute(query.order_by(_resting.destination)).all()
    return [RestingDestination(*row) for row in rows]


def rest_destination(
    catalog: Catalog,
    destination: str,
    reason: str,
    pause: Callable[[int], float],
    give_up_s: float,
) -> float:
    """Leave a destination alone for a while; give up what has waited for it too long.

    Parameters
    ----------
    pause : callable
        From how often in a row this was so to seconds.
    give_up_s : float
        How long an object may have waited, seconds.

    Returns
    -------
    float
        The pause, seconds.
    """
    now = time.time()
    row = {"destination": destination, "due_at": now}
    this = _resting.destination == destination
    with catalog.write() as connection:
        insert_unless_present(connection, schema.resting_destinations, [row])
        known = select(_resting.attempts).where(this).with_for_update()
        attempts = int(connection.execute(known).scalar_one()) + 1
        seconds = pause(attempts)
        connection.execute(
            update(schema.resting_destinations)
            .where(this)
            .values(attempts=attempts, due_at=now + seconds, reason=fitting_reason(reason))
        )
        connection.execute(
            update(schema.forwards)
            .where(
                *due_forwards(destination, now),
                schema.forwards.c.requested_at < now - give_up_s,
            )
            .values(state="given_up", reason=fitting_reason(reason), finished_at=now)
        )
    return seconds


def wake_destination(catalog: Catalog, destination: str | None) -> None:
    """Let a destination, or all of them, be sent to at once."""
    query = delete(schema.resting_destinations)
    if destination is not None:
        query = query.where(_resting.destination == destination)
    with catalog.write() as connection:
        connection.execute(query)
