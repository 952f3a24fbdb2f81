"""How far the embedding of a study, a series or an image is, and what the model takes it for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, UNIQUE_KEY, StudyRootLevel
from cbmir_node.catalog.vectors.rows import EMBEDDING

_work, _vectors, _instances = schema.work.c, schema.vectors.c, schema.instances.c
_OBJECTS = schema.instances.join(schema.series).join(schema.studies)
_WITHOUT_VECTOR = ("failed", "pending", "skipped", "no_pixels")
"""States that explain why nothing is embedded, the most telling first."""
_IN_PLAIN_WORDS = {
    "pending": "it waits to be embedded; ask again in a moment",
    "skipped": "enough other images of its series are embedded; the nearest stands for it",
    "no_pixels": "it has no picture, as a report has none; choose one with images",
}


@dataclass(frozen=True)
class SubjectState:
    """Whether something can be an example of a similarity query.

    Attributes
    ----------
    instances : int
        Objects of the study or series; 1 for an image.
    images : int
        Those with pixels.
    embedded : int
        Those with a vector; an image also where one of its series stands for it (see
        `catalog.work.series_cap`).
    state, reason : str
        ``pending``, ``no_pixels``, ``failed`` or ``skipped``, and what that means to a reader:
        why none has a vector of its own. Empty when some have.
    """

    instances: int
    images: int
    embedded: int
    state: str = ""
    reason: str = ""


def subject_state(
    catalog: Catalog, model: int, level: StudyRootLevel, uid: str
) -> SubjectState | None:
    """Return how far a subject is embedded with a model; ``None`` where it is unknown."""
    key = KEY_BY_KEYWORD[UNIQUE_KEY[level]]
    named = schema.TABLE_OF_LEVEL[level].c[key.column] == uid
    mine = (_work.instance == _instances.id) & (_work.model == model)
    query = (
        select(
            *(_work.state, func.count(), func.max(_work.reason)),
            func.sum(case((_instances.has_pixels, 1), else_=0)),
        )
        .select_from(_OBJECTS.outerjoin(schema.work, mine))
        .where(named)
        .group_by(_work.state)
    )
    with catalog.read() as connection:
        rows = connection.execute(query).all()
    if not rows:
        return None
    counts = {row[0] or "pending": int(row[1]) for row in rows}
    reasons = {row[0] or "pending": str(row[2] or "") for row in rows}
    instances, images = sum(counts.values()), sum(int(row[3]) for row in rows)
    if "embedded" in counts:
        return SubjectState(instances, images, counts["embedded"] + counts.get("skipped", 0))
    # what has no picture is not waited for, though the worker has not looked yet
    found = [state for state in _WITHOUT_VECTOR if state in counts] if images else ["no_pixels"]
    stands_for_it = found[0] == "skipped" and level == "IMAGE"
    reason = _IN_PLAIN_WORDS.get(found[0]) or reasons[found[0]]
    return SubjectState(instances, images, int(stands_for_it), found[0], reason)


def prediction_of(
    catalog: Catalog, model: int, sop_instance_uid: str, frame_number: int
) -> tuple[str, float] | None:
    """Return class and probability that a model gave an embedded frame, if it has classes."""
    query: Any = (
        select(_vectors.label, _vectors.probability)
        .select_from(schema.vectors.join(schema.instances))
        .where(
            _instances.sop_instance_uid == sop_instance_uid,
            _vectors.model == model,
            _vectors.space == EMBEDDING,
            _vectors.frame_number == frame_number,
        )
    )
    with catalog.read() as connection:
        row = connection.execute(query).first()
    if row is None or row.label is None or row.probability is None:
        return None
    return str(row.label), float(row.probability)
