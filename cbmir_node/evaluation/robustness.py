"""What another display window does to a query."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import Items, Outputs
from cbmir_node.evaluation.protocols import Protocol, rank_and_score
from cbmir_node.evaluation.result import WindowRow
from cbmir_node.evaluation.scores import class_means
from cbmir_node.evaluation.systems import by_space


def window_rows(
    source: Source, windows: Mapping[str, Outputs], items: Items, protocol: Protocol
) -> list[WindowRow]:
    """Compare queries in other display windows with the pictures as they are.

    Parameters
    ----------
    source : Source
    windows : mapping of str to Outputs
        Of the queries alone, by window.
    """
    database = source.outputs.take(protocol.database)
    plain = _unit(source.outputs.take(protocol.queries))
    rows = []
    for window, changed in windows.items():
        cosines = (plain * _unit(changed)).sum(axis=1)
        tables = rank_and_score(by_space("cosine"), protocol, items, (changed, database), [])
        table = tables["coarse", "image"]
        means = class_means(table.classes[table.answerable], table.values[table.answerable, :1])
        rows.append(
            WindowRow(
                source.name,
                window,
                float(cosines.mean()),
                float(np.percentile(cosines, 1)),
                float(cosines.min()),
                float(np.mean(list(means.values()))),
            )
        )
    return rows


def _unit(outputs: Outputs) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    vectors = outputs.spaces["embedding"]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
