"""Of a long series only some images are embedded: the first ones in their sampling order.

Which these are depends on the images alone and not on when they arrive (see
`representation.sampling_order`). While a series grows, better placed images take the places of
others: of arrivals in any usual order the n-th is among the best N with a chance of N / n, so that
about N (1 + ln(n / N)) images have been embedded when n have arrived, and N of them stay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, exists, func, select, tuple_

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.reception.representation import number_of
from cbmir_node.catalog.vectors.rows import remove_vectors
from cbmir_node.catalog.vectors.thumbnails import remove_thumbnails
from cbmir_node.catalog.work.queue import Claim, held_claims, set_state
from cbmir_node.catalog.work.requests import NOT_KEPT, reset_work

SKIPPED = "enough other images of its series are embedded"

_instances = schema.instances.c
_work = schema.work.c


def skip_surplus(catalog: Catalog, claims: Sequence[Claim], most: int) -> list[Claim]:
    """Return the claims that are to be embedded; mark the others as skipped.

    A vector that such an image has from before goes.

    Parameters
    ----------
    catalog : Catalog
    claims : sequence of Claim
        Of one model.
    most : int
        Images of a series that are embedded.
    """
    rows = [claim.instance for claim in claims]
    places = select(_instances.id, _instances.series, _instances.sampling_order)
    with catalog.read() as connection:
        found = connection.execute(places.where(_instances.id.in_(rows))).all()
        firsts = _first_too_many(connection, {row.series for row in found}, most)
    surplus = {
        row.id
        for row in found
        if row.series in firsts
        and row.sampling_order is not None  # without pixels: takes nobody's place
        and (row.sampling_order, row.id) >= firsts[row.series]
    }
    if surplus:
        with catalog.write() as connection:
            hold(connection, Lock.VECTOR_ROWS)  # before the claims: everybody in this order
            held = held_claims(connection, [one for one in claims if one.instance in surplus])
            _skip(connection, claims[0].model, held)
    return [claim for claim in claims if claim.instance not in surplus]


def drop_displaced(catalog: Catalog, model: int, instances: Sequence[int], most: int) -> None:
    """Drop the vectors of images whose places these ones, just embedded, have taken."""
    series = select(_instances.series).where(_instances.id.in_(instances)).distinct()
    with catalog.read() as connection:
        firsts = _first_too_many(connection, connection.execute(series).scalars().all(), most)
        displaced = [
            instance
            for row, first in firsts.items()
            for instance in _embedded_from(connection, model, row, first)
        ]
    if displaced:
        with catalog.write() as connection:
            hold(connection, Lock.VECTOR_ROWS)
            _skip(connection, model, displaced)


def stand_in(catalog: Catalog, model: int, instance: int) -> int | None:
    """Return the embedded image that is nearest in its series to a skipped one.

    Nearest by Instance Number, then by arrival; ``None`` where the image was not skipped.
    """
    columns = (_instances.id, _instances.series, _instances.instance_number)
    mine = _work.model == model
    joined = select(*columns).join(schema.work, _work.instance == _instances.id).where(mine)
    with catalog.read() as connection:
        skipped = joined.where(_instances.id == instance, _work.state == "skipped")
        image = connection.execute(skipped).first()
        if image is None:
            return None
        embedded = joined.where(_instances.series == image.series, _work.state == "embedded")
        others = connection.execute(embedded).all()

    own = number_of(image.instance_number)

    def distance(other: Any) -> tuple[float, int]:
        number = number_of(other.instance_number)
        apart = math.inf if own is None or number is None else abs(number - own)
        return apart, abs(other.id - image.id)

    return min(others, key=distance).id if others else None


def places_of(connection: Connection, instances: Sequence[int]) -> dict[tuple[int, int], int]:
    """Return for (series, model) how many places some images, which are about to go, have taken."""
    taken = (
        select(_instances.series, _work.model, func.count())
        .join(schema.work, _work.instance == _instances.id)
        .where(_instances.id.in_(list(instances)), _instances.sampling_order.is_not(None))
        .where(_work.state != "skipped")
        .group_by(_instances.series, _work.model)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(taken)}


def free_places(connection: Connection, places: Mapping[tuple[int, int], int]) -> None:
    """Give places to the next skipped images, in the transaction that has removed the others.

    An image whose pixels are not kept gets one too, and has failed until they come again.

    Parameters
    ----------
    connection : Connection
    places : mapping of (int, int) to int
        How many, for (series, model).
    """
    buried = exists().where(schema.deleted_objects.c.instance == _instances.id)
    for (series, model), number in places.items():
        following = (
            select(_instances.id, _instances.path)
            .join(schema.work, _work.instance == _instances.id)
            .where(_instances.series == series, _instances.sampling_order.is_not(None))
            .where(_work.model == model, _work.state == "skipped", ~buried)
            .order_by(_instances.sampling_order, _instances.id)
            .limit(number)
        )
        rows = connection.execute(following).all()
        kept = [row.id for row in rows if row.path]
        reset_work(connection, (_work.model == model) & _work.instance.in_(kept), time.time())
        gone = [row.id for row in rows if not row.path]
        set_state(connection, model, gone, "failed", NOT_KEPT)


def _first_too_many(
    connection: Connection, series: Collection[int], most: int
) -> dict[int, tuple[int, int]]:
    """Return (sampling order, row) of the first image that is not embedded of each long series."""
    candidate = schema.instances.alias("candidate").c
    first = (
        select(candidate.id)
        .where(candidate.series == schema.series.c.id, candidate.sampling_order.is_not(None))
        .order_by(candidate.sampling_order, candidate.id)
        .limit(1)
        .offset(most)
        .scalar_subquery()
    )
    firsts = select(first).where(schema.series.c.id.in_(list(series)))
    query = select(_instances.series, _instances.sampling_order, _instances.id)
    rows = connection.execute(query.where(_instances.id.in_(firsts)))
    return {row.series: (row.sampling_order, row.id) for row in rows}


def _embedded_from(
    connection: Connection, model: int, series: int, first: tuple[int, int]
) -> list[int]:
    query = (
        select(_work.instance)
        .join(schema.instances, _instances.id == _work.instance)
        .where(
            _instances.series == series,
            tuple_(_instances.sampling_order, _instances.id) >= tuple_(*first),
            _work.model == model,
            _work.state == "embedded",
        )
    )
    return list(connection.execute(query).scalars())


def _skip(connection: Connection, model: int, instances: Collection[int]) -> None:
    remove_vectors(connection, sorted(instances), model)
    remove_thumbnails(connection, instances)
    set_state(connection, model, sorted(instances), "skipped", SKIPPED)
