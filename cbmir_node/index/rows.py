"""A run of vectors with their ids, of which some may be deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cbmir_node.index.protocol import BoolArray, Int64Array, VectorArray


@dataclass(frozen=True)
class Rows:
    """An immutable view: a change makes a new one, so that searches need no lock.

    Attributes
    ----------
    ids : int64 [n]
        Strictly ascending.
    vectors : float32 [n, D] or uint8 [n, B / 8]
        Contiguous; often a memory-mapped file.
    live : bool [n]
        False for removed rows.
    """

    ids: Int64Array
    vectors: VectorArray
    live: BoolArray

    @classmethod
    def of(cls, ids: Int64Array, vectors: VectorArray) -> Rows:
        """Return rows that are all alive."""
        return cls(ids, vectors, np.ones(len(ids), dtype=np.bool_))

    @classmethod
    def room(cls, rows: int, dimension: int, dtype: npt.DTypeLike) -> Rows:
        """Return room for `rows` vectors of this length and type, not filled in."""
        return cls.of(np.empty(rows, np.int64), np.empty((rows, dimension), dtype))

    def __len__(self) -> int:
        """Return the number of rows, dead ones included."""
        return len(self.ids)

    @property
    def dead(self) -> int:
        """Number of removed rows."""
        return len(self) - int(np.count_nonzero(self.live))

    def positions(self, ids: Int64Array) -> Int64Array:
        """Return the position of each id, -1 where it is not here or removed."""
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        known = (self.ids[places] == ids) & self.live[places]
        return np.where(known, places, -1).astype(np.int64)

    def without(self, ids: Int64Array) -> Rows:
        """Return these rows with `ids` marked as removed."""
        places = self.positions(ids)
        live = self.live.copy()
        live[places[places >= 0]] = False
        return replace(self, live=live)

    def selected(self, allowed: Int64Array | None, excluded: Int64Array | None) -> BoolArray:
        """Return which rows [n] are alive and pass the filters."""
        chosen = self.live if allowed is None else self._at(allowed)
        if excluded is not None:
            chosen = chosen & ~self._at(excluded)
        return chosen

    def live_chunks(self, rows: int = 8192) -> Iterator[tuple[Int64Array, VectorArray]]:
        """Yield ids and vectors of the live rows, `rows` positions at a time."""
        for start in range(0, len(self), rows):
            part = slice(start, start + rows)
            yield self.ids[part][self.live[part]], self.vectors[part][self.live[part]]

    def _at(self, ids: Int64Array) -> BoolArray:
        """Return which rows [n] are alive and among `ids`."""
        places = self.positions(np.asarray(ids, dtype=np.int64))
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[places[places >= 0]] = True
        return mask
