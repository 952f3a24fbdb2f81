"""Which objects need not keep their pixels, and what takes the pixels from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, select, tuple_, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.retention.removal import Removed
from cbmir_node.catalog.retention.unused_files import name_unused

_instances, _work, _models = schema.instances.c, schema.work.c, schema.models.c
_forwards = schema.forwards.c

# written out, not bound: else no database uses the index that covers kept instances only
KEPT: ColumnElement[bool] = _instances.path != literal_column("''")
"""Whether an instance has its file."""

EMBEDDED_STATES = ("embedded", "no_pixels", "skipped")
"""States of instances whose pixels the model needs no more."""


class Evictable(NamedTuple):
    """An instance that need not keep its pixels, in the order of eviction.

    Attributes
    ----------
    received_at : float
        Seconds since 1970.
    row : int
        Of the instance.
    """

    received_at: float
    size_bytes: int
    row: int


def evictable(
    catalog: Catalog,
    received_before: float,
    limit: int,
    *,
    failed_too: bool,
    after: Evictable | None = None,
) -> list[Evictable]:
    """Return instances that need not keep their pixels, those received first at the beginning.

    Nothing waits for them: every model in use has an outcome, and every copy has been sent on.

    Parameters
    ----------
    received_before : float
        Seconds since 1970.
    limit : int
    failed_too : bool
        Also what could not be embedded, and could be tried again while its pixels are here.
    after : Evictable, optional
        The last one known: what comes before it, and may not go, is not walked through again.
    """
    order = (_instances.received_at, _instances.size_bytes, _instances.id)
    query = (
        select(*order)
        .where(KEPT, _instances.received_at < received_before, _is_done(failed_too=failed_too))
        .order_by(*order)
        .limit(limit)
    )
    if after is not None:
        # the first condition says it all; with the second, databases begin at the right place
        query = query.where(tuple_(*order) > after, _instances.received_at >= after.received_at)
    with catalog.read() as connection:
        return [Evictable(*row) for row in connection.execute(query)]


def evict(catalog: Catalog, instances: Sequence[int], *, failed_too: bool) -> Removed:
    """Take the pixels from instances, unless something waits for them by now."""
    if not instances:
        return Removed(0, [], 0)
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY, shared=True)
        rows = connection.execute(
            select(_instances.id, _instances.path, _instances.size_bytes)
            .where(_instances.id.in_(list(instances)), KEPT, _is_done(failed_too=failed_too))
            .with_for_update()
        ).all()
        name_unused(connection, [row.path for row in rows])
        connection.execute(
            update(schema.instances)
            .where(_instances.id.in_([row.id for row in rows]))
            .values(path="")
        )
    return Removed(len(rows), [row.path for row in rows], sum(row.size_bytes for row in rows))


def _is_done(*, failed_too: bool) -> ColumnElement[bool]:
    """Return the condition that nothing waits for an instance's pixels.

    Without any model in use everything waits for one. What a destination refused, or what was
    given up, may be the only copy there is: it waits for somebody to retry or to cancel it.
    """
    states = (*EMBEDDED_STATES, "failed") if failed_too else EMBEDDED_STATES
    in_use = _models.state.in_(("active", "next"))
    outcome = (
        exists()
        .where(_work.instance == _instances.id, _work.model == _models.id, _work.state.in_(states))
        .correlate(schema.instances, schema.models)
    )
    return and_(
        exists().where(in_use),
        ~exists().where(in_use, ~outcome),
        ~exists().where(_forwards.instance == _instances.id, _forwards.state != "sent"),
    )


def kept_bytes(catalog: Catalog) -> int:
    """Return how much the files of all instances take, in bytes."""
    with catalog.read() as connection:
        total = select(func.coalesce(func.sum(_instances.size_bytes), 0)).where(KEPT)
        return int(connection.execute(total).scalar_one())


def count_pixels(catalog: Catalog) -> dict[str, int]:
    """Return how many instances have their pixels here and how many bytes those are.

    Likewise for those whose pixels are not kept (any more).
    """
    counts: dict[str, int] = {}
    with catalog.read() as connection:
        for name, which in {"kept": KEPT, "not_kept": ~KEPT}.items():
            number, size = connection.execute(
                select(func.count(), func.coalesce(func.sum(_instances.size_bytes), 0)).where(which)
            ).one()
            counts |= {name: int(number), f"{name}_bytes": int(size)}
    return counts
