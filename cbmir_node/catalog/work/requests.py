"""Puts instances into the work queue: new ones, those a model has missed, and all of them again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, literal, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.upsert import insert_unless_present
from cbmir_node.catalog.work.queue import WorkState

_work = schema.work.c
NOT_KEPT = "its pixels are not kept here: send or pull it again"
"""Why a model that was put to use later cannot embed an instance."""

_instances = schema.instances.c
_MODELS_IN_USE = select(schema.models.c.id).where(schema.models.c.state.in_(("active", "next")))


def request_work(connection: Connection, instance: int, now: float) -> None:
    """Queue a new instance for every model in use, in the caller's transaction."""
    hold(connection, Lock.MODELS_IN_USE, shared=True)
    models = connection.execute(_MODELS_IN_USE).scalars()
    rows = [
        {"instance": instance, "model": model, "state": "pending", "requested_at": now}
        for model in models
    ]
    insert_unless_present(connection, schema.work, rows)


def request_missing_work(connection: Connection, model: int, now: float) -> None:
    """Queue every instance that `model` has never been asked to embed.

    One whose pixels are not kept cannot be: it has failed, until they come again. They need not,
    where another model does without: which images of a series are embedded is the same for all.
    """
    kept = _instances.path != ""
    other = schema.work.alias("other").c
    skipped = select(other.instance).where(
        other.instance == _instances.id, other.state == "skipped"
    )
    missing = (
        select(
            _instances.id,
            literal(model),
            case(
                (kept, "pending"),
                (skipped.exists(), "skipped"),
                (_instances.has_pixels, "failed"),
                else_="no_pixels",
            ),
            case((kept, ""), else_=NOT_KEPT),
            literal(now),
        )
        .select_from(
            schema.instances.outerjoin(
                schema.work,
                and_(_work.instance == _instances.id, _work.model == model),
            )
        )
        .where(_work.instance.is_(None))
    )
    connection.execute(
        insert(schema.work).from_select(
            ["instance", "model", "state", "reason", "requested_at"], missing
        )
    )


def waits_for_pixels() -> ColumnElement[bool]:
    """Return the condition of work that cannot be done before pixels come again."""
    return (_work.state == "failed") & (_work.reason == NOT_KEPT)


def request_again(catalog: Catalog, model: int, states: Sequence[WorkState]) -> None:
    """Queue all instances in these states anew, but for those whose pixels are not kept.

    Their vectors stay in use until the new ones replace them.
    """
    now = time.time()
    with catalog.write() as connection:
        request_missing_work(connection, model, now)
        kept = _work.instance.in_(select(_instances.id).where(_instances.path != ""))
        which = (_work.model == model) & _work.state.in_(list(states)) & kept
        reset_work(connection, which, now)


def request_failed_again(catalog: Catalog, reason: str | None = None) -> int:
    """Queue the failed instances of every model in use anew, all or those with one reason.

    Those whose pixels are not kept wait until these come again.

    Returns
    -------
    int
        How many instances are pending by that.
    """
    kept = _work.instance.in_(select(_instances.id).where(_instances.path != ""))
    which = (_work.state == "failed") & _work.model.in_(_MODELS_IN_USE) & kept
    if reason is not None:
        which &= _work.reason == reason
    with catalog.write() as connection:
        named = select(func.count(_work.instance.distinct())).where(which)
        instances = int(connection.execute(named).scalar_one())
        reset_work(connection, which, time.time())
    return instances


def reset_work(connection: Connection, which: ColumnElement[bool], now: float) -> None:
    """Make work rows pending as if they were new, in the caller's transaction."""
    connection.execute(
        update(schema.work)
        .where(which)
        .values(
            state="pending",
            reason="",
            attempts=0,
            requested_at=now,
            lease_owner=None,
            lease_until=None,
        )
    )
