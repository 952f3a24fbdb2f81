"""What is known of images, and what a model makes of them: the two tables of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
StrArray = npt.NDArray[np.str_]

UNKNOWN = -1
"""Number of a finding that is not known."""


@dataclass(frozen=True)
class Items:
    """What is known of N images: parallel arrays of str [N].

    Attributes
    ----------
    labels : array
        Coarse class, such as modality × body part.
    findings : array
        Finer class within it, empty where unknown.
    patients : array
        An image is never compared with images of its own patient.
    studies : array
        Images of one study are ranked as one at study level.
    """

    labels: StrArray
    findings: StrArray
    patients: StrArray
    studies: StrArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: npt.NDArray[np.generic]) -> Items:
        """Return the items at positions or by mask."""
        return Items(
            self.labels[chosen], self.findings[chosen], self.patients[chosen], self.studies[chosen]
        )

    @cached_property
    def coded(self) -> CodedItems:
        """The same as numbers, which compare faster than text."""
        fine = np.char.add(np.char.add(self.labels, "\t"), self.findings)
        label, finding, patient, study = (
            np.unique(names, return_inverse=True)[1].astype(np.intp)
            for names in (self.labels, fine, self.patients, self.studies)
        )
        return CodedItems(label, np.where(self.findings == "", UNKNOWN, finding), patient, study)


@dataclass(frozen=True)
class CodedItems:
    """Items as numbers: parallel arrays of int [N]; equal numbers are equal names.

    Attributes
    ----------
    label, patient, study : array
    finding : array
        Label and finding together, `UNKNOWN` where the finding is.
    """

    label: IntArray
    finding: IntArray
    patient: IntArray
    study: IntArray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, chosen: npt.NDArray[np.generic]) -> CodedItems:
        """Return the items at positions or by mask."""
        return CodedItems(
            self.label[chosen], self.finding[chosen], self.patient[chosen], self.study[chosen]
        )


@dataclass(frozen=True)
class Outputs:
    """What a model makes of N images.

    Attributes
    ----------
    spaces : mapping of str to float32 [N, D]
        ``embedding`` and every ``embedding.<layer>``.
    codes : uint8 [N, B / 8] or None
        Hash, packed bits.
    predicted : array of str [N] or None
        Most probable class.
    probability : float32 [N] or None
        Of that class.
    """

    spaces: Mapping[str, Float32Array]
    codes: npt.NDArray[np.uint8] | None = None
    predicted: StrArray | None = None
    probability: Float32Array | None = None

    def __len__(self) -> int:
        return len(self.spaces["embedding"])

    def take(self, chosen: npt.NDArray[np.generic]) -> Outputs:
        """Return the outputs of the images at positions or by mask."""
        return Outputs(
            {name: vectors[chosen] for name, vectors in self.spaces.items()},
            None if self.codes is None else self.codes[chosen],
            None if self.predicted is None else self.predicted[chosen],
            None if self.probability is None else self.probability[chosen],
        )
