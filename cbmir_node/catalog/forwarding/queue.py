"""The queue of objects that are to be sent on: rows of the catalogue, nothing in memory.

An object and a destination make one row. Senders claim due rows with a lease; one that dies loses
its lease and another takes over, so that an object may arrive twice but is not forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Connection, bindparam, delete, or_, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.upsert import insert_unless_present

ForwardState = Literal["pending", "sent", "refused", "given_up"]

_LONGEST_REASON = 500

_forwards = schema.forwards.c
_resting = schema.resting_destinations.c


@dataclass(frozen=True)
class Forward:
    """An object on its way to a destination, held by a sender until its lease ends."""

    row: int
    instance: int
    attempts: int
    requested_at: float


@dataclass(frozen=True)
class ForwardOutcome:
    """What became of it.

    Attributes
    ----------
    due_at : float
        When a pending one is to be tried again, seconds since 1970.
    """

    row: int
    state: ForwardState
    reason: str
    attempts: int
    due_at: float


def request_forwards(
    connection: Connection, instance: int, destinations: Sequence[str], now: float
) -> None:
    """Queue a new object for its destinations, in the caller's transaction."""
    rows = [
        {
            "instance": instance,
            "destination": destination,
            "state": "pending",
            "requested_at": now,
            "due_at": now,
        }
        for destination in destinations
    ]
    insert_unless_present(connection, schema.forwards, rows)


def awaiting_destinations(connection: Connection, instance: int) -> list[str]:
    """Return the destinations that an object has not reached yet, in the caller's transaction."""
    query = select(_forwards.destination).where(
        _forwards.instance == instance, _forwards.state != "sent"
    )
    return [str(title) for title in connection.execute(query).scalars()]


class ForwardQueue:
    """Claims and outcomes of sending on.

    Parameters
    ----------
    catalog : Catalog
        Where the queue lives.
    owner : str
        Names this sender in its leases.
    lease_s : float
        How long a claim is held, seconds.
    """

    def __init__(self, catalog: Catalog, owner: str, lease_s: float) -> None:
        self._catalog = catalog
        self._owner = owner
        self._lease_s = lease_s

    def due_destinations(self) -> list[str]:
        """Return the destinations that something may be sent to now."""
        now = time.time()
        found, last = list[str](), ""
        with self._catalog.read() as connection:
            # one look into the index per destination, however many objects wait for each
            while (name := _next_destination(connection, last)) is not None:
                due = select(_forwards.id).where(*due_forwards(name, now)).limit(1)
                resting = select(_resting.due_at).where(
                    _resting.destination == name, _resting.due_at > now
                )
                if connection.execute(due).first() and not connection.execute(resting).first():
                    found.append(name)
                last = name
        return found

    def claim(self, destination: str, limit: int) -> list[Forward]:
        """Take up to `limit` due objects of one study, that of the object due first.

        Objects that failed before come last, so that one that cannot be sent does not keep others
        from it.
        """
        now = time.time()
        query = (
            select(
                *(_forwards.id, _forwards.instance, _forwards.attempts, _forwards.requested_at),
                schema.series.c.study,
            )
            .select_from(schema.forwards.join(schema.instances).join(schema.series))
            .where(*due_forwards(destination, now))
            .order_by(_forwards.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=schema.forwards)
        )
        with self._catalog.write() as connection:
            rows = connection.execute(query).all()
            claimed = [Forward(*row[:4]) for row in rows if row.study == rows[0].study]
            claimed.sort(key=lambda forward: (forward.attempts, forward.row))
            self._lease(connection, claimed, self._owner, now + self._lease_s)
        return claimed

    def renew(self, forwards: Sequence[Forward]) -> None:
        """Prolong the leases of objects that are still to be sent."""
        with self._catalog.write() as connection:
            self._lease(connection, forwards, self._owner, time.time() + self._lease_s, held=True)

    def release(self, forwards: Sequence[Forward]) -> None:
        """Give back objects that were not tried."""
        with self._catalog.write() as connection:
            self._lease(connection, forwards, None, None, held=True)

    def _lease(
        self,
        connection: Connection,
        forwards: Sequence[Forward],
        owner: str | None,
        until: float | None,
        *,
        held: bool = False,
    ) -> None:
        if not forwards:
            return
        which: ColumnElement[bool] = _forwards.id.in_([forward.row for forward in forwards])
        if held:
            which &= _forwards.lease_owner == self._owner
        connection.execute(
            update(schema.forwards).where(which).values(lease_owner=owner, lease_until=until)
        )

    def record(self, outcomes: Sequence[ForwardOutcome]) -> None:
        """Write down what became of claimed objects; of those that were lost meanwhile, nothing."""
        if not outcomes:
            return
        now = time.time()
        change = (
            update(schema.forwards)
            .where(
                _forwards.id == bindparam("row"),
                _forwards.state == "pending",
                _forwards.lease_owner == self._owner,
            )
            .values(
                state=bindparam("new_state"),
                reason=bindparam("new_reason"),
                attempts=bindparam("new_attempts"),
                due_at=bindparam("new_due_at"),
                finished_at=bindparam("new_finished_at"),
                lease_owner=None,
                lease_until=None,
            )
        )
        rows = [
            {
                "row": outcome.row,
                "new_state": outcome.state,
                "new_reason": fitting_reason(outcome.reason),
                "new_attempts": outcome.attempts,
                "new_due_at": outcome.due_at,
                "new_finished_at": None if outcome.state == "pending" else now,
            }
            for outcome in outcomes
        ]
        with self._catalog.write() as connection:
            connection.execute(change, rows)

    def forget_sent(self, before: float) -> None:
        """Delete the rows of objects that were sent before a moment, seconds since 1970."""
        sent = (_forwards.state == "sent") & (_forwards.finished_at < before)
        with self._catalog.write() as connection:
            connection.execute(delete(schema.forwards).where(sent))


def forwarding_owners(catalog: Catalog) -> list[str]:
    """Return who holds claims."""
    owners = select(_forwards.lease_owner).where(
        _forwards.state == "pending", _forwards.lease_owner.is_not(None)
    )
    with catalog.read() as connection:
        return [str(owner) for owner in connection.execute(owners.distinct()).scalars()]


def release_forwards(catalog: Catalog, owners: Sequence[str]) -> None:
    """Free the claims of senders that ended, so that nobody waits for their leases."""
    if not owners:
        return
    with catalog.write() as connection:
        connection.execute(
            update(schema.forwards)
            .where(_forwards.state == "pending", _forwards.lease_owner.in_(list(owners)))
            .values(lease_owner=None, lease_until=None)
        )


def due_forwards(destination: str, now: float) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of what may be claimed for a destination."""
    return (
        _forwards.state == "pending",
        _forwards.destination == destination,
        _forwards.due_at <= now,
        or_(_forwards.lease_until.is_(None), _forwards.lease_until < now),
    )


def _next_destination(connection: Connection, last: str) -> str | None:
    return connection.execute(
        select(_forwards.destination)
        .where(_forwards.state == "pending", _forwards.destination > last)
        .order_by(_forwards.destination)
        .limit(1)
    ).scalar()


def fitting_reason(reason: str) -> str:
    """Return a reason that the table can hold."""
    return reason[:_LONGEST_REASON].replace("\0", "")
