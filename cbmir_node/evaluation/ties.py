"""Expected retrieval metrics of rankings with ties.

Among equally similar images every order is as likely; each metric is its mean over these orders,
in closed form (McSherry and Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008). Hash codes tie all the time, and whatever
fixed order would either flatter a metric or punish it.

Notation: a group of n equally similar images, r of them relevant, begins after N images of which R
are relevant.
"""

from __future__ import annotations

import functools
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cbmir_node.evaluation.items import BoolArray, Float32Array, Float64Array, IntArray

Int32Array = npt.NDArray[np.int32]


class TiedRankings:
    """The rankings of M queries over the same N candidates.

    Parameters
    ----------
    similarity : float32 [M, N]
        Higher is more alike; -inf for a candidate that a system left out: it is not found.
    relevant : bool [M, N]
        What should be found, left out or not.
    """

    def __init__(self, similarity: Float32Array, relevant: BoolArray) -> None:
        self.wanted: Float64Array = relevant.sum(axis=1).astype(np.float64)
        # in which order ties come does not matter
        self.order: IntArray = np.argsort(-similarity, axis=1)
        values = np.take_along_axis(similarity, self.order, axis=1)
        self._ranked = values > -np.inf
        found = np.take_along_axis(relevant, self.order, axis=1) & self._ranked
        rows, width = values.shape
        changes = np.ones((rows, width + 1), dtype=bool)
        changes[:, 1:-1] = values[:, 1:] != values[:, :-1]
        places = np.arange(width + 1, dtype=np.int32)  # half the memory to go through
        self._start = np.maximum.accumulate(np.where(changes, places, 0), axis=1)[:, :-1]
        ends = np.where(changes, places, width)[:, :0:-1]
        self._end = np.minimum.accumulate(ends, axis=1)[:, ::-1]
        self._size = self._end - self._start
        counted = np.zeros((rows, width + 1), dtype=np.int32)
        np.cumsum(found, axis=1, out=counted[:, 1:])
        self._before = np.take_along_axis(counted, self._start, axis=1)
        self._in_group = np.take_along_axis(counted, self._end, axis=1) - self._before

    @cached_property
    def relevance(self) -> Float64Array:
        """Probability [M, N] that the image at each place is relevant: r / n."""
        return np.asarray(self._in_group / self._size)

    @cached_property
    def _gains(self) -> Float64Array:
        """Expected precision at each place, where it is relevant: the summands of AP.

        Given a relevant image at the j-th place of its group, each of the j - 1 before it is
        relevant with probability (r - 1) / (n - 1).
        """
        places = np.arange(self._start.shape[1])
        others = (self._in_group - 1) / np.maximum(self._size - 1, 1)
        expected = self._before + 1 + (places - self._start) * others
        return np.asarray(self.relevance * expected / (places + 1))

    def average_precision(self) -> Float64Array:
        """Return the average precision over the full ranking [M]; NaN where nothing is wanted."""
        return self._per_wanted(self._gains.sum(axis=1), self.wanted)

    def average_precision_at(self, k: int) -> Float64Array:
        """Return the sum over the first k places divided by min(k, relevant) [M]."""
        return self._per_wanted(self._gains[:, :k].sum(axis=1), np.minimum(k, self.wanted))

    def found_at(self, k: int) -> Float64Array:
        """Return the expected number of relevant images among the first k [M]."""
        return np.asarray(self.relevance[:, :k].sum(axis=1))

    def hit_at(self, k: int) -> Float64Array:
        """Return the probability of a relevant image among the first k [M].

        The cut falls into a group and takes m of its images; none of them is relevant with
        probability C(n - r, m) / C(n, m).
        """
        last = min(k, self._start.shape[1]) - 1
        size, relevant = self._size[:, last], self._in_group[:, last]
        taken = last + 1 - self._start[:, last]
        none = np.zeros(len(size))
        possible = (self._before[:, last] == 0) & (size - relevant >= taken)
        chosen = [array[possible] for array in (size, relevant, taken)]
        none[possible] = np.exp(
            self._log_binomial(chosen[0] - chosen[1], chosen[2])
            - self._log_binomial(chosen[0], chosen[2])
        )
        return self._per_wanted((1 - none) * self.wanted, self.wanted)

    def reciprocal_rank(self) -> Float64Array:
        """Return the expected 1 / place of the first relevant image [M], 0 where none is found.

        In its group it is at the j-th place with probability C(n - j, r - 1) / C(n, r).
        """
        result = np.full(len(self.wanted), np.nan)
        for row in np.flatnonzero(self.wanted > 0):
            first = int(np.argmax(self._in_group[row] > 0))
            size, relevant = int(self._size[row, first]), int(self._in_group[row, first])
            if size == 1 or not relevant:
                result[row] = relevant / (first + 1)
                continue
            places = np.arange(1, size - relevant + 2)
            chances = np.exp(
                self._log_binomial(size - places, np.array(relevant - 1))
                - self._log_binomial(np.array(size), np.array(relevant))
            )
            result[row] = (chances / (first + places)).sum()
        return result

    def votes(self, k: int, classes: IntArray, number: int) -> Float64Array:
        """Return the expected votes of the first k for each class, [M, `number`].

        Parameters
        ----------
        classes : int [N]
            Class number of each candidate.

        Notes
        -----
        The images of the group that the cut falls into share the places that are left. A class
        whose first image comes earlier gets an advantage far below one vote, which decides draws.
        """
        rows, width = self._start.shape
        last = min(k, width) - 1
        begin, end = self._start[:, last, None], self._end[:, last, None]
        shown = slice(0, int(end.max(initial=0)))
        places = np.arange(shown.stop)
        share = np.where(places < begin, 1.0, (last + 1 - begin) / (end - begin))
        weights = np.where((places < end) & self._ranked[:, shown], share, 0.0)
        cells = np.arange(rows)[:, None] * number + classes[self.order[:, shown]]
        votes = np.bincount(cells.ravel(), weights.ravel(), minlength=rows * number)
        first = np.full(rows * number, width)
        np.minimum.at(first, cells.ravel(), self._start[:, shown].ravel())
        return np.asarray((votes - 1e-9 * first).reshape(rows, number))

    def interpolated_precision(self, levels: Float64Array) -> Float64Array:
        """Return the highest precision at each recall level or above, [M, L].

        From expected numbers found; 0 beyond the recall that a system with left-out candidates
        reaches, NaN where nothing is wanted.
        """
        found = np.cumsum(self.relevance, axis=1)
        precision = found / np.arange(1, found.shape[1] + 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result = np.full((len(found), len(levels)), np.nan)
        for row in np.flatnonzero(self.wanted > 0):
            places = np.searchsorted(found[row] / self.wanted[row], levels - 1e-9)
            reached = places < found.shape[1]
            result[row] = np.where(reached, best[row, np.minimum(places, found.shape[1] - 1)], 0)
        return result

    def _log_binomial(self, n: npt.NDArray[np.integer], k: npt.NDArray[np.integer]) -> Float64Array:
        """Return log C(n, k) for 0 <= k <= n."""
        logs = _log_factorials(self._start.shape[1])
        return np.asarray(logs[n] - logs[k] - logs[n - k])

    @staticmethod
    def _per_wanted(values: Float64Array, wanted: Float64Array) -> Float64Array:
        return np.where(wanted > 0, values / np.maximum(wanted, 1), np.nan)


@functools.lru_cache(maxsize=4)
def _log_factorials(highest: int) -> Float64Array:
    """Return log n! for n from 0 to `highest`."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, highest + 1)))])
