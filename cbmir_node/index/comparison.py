"""Row by row comparison of an index with the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cbmir_node.index import exact
from cbmir_node.index.protocol import Float32Array, Int64Array, VectorIndex
from cbmir_node.index.source import VectorSource, additions


@dataclass(frozen=True)
class Disagreement:
    """An id on which index and catalogue differ, as ``verify`` reports it."""

    id: int
    problem: Literal["not in the index", "not in the catalogue", "another vector"]


def compare(index: VectorIndex, source: VectorSource, last_vector_row: int) -> list[Disagreement]:
    """List every id up to `last_vector_row` on which index and catalogue differ, ascending.

    Rows removed while the comparison runs may be listed as well.
    """
    problems: list[Disagreement] = []
    known, present = index.ids(), [np.empty(0, np.int64)]
    for ids, vectors in additions(source, 0):
        present.append(ids)
        here = np.isin(ids, known, assume_unique=True)
        # what no index can hold equals nothing
        stored = np.where(exact.usable(vectors)[:, None], vectors, np.float32(np.nan))[here]
        if index.metric == "cosine":
            stored = exact.unit_length(stored)
        different = np.any(stored != _vectors_or_nan(index, ids[here]), axis=1)
        problems += [Disagreement(int(key), "another vector") for key in ids[here][different]]
        missing = ids[~here & (ids <= last_vector_row)]
        problems += [Disagreement(int(key), "not in the index") for key in missing]
    surplus = np.setdiff1d(known, np.concatenate(present))
    problems += [Disagreement(int(key), "not in the catalogue") for key in surplus]
    return sorted(problems, key=lambda problem: problem.id)


def _vectors_or_nan(index: VectorIndex, ids: Int64Array) -> Float32Array:
    """Return the vectors of `ids`; NaN for an id that another thread has just removed."""
    try:
        return index.vectors(ids)
    except KeyError:
        present = np.isin(ids, index.ids())
        result = np.full((len(ids), index.dimension), np.nan, dtype=np.float32)
        result[present] = index.vectors(ids[present])
        return result
