"""What a recipe is: the parts of a training run in which published systems differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import Targets
from cbmir_node.training.settings import TrainingSettings

BatchOrder = Callable[
    [npt.NDArray[np.int64], int, np.random.Generator], Iterator[npt.NDArray[np.int64]]
]
"""Labels [N], batch size and a generator to the row numbers of one epoch's batches."""


class ContractNetwork(nn.Module):
    """A network whose ``forward`` gives outputs of `cbmir_node.embedding.contract`.

    Attributes
    ----------
    output_names : tuple of str
        Names of the tensors that ``forward`` returns, in order.
    """

    output_names: tuple[str, ...]

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Name the outputs for pictures [N, C, H, W]."""
        return dict(zip(self.output_names, self(image), strict=True))


@dataclass(frozen=True)
class Finishing:
    """What follows the last epoch: from the trained network to the one that is exported.

    Attributes
    ----------
    preprocessing, build : callable
        Of the exported network, see `Recipe`.
    finish : callable
        Trained network, the images it was trained on, vocabulary and settings to the exported
        network.
    """

    preprocessing: Callable[[int], Preprocessing]
    build: Callable[[Vocabulary, TrainingSettings], ContractNetwork]
    finish: Callable[..., ContractNetwork]


@dataclass(frozen=True)
class Recipe:
    """A way to train one kind of network.

    Attributes
    ----------
    defaults : TrainingSettings
        What is trained unless the user says otherwise; names the recipe.
    preprocessing : callable
        Input size in pixels to how pictures reach the network.
    build : callable
        An untrained network for a vocabulary. With ``settings.width`` 1 and the published input
        size it is the network of the paper.
    optimiser : callable
        Parameter groups may carry a ``share``: their part of the learning rate.
    loss : callable
        Network, input [N, C, H, W] and targets to a scalar.
    batches : callable
        See `BatchOrder`.
    augment : callable, optional
        Grey levels 0-255 [N, C, H, W] and a generator to changed grey levels, float32.
    initialise : callable, optional
        Fills in start weights from elsewhere.
    patience : int, optional
        Stop after so many epochs without a better validation score, and keep the best epoch.
    finishing : Finishing, optional
        Where what is exported is more than what was trained.
    """

    defaults: TrainingSettings
    preprocessing: Callable[[int], Preprocessing]
    build: Callable[[Vocabulary, TrainingSettings], ContractNetwork]
    optimiser: Callable[[ContractNetwork, TrainingSettings], torch.optim.Optimizer]
    loss: Callable[[ContractNetwork, Tensor, Targets], Tensor]
    batches: BatchOrder
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    initialise: Callable[[ContractNetwork, TrainingSettings], None] | None = None
    patience: int | None = None
    finishing: Finishing | None = None
