"""What the index asks of the catalogue, which implements it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from cbmir_node.index.protocol import Int64Array, VectorArray

ROWS_PER_READ = 10_000


class SourceCounts(NamedTuple):
    """How far the catalogue is: rows present, and the highest row numbers ever given (0: none)."""

    vectors: int
    last_vector_row: int
    last_removal_row: int


class VectorSource(Protocol):
    """The catalogue's vectors of one model and space, or its codes of one model.

    Row numbers are positive, never used again, and become visible in ascending order: once a row
    has been seen, no lower one appears. The same holds for the rows of the removal log. Vectors
    read back the same every time; a damaged one may hold any value.
    """

    def added_after(self, row: int, limit: int) -> tuple[Int64Array, VectorArray]:
        """Return up to `limit` row numbers above `row` still present, ascending, and vectors."""

    def removed_after(self, row: int, limit: int) -> tuple[Int64Array, Int64Array]:
        """Return up to `limit` removal rows above `row`, ascending, and the ids they removed."""

    def counts(self) -> tuple[int, int, int]:
        """Return the present state in one consistent read."""


def additions(source: VectorSource, row: int) -> Iterator[tuple[Int64Array, VectorArray]]:
    """Read everything above `row`, at most `ROWS_PER_READ` rows at a time."""
    while True:
        ids, vectors = source.added_after(row, ROWS_PER_READ)
        if not len(ids):
            return
        yield ids, vectors
        row = int(ids[-1])


def removals(source: VectorSource, row: int) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Read the removal log above `row`, at most `ROWS_PER_READ` rows at a time."""
    while True:
        rows, ids = source.removed_after(row, ROWS_PER_READ)
        if not len(rows):
            return
        yield rows, ids
        row = int(rows[-1])
