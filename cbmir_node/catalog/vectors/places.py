"""Where vectors belong in the hierarchy of patients, studies, series and instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Group = Literal["patient", "study", "series", "instance"]


@dataclass(frozen=True)
class Places:
    """Where vectors belong: parallel arrays, ascending by vector row.

    Attributes
    ----------
    vector, patient, study, series, instance : int64 [N]
        Row numbers.
    representative : bool [N]
        Whether the image may stand for its study.
    """

    vector: Int64Array
    patient: Int64Array
    study: Int64Array
    series: Int64Array
    instance: Int64Array
    representative: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.vector)

    def take(self, chosen: npt.NDArray[Any]) -> Places:
        """Return the places at positions or by mask."""
        return Places(
            self.vector[chosen],
            self.patient[chosen],
            self.study[chosen],
            self.series[chosen],
            self.instance[chosen],
            self.representative[chosen],
        )

    def group(self, group: Group) -> Int64Array:
        """Return the row numbers of one level."""
        array: Int64Array = getattr(self, group)
        return array


def placed_vectors(found: Sequence[tuple[Any, ...]]) -> Places:
    """Return places from rows of a query, in any order, with the columns of `Places`."""
    table = np.asarray(found, dtype=np.int64).reshape(-1, 6)
    table = table[np.argsort(table[:, 0], kind="stable")]
    vector, patient, study, series, instance, representative = table.T
    return Places(vector, patient, study, series, instance, representative.astype(bool))
