"""Vectors as rows: the truth that every index is a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.vectors.thumbnails import Thumbnails, replace_thumbnails
from cbmir_node.catalog.work.queue import Claim, held_claims, set_state

_vectors = schema.vectors.c
_removed = schema.removed_vectors.c
_BYTES = np.dtype("<f4")
_CODE_BYTES = np.dtype(np.uint8)

EMBEDDING = "embedding"
"""The vector space that every model has; its rows carry code, label and probability as well."""

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameVectors:
    """What a model says of one frame.

    Attributes
    ----------
    spaces : dict of str to float32 [D]
        One vector per vector space, ``embedding`` among them.
    code : bytes or None
        Hash code, eight bits to a byte, the first in the highest bit.
    label, probability : str, float or None
        Most probable class.
    """

    frame_number: int
    spaces: dict[str, Float32Array]
    code: bytes | None = None
    label: str | None = None
    probability: float | None = None


def write_vectors(
    catalog: Catalog,
    results: Sequence[tuple[Claim, list[FrameVectors]]],
    thumbnails: Thumbnails | None = None,
) -> None:
    """Write the vectors of some instances and mark them embedded, all in one commit.

    Earlier vectors of the same instances and model are replaced, and so are thumbnails. Claims
    that were lost meanwhile, because their lease ended or their instance was deleted or replaced,
    are left out.
    """
    if not results:
        return
    model = results[0][0].model
    with catalog.write() as connection:
        # before the claims are locked: a replacement takes both in this order too
        hold(connection, Lock.VECTOR_ROWS)
        held = held_claims(connection, [claim for claim, _ in results])
        remove_vectors(connection, sorted(held), model)
        rows = [
            {
                "instance": claim.instance,
                "model": model,
                "space": space,
                "frame_number": frame.frame_number,
                "vector": vector.astype(_BYTES).tobytes(),
                "code": frame.code if space == EMBEDDING else None,
                "label": frame.label if space == EMBEDDING else None,
                "probability": frame.probability if space == EMBEDDING else None,
            }
            for claim, frames in results
            if claim.instance in held
            for frame in frames
            for space, vector in frame.spaces.items()
        ]
        if rows:
            connection.execute(insert(schema.vectors), rows)
        replace_thumbnails(
            connection, {row: made for row, made in (thumbnails or {}).items() if row in held}
        )
        set_state(connection, model, sorted(held), "embedded")


def remove_vectors(
    connection: Connection, instances: Sequence[int], model: int | None = None
) -> None:
    """Delete vectors and log their rows for the indexes, in the caller's transaction."""
    hold(connection, Lock.VECTOR_ROWS)
    wanted: list[ColumnElement[bool]] = [_vectors.instance.in_(list(instances))]
    if model is not None:
        wanted.append(_vectors.model == model)
    connection.execute(
        insert(schema.removed_vectors).from_select(
            ["model", "space", "vector_id"],
            select(_vectors.model, _vectors.space, _vectors.id).where(*wanted),
        )
    )
    connection.execute(delete(schema.vectors).where(*wanted))


class VectorRows:
    """The rows of one model and vector space, as an index reads them.

    Parameters
    ----------
    catalog : Catalog
        Where they are.
    model : int
        Row of the model.
    space : str
        ``embedding`` or ``embedding.<layer>``.
    dimension : int
        Length of the vectors.

    Attributes
    ----------
    dimension : int
    """

    def __init__(self, catalog: Catalog, model: int, space: str, dimension: int) -> None:
        self._catalog = catalog
        self._model = model
        self._space = space
        self.dimension = dimension
        self._column: ColumnElement[bytes] = _vectors.vector
        self._dtype: np.dtype[Any] = _BYTES

    def added_after(self, row: int, limit: int) -> tuple[Int64Array, npt.NDArray[Any]]:
        """Return up to `limit` rows above `row`: ids int64 [N], vectors float32 [N, D]."""
        with self._catalog.read() as connection:
            rows = connection.execute(
                select(_vectors.id, self._column.label("content"))
                .where(self._readable(), _vectors.id > row)
                .order_by(_vectors.id)
                .limit(limit)
            ).all()
        ids = np.fromiter((found.id for found in rows), dtype=np.int64, count=len(rows))
        joined = b"".join(found.content for found in rows)
        matrix = np.frombuffer(joined, dtype=self._dtype).reshape(len(rows), self.dimension)
        return ids, matrix.astype(self._dtype.newbyteorder("="), copy=False)

    def _readable(self) -> ColumnElement[bool]:
        """Return the condition for the rows of this space.

        One damaged row must not keep all others from being found; `verify` names it.
        """
        return (
            (_vectors.model == self._model)
            & (_vectors.space == self._space)
            & (func.length(self._column) == self.dimension * self._dtype.itemsize)
        )

    def removed_after(self, row: int, limit: int) -> tuple[Int64Array, Int64Array]:
        """Return up to `limit` entries of the removal log above `row`: entries, vector ids."""
        with self._catalog.read() as connection:
            rows = connection.execute(
                select(_removed.id, _removed.vector_id)
                .where(
                    _removed.model == self._model,
                    _removed.space == self._space,
                    _removed.id > row,
                )
                .order_by(_removed.id)
                .limit(limit)
            ).all()
        entries = np.asarray([tuple(found) for found in rows], dtype=np.int64).reshape(-1, 2)
        return entries[:, 0], entries[:, 1]

    def counts(self) -> tuple[int, int, int]:
        """Return the number of vectors, and the highest vector and removal rows ever given."""
        # not `_readable`: reading every vector at each start costs more than a rebuild now and then
        mine = (_vectors.model == self._model) & (_vectors.space == self._space)
        gone = (_removed.model == self._model) & (_removed.space == self._space)
        with self._catalog.read() as connection:
            number, last = connection.execute(
                select(func.count(), func.max(_vectors.id)).where(mine)
            ).one()
            removal, last_gone = connection.execute(
                select(func.max(_removed.id), func.max(_removed.vector_id)).where(gone)
            ).one()
        return int(number), max(last or 0, last_gone or 0), removal or 0


class CodeRows(VectorRows):
    """The hash codes of one model, as an index reads them: uint8 [N, B / 8].

    They are kept in the rows of `EMBEDDING` and share their numbers.

    Parameters
    ----------
    catalog : Catalog
        Where they are.
    model : int
        Row of the model.
    code_bytes : int
        Length of a code, B / 8.
    """

    def __init__(self, catalog: Catalog, model: int, code_bytes: int) -> None:
        super().__init__(catalog, model, EMBEDDING, code_bytes)
        self._column = _vectors.code
        self._dtype = _CODE_BYTES
