"""How far the embedding of a study, a series or an image is, and what the model takes it for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, UNIQUE_KEY, StudyRootLevel
from cbmir_node.catalog.vectors.rows import EMBEDDING

_work, _vectors, _instances = schema.work.c, schema.vectors.c, schema.instances.c
_OBJECTS = schema.instances.join(schema.series).join(schema.studies)
_WITHOUT_VECTOR = ("failed", "pending", "no_pixels")
"""States that explain why nothing is embedded, the most telling first."""


@dataclass(frozen=True)
class SubjectState:
    """Whether something can be an example of a similarity query.

    Attributes
    ----------
    instances : int
        Objects of the study or series; 1 for an image.
    embedded : int
        Those with a vector, or that their series represents (see `catalog.work.series_cap`).
    state, reason : str
        Of those that explain why none is embedded; empty when some are.
    """

    instances: int
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
        select(_work.state, func.count(), func.max(_work.reason))
        .select_from(_OBJECTS.outerjoin(schema.work, mine))
        .where(named)
        .group_by(_work.state)
    )
    with catalog.read() as connection:
        found = {
            row[0] or "pending": (int(row[1]), str(row[2] or ""))
            for row in connection.execute(query)
        }
    if not found:
        return None
    instances = sum(count for count, _ in found.values())
    embedded = sum(found[state][0] for state in ("embedded", "skipped") if state in found)
    if embedded:
        return SubjectState(instances, embedded)
    state = next(state for state in _WITHOUT_VECTOR if state in found)
    return SubjectState(instances, 0, state, found[state][1])


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
