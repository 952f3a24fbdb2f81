"""Destinations that nothing can be sent on to at the moment: all that waits for them rests.

One row each, so that a destination which is down costs one try per pause, however many objects
wait for it and however many nodes share the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.forwarding.queue import due_forwards, fitting_reason
from cbmir_node.catalog.upsert import insert_unless_present

_resting = schema.resting_destinations.c


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
