"""The training images in memory, and the order in which the network meets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.manifest import LabelledImage, load_pictures
from cbmir_node.training.settings import IMAGES_PER_CLASS


@dataclass(frozen=True)
class Targets:
    """What a batch of N pictures should give.

    Attributes
    ----------
    labels, findings : int64 [N]
        As in `Examples`.
    candidates : bool [N, F]
        The findings that belong to each picture's label.
    """

    labels: Tensor
    findings: Tensor
    candidates: Tensor


@dataclass(frozen=True)
class Examples:
    """Pictures and targets.

    Attributes
    ----------
    pictures : uint8 [N, C, H, W]
    labels : int64 [N]
        Number in `Vocabulary.labels`.
    findings : int64 [N]
        Number in `Vocabulary.findings`, -1 where unknown.
    candidates : bool [K, F]
        Which findings belong to which label.
    """

    pictures: Tensor
    labels: Tensor
    findings: Tensor
    candidates: Tensor

    def targets(self, rows: Tensor) -> Targets:
        """Return the targets of the pictures with these numbers, int64 [N]."""
        labels = self.labels[rows]
        return Targets(labels, self.findings[rows], self.candidates[labels])


def load_examples(
    images: Sequence[LabelledImage], vocabulary: Vocabulary, preprocessing: Preprocessing
) -> Examples:
    """Load the pictures of a manifest's rows and number their labels and findings."""
    label_number = {label: number for number, label in enumerate(vocabulary.labels)}
    finding_number = {finding: number for number, finding in enumerate(vocabulary.findings)}
    return Examples(
        torch.from_numpy(load_pictures(images, preprocessing)),
        torch.tensor([label_number[image.label] for image in images]),
        torch.tensor([finding_number.get((i.label, i.finding), -1) for i in images]),
        torch.tensor(
            [[label == of for of, _ in vocabulary.findings] for label in vocabulary.labels],
            dtype=torch.bool,
        ).reshape(len(vocabulary.labels), len(vocabulary.findings)),
    )


def to_input(pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Apply mean and standard deviation to grey levels [N, C, H, W], as `network_input` does."""
    mean = torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1)
    deviation = torch.tensor(preprocessing.std).reshape(1, -1, 1, 1)
    values = (pictures.float() - mean) / deviation
    return values.contiguous(memory_format=torch.channels_last)


def balanced_batches(
    labels: npt.NDArray[np.int64], batch_size: int, order: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield one epoch's batches: few classes each, `IMAGES_PER_CLASS` pictures of every one.

    Classes take turns, so that a rare class is seen as often as a common one.
    """
    groups = batch_size // IMAGES_PER_CLASS
    steps = max(1, len(labels) // batch_size)
    members = [_cycle(np.flatnonzero(labels == number), order) for number in np.unique(labels)]
    classes = _cycle(np.arange(len(members)), order)
    for _ in range(steps):
        chosen = [next(classes) for _ in range(groups)]
        yield np.array([next(members[c]) for c in chosen for _ in range(IMAGES_PER_CLASS)])


def shuffled_batches(
    labels: npt.NDArray[np.int64], batch_size: int, order: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield one epoch's batches in plain random order; an incomplete last one is left out."""
    shuffled = order.permutation(len(labels))
    for step in range(max(1, len(labels) // batch_size)):
        yield shuffled[step * batch_size : (step + 1) * batch_size]


def _cycle(values: npt.NDArray[np.int64], order: np.random.Generator) -> Iterator[int]:
    while True:
        yield from order.permutation(values).tolist()
