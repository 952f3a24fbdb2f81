"""Intervals by resampling patients.

Images of one patient are not independent, so whole patients are drawn. They are drawn within each
class, so that every resample holds every class and the macro average is defined. All systems of a
comparison see the same resamples, which makes the interval of a difference a paired one.

The database stays as it is: the interval tells how much the figure depends on who asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbmir_node.evaluation.items import Float64Array, IntArray, StrArray

RESAMPLES = 1000
SEED = 20261121
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class PatientBootstrap:
    """Resamples of the patients behind Q queries.

    Parameters
    ----------
    classes, patients : array of str [Q]
        A patient with queries of two classes is drawn in each of them by itself.
    resamples, seed : int
    """

    def __init__(
        self,
        classes: StrArray,
        patients: StrArray,
        resamples: int = RESAMPLES,
        seed: int = SEED,
    ) -> None:
        random = np.random.default_rng(seed)
        self._queries = len(classes)
        self._strata: list[tuple[IntArray, IntArray, Float64Array]] = []
        for name in np.unique(classes):
            rows = np.flatnonzero(classes == name)
            _, patient_of = np.unique(patients[rows], return_inverse=True)
            number = int(patient_of.max()) + 1
            weights = random.multinomial(number, np.full(number, 1 / number), size=resamples)
            # the first row is the sample itself
            times = np.concatenate([np.ones((1, number)), weights])
            self._strata.append((rows, patient_of.astype(np.intp), times))

    def macro(self, values: Float64Array) -> Float64Array:
        """Return the means over the classes of `values` [Q, M]: [1 + resamples, M].

        The first row is of the queries as they are.
        """
        return np.asarray(np.mean([s / n[:, None] for s, n in self._sums(values)], axis=0))

    def pooled(self, values: Float64Array) -> Float64Array:
        """Return the means over all queries, like `macro`."""
        sums = self._sums(values)
        number = np.sum([n for _, n in sums], axis=0)
        return np.asarray(np.sum([s for s, _ in sums], axis=0) / number[:, None])

    def _sums(self, values: Float64Array) -> list[tuple[Float64Array, Float64Array]]:
        """Return sums [1 + resamples, M] and numbers [1 + resamples] of each class's queries."""
        if len(values) != self._queries:
            raise ValueError(f"{len(values)} rows for {self._queries} queries")
        sums = []
        for rows, patient_of, times in self._strata:
            per_patient = np.zeros((times.shape[1], values.shape[1]))
            np.add.at(per_patient, patient_of, values[rows])
            sums.append((times @ per_patient, times @ np.bincount(patient_of)))
        return sums


def intervals(samples: Float64Array) -> list[Interval]:
    """Return value and percentile interval of each column of `macro` or `pooled`."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(samples[1:], [tail, 100 - tail], axis=0)
    return [
        Interval(float(value), float(below), float(above))
        for value, below, above in zip(samples[0], low, high, strict=True)
    ]
