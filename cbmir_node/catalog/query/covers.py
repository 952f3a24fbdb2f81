"""Which image stands for a study or series where one has to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import StudyRootLevel
from cbmir_node.catalog.reception.representation import frame_count, number_of

_instances = schema.instances.c
_UID_COLUMN: dict[StudyRootLevel, Any] = {
    "STUDY": schema.studies.c.study_instance_uid,
    "SERIES": schema.series.c.series_instance_uid,
    "IMAGE": _instances.sop_instance_uid,
}
_EMBEDDED = (
    select(schema.work.c.instance)
    .where(schema.work.c.instance == _instances.id, schema.work.c.state == "embedded")
    .exists()
)


def cover_image(catalog: Catalog, level: StudyRootLevel, uid: str) -> tuple[str, int] | None:
    """Return the SOP Instance UID and frame number of the image that stands for something.

    Embedded images come before others, kept ones before those whose pixels are gone, and
    localizers and the like last. Of the series with most of the best it is the middle image by
    Instance Number, and of that the middle frame of those that stand for it. None where there is
    no image.
    """
    query = (
        select(
            _instances.id,
            _instances.series,
            _instances.sop_instance_uid,
            _instances.instance_number,
            _instances.number_of_frames,
            _instances.representative,
            (_instances.path != "").label("kept"),
            _EMBEDDED.label("embedded"),
        )
        .select_from(schema.instances.join(schema.series).join(schema.studies))
        .where(_UID_COLUMN[level] == uid, _instances.has_pixels)
    )
    with catalog.read() as connection:
        images = connection.execute(query).all()
        if not images:
            return None
        chosen = _middle(images)
        thumbnails = schema.thumbnails.c
        embedded = select(thumbnails.frame_number).where(thumbnails.instance == chosen.id)
        frames: Sequence[int] = sorted(connection.execute(embedded).scalars())
    if not frames:
        frames = range(1, frame_count(chosen.number_of_frames) + 1)
    return str(chosen.sop_instance_uid), frames[len(frames) // 2]


def first_object(catalog: Catalog, level: StudyRootLevel, uid: str) -> str | None:
    """Return the SOP Instance UID of the first object of something that has no image."""
    query = (
        select(_instances.sop_instance_uid)
        .select_from(schema.instances.join(schema.series).join(schema.studies))
        .where(_UID_COLUMN[level] == uid)
        .order_by(_instances.id)
        .limit(1)
    )
    with catalog.read() as connection:
        return connection.execute(query).scalar()


def _middle(images: Sequence[Row[Any]]) -> Row[Any]:
    best = max(_kind(image) for image in images)
    images = [image for image in images if _kind(image) == best]
    series, _ = Counter(image.series for image in images).most_common(1)[0]
    ordered = sorted(
        (image for image in images if image.series == series),
        key=lambda image: (number_of(image.instance_number) or 0, image.id),
    )
    middle: Row[Any] = ordered[len(ordered) // 2]
    return middle


def _kind(image: Row[Any]) -> tuple[bool, bool, bool]:
    return bool(image.embedded), bool(image.kept), bool(image.representative)
