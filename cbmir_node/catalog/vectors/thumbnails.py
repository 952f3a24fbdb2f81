"""Small pictures of what is embedded, for results whose pixels may not be kept here."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, insert, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog

Thumbnails = Mapping[int, Mapping[int, bytes]]
"""Row number of an instance to frame number to JPEG file."""

_thumbnails = schema.thumbnails.c


def replace_thumbnails(connection: Connection, thumbnails: Thumbnails) -> None:
    """Write the thumbnails of some instances in the caller's transaction; earlier ones go."""
    remove_thumbnails(connection, thumbnails)
    rows = [
        {"instance": instance, "frame_number": frame_number, "picture": picture}
        for instance, frames in thumbnails.items()
        for frame_number, picture in frames.items()
    ]
    if rows:
        connection.execute(insert(schema.thumbnails), rows)


def remove_thumbnails(connection: Connection, instances: Collection[int]) -> None:
    """Delete the thumbnails of some instances in the caller's transaction."""
    connection.execute(delete(schema.thumbnails).where(_thumbnails.instance.in_(list(instances))))


def read_thumbnail(
    catalog: Catalog, sop_instance_uid: str, frame_number: int | None = None
) -> bytes | None:
    """Return a thumbnail, or None where there is none.

    Parameters
    ----------
    catalog : Catalog
    sop_instance_uid : str
    frame_number : int, optional
        From 1; the middle one of those there are by default.
    """
    if frame_number is None:
        query = (
            select(_thumbnails.frame_number)
            .join(schema.instances, schema.instances.c.id == _thumbnails.instance)
            .where(schema.instances.c.sop_instance_uid == sop_instance_uid)
            .order_by(_thumbnails.frame_number)
        )
        with catalog.read() as connection:
            frames = connection.execute(query).scalars().all()
        if not frames:
            return None
        frame_number = frames[len(frames) // 2]
    frame = (sop_instance_uid, frame_number)
    return read_thumbnails(catalog, [frame]).get(frame)


def read_thumbnails(
    catalog: Catalog, frames: Collection[tuple[str, int]]
) -> dict[tuple[str, int], bytes]:
    """Return the thumbnails of (SOP Instance UID, frame number), as far as there are any."""
    instances = schema.instances.c
    query = (
        select(instances.sop_instance_uid, _thumbnails.frame_number, _thumbnails.picture)
        .join(schema.instances, instances.id == _thumbnails.instance)
        .where(
            instances.sop_instance_uid.in_(sorted({uid for uid, _ in frames})),
            _thumbnails.frame_number.in_(sorted({number for _, number in frames})),
        )
    )
    wanted = set(frames)
    with catalog.read() as connection:
        return {
            (uid, number): picture
            for uid, number, picture in connection.execute(query)
            if (uid, number) in wanted
        }
