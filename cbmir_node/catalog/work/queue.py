"""The queue of instances that wait for their vectors: rows of the catalogue, nothing in memory.

An instance and a model make one row. Workers claim pending rows with a lease; a worker that dies
loses its lease and another takes over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import (
    Connection,
    or_,
    select,
    update,
)

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog

WorkState = Literal["pending", "embedded", "no_pixels", "failed", "skipped"]

_work = schema.work.c


@dataclass(frozen=True)
class Claim:
    """One instance that this worker may embed until its lease ends.

    Attributes
    ----------
    owner : str
        Who holds it: an outcome counts only while this is so.
    """

    owner: str
    instance: int
    model: int
    sop_instance_uid: str
    path: str
    attempts: int


class WorkQueue:
    """Claims and results of embedding work.

    Parameters
    ----------
    catalog : Catalog
        Where the queue lives.
    owner : str
        Names this worker in its leases.
    lease_s : float
        How long a claim is held, seconds.
    """

    def __init__(self, catalog: Catalog, owner: str, lease_s: float) -> None:
        self._catalog = catalog
        self._owner = owner
        self._lease_s = lease_s

    def claim(self, model: int, limit: int) -> list[Claim]:
        """Take up to `limit` pending instances of a model, oldest first.

        An instance whose pixels are not kept waits until they come again.
        """
        if not self._has_pending(model):
            return []
        now = time.time()
        free = or_(_work.lease_until.is_(None), _work.lease_until < now)
        with self._catalog.write() as connection:
            candidates = (
                select(_work.instance)
                .join(schema.instances, schema.instances.c.id == _work.instance)
                .where(_work.model == model, _work.state == "pending", free)
                .where(schema.instances.c.path != "")
                .order_by(_work.instance)
                .limit(limit)
                .with_for_update(skip_locked=True, of=schema.work)
            )
            instances = list(connection.execute(candidates).scalars())
            if not instances:
                return []
            connection.execute(
                update(schema.work)
                .where(_work.model == model, _work.instance.in_(instances))
                .values(lease_owner=self._owner, lease_until=now + self._lease_s)
            )
            rows = connection.execute(
                select(
                    schema.instances.c.id,
                    schema.instances.c.sop_instance_uid,
                    schema.instances.c.path,
                    _work.attempts,
                )
                .join(schema.work, _work.instance == schema.instances.c.id)
                .where(_work.model == model, schema.instances.c.id.in_(instances))
                .order_by(schema.instances.c.id)
            ).all()
        return [
            Claim(self._owner, row.id, model, row.sop_instance_uid, row.path, row.attempts)
            for row in rows
        ]

    def _has_pending(self, model: int) -> bool:
        """Look before opening a write transaction: an idle worker must not disturb receivers."""
        with self._catalog.read() as connection:
            return (
                connection.execute(
                    select(_work.instance)
                    .join(schema.instances, schema.instances.c.id == _work.instance)
                    .where(_work.model == model, _work.state == "pending")
                    .where(schema.instances.c.path != "")
                    .limit(1)
                ).first()
                is not None
            )

    def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong the leases of claims that are still being worked on."""
        if not claims:
            return
        with self._catalog.write() as connection:
            connection.execute(
                update(schema.work)
                .where(
                    _work.model == claims[0].model,
                    _work.instance.in_([claim.instance for claim in claims]),
                    _work.lease_owner == self._owner,
                )
                .values(lease_until=time.time() + self._lease_s)
            )

    def finish(self, claim: Claim, state: WorkState, reason: str, attempts: int) -> None:
        """Record that an instance got no vector, and why.

        Says nothing when the claim was lost meanwhile. When the instance has got another file in
        the meantime, the claim is given back: the outcome is that of a file that is gone.
        """
        instances = schema.instances.c
        with self._catalog.write() as connection:
            if claim.instance not in held_claims(connection, [claim]):
                return
            path = select(instances.path).where(instances.id == claim.instance)
            if connection.execute(path).scalar() == claim.path:
                set_state(connection, claim.model, [claim.instance], state, reason, attempts)
            else:
                self._give_back(connection, claim)

    def _give_back(self, connection: Connection, claim: Claim) -> None:
        connection.execute(
            update(schema.work)
            .where(_work.model == claim.model, _work.instance == claim.instance)
            .values(lease_owner=None, lease_until=None)
        )

    def release(self) -> None:
        """Give back everything this worker still holds."""
        release_leases(self._catalog, [self._owner])


def held_claims(connection: Connection, claims: Sequence[Claim]) -> set[int]:
    """Return the instances whose claims are still held by who claimed them.

    The rows are locked until the transaction ends, so that what is written next is fenced.
    """
    if not claims:
        return set()
    rows = (
        select(_work.instance)
        .where(
            _work.model == claims[0].model,
            _work.instance.in_([claim.instance for claim in claims]),
            _work.state == "pending",
            _work.lease_owner == claims[0].owner,
        )
        .with_for_update()
    )
    return set(connection.execute(rows).scalars())


def lease_owners(catalog: Catalog) -> list[str]:
    """Return who holds claims."""
    with catalog.read() as connection:
        owners = select(_work.lease_owner).where(_work.lease_owner.is_not(None)).distinct()
        return [str(owner) for owner in connection.execute(owners).scalars()]


def release_leases(catalog: Catalog, owners: Sequence[str]) -> None:
    """Free the claims of workers that ended, so that nobody waits for their leases."""
    if not owners:
        return
    with catalog.write() as connection:
        connection.execute(
            update(schema.work)
            .where(_work.lease_owner.in_(list(owners)))
            .values(lease_owner=None, lease_until=None)
        )


def set_state(
    connection: Connection,
    model: int,
    instances: Sequence[int],
    state: WorkState,
    reason: str = "",
    attempts: int | None = None,
) -> None:
    """Record the outcome of some instances' embedding in the caller's transaction."""
    values: dict[str, object] = {
        "state": state,
        "reason": reason[:500].replace("\0", ""),
        "lease_owner": None,
        "lease_until": None,
        "finished_at": time.time(),
    }
    if attempts is not None:
        values["attempts"] = attempts
    connection.execute(
        update(schema.work)
        .where(_work.model == model, _work.instance.in_(list(instances)))
        .values(**values)
    )
