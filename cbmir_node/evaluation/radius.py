"""What lies within a Hamming radius."""

from __future__ import annotations

import numpy as np

from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import Float64Array, IntArray, Items, Outputs
from cbmir_node.evaluation.protocols import Protocol
from cbmir_node.evaluation.result import RadiusCurve
from cbmir_node.evaluation.systems import Ranker, hamming, random_projection

_QUERIES_AT_ONCE = 256


def radius_curves(source: Source, protocol: Protocol, items: Items) -> list[RadiusCurve]:
    """Return the curves of a model's code and of a random one of its length; none without."""
    codes = source.outputs.codes
    if codes is None:
        return []
    bits = 8 * codes.shape[1]
    rankers = {
        f"{source.name}: {bits} bits": hamming,
        f"{source.name}: random projection to {bits} bits": random_projection(source.outputs),
    }
    return [
        _curve(name, rank, bits, protocol, items, source.outputs) for name, rank in rankers.items()
    ]


def _curve(
    name: str, rank: Ranker, bits: int, protocol: Protocol, items: Items, outputs: Outputs
) -> RadiusCurve:
    """Count what each query finds within every radius from 0 to `bits`."""
    database = items.take(protocol.database)
    answers = outputs.take(protocol.database)
    recall, share, classes = [], [], []
    for start in range(0, len(protocol.queries), _QUERIES_AT_ONCE):
        rows = protocol.queries[start : start + _QUERIES_AT_ONCE]
        asking = items.take(rows)
        eligible = asking.patients[:, None] != database.patients
        relevant = eligible & (asking.labels[:, None] == database.labels)
        similarity = rank(outputs.take(rows), answers, eligible)
        distance = np.rint((1 - similarity.astype(np.float64)) * bits).astype(np.intp)
        for row in np.flatnonzero(relevant.any(axis=1)):
            recall.append(_cumulative(distance[row, relevant[row]], bits))
            share.append(_cumulative(distance[row, eligible[row]], bits))
            classes.append(str(asking.labels[row]))
    return RadiusCurve(name, _macro(classes, recall), _macro(classes, share))


def _cumulative(distances: IntArray, bits: int) -> Float64Array:
    return np.asarray(np.cumsum(np.bincount(distances, minlength=bits + 1)) / len(distances))


def _macro(classes: list[str], rows: list[Float64Array]) -> list[float]:
    names, table = np.array(classes), np.array(rows)
    means = [table[names == name].mean(axis=0) for name in np.unique(names)]
    return list(np.mean(means, axis=0).tolist()) if means else []
