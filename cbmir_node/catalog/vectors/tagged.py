"""All vectors of a model together with their images' tags: what measures an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.vectors.rows import EMBEDDING

_vectors = schema.vectors.c
_VECTORS_AT_ONCE = 2_000
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class TaggedVector:
    """One frame's vector, what the model takes it for, and what its tags say.

    Attributes
    ----------
    patient, study : int
        Rows of the catalogue.
    modality, body_part : str
        Modality and BodyPartExamined of the series, empty where absent.
    representative : bool
        False for localizers, derived images and secondary captures.
    path : str
        Of the object, relative to the archive.
    frame_number : int
        From 1.
    vector : bytes
        float32, little endian.
    code : bytes or None
        Hash code, packed bits.
    label, probability : str, float or None
        Most probable class.
    """

    patient: int
    study: int
    modality: str
    body_part: str
    representative: bool
    path: str
    frame_number: int
    vector: bytes
    code: bytes | None
    label: str | None
    probability: float | None


def tagged_vectors(catalog: Catalog, model: InstalledModel) -> Iterator[TaggedVector]:
    """Yield the vectors of the space ``embedding`` in the order of their rows, a page at a time.

    Vectors of a wrong length are left out; `cbmir-node verify` names them.
    """
    last = 0
    query = (
        select(
            _vectors.id,
            schema.studies.c.patient,
            schema.series.c.study,
            schema.series.c.modality,
            schema.series.c.body_part_examined,
            schema.instances.c.representative,
            schema.instances.c.path,
            _vectors.frame_number,
            _vectors.vector,
            _vectors.code,
            _vectors.label,
            _vectors.probability,
        )
        .select_from(schema.studies.join(schema.series).join(schema.instances).join(schema.vectors))
        .where(
            _vectors.model == model.row,
            _vectors.space == EMBEDDING,
            func.length(_vectors.vector) == model.spaces[EMBEDDING] * _FLOAT_BYTES,
        )
        .order_by(_vectors.id)
        .limit(_VECTORS_AT_ONCE)
    )
    while True:
        with catalog.read() as connection:
            rows = connection.execute(query.where(_vectors.id > last)).all()
        if not rows:
            return
        last = rows[-1].id
        yield from (TaggedVector(*tuple(row)[1:]) for row in rows)
