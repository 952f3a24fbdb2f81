"""Convolutions, fully connected layers, softmax: what three of the papers train."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from cbmir_node.embedding.contract import LOGITS
from cbmir_node.errors import ConfigurationError
from cbmir_node.training.examples import Targets
from cbmir_node.training.recipe import ContractNetwork
from cbmir_node.training.settings import TrainingSettings

CODE_BITS = 128
WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9


def scaled(count: int, width: float) -> int:
    """Scale a number of channels or units; multiples of 8 suit vector instructions."""
    return max(8, round(count * width / 8) * 8)


class RandomHash(nn.Module):
    """Signs of a fixed random projection of features around their mean.

    Two signs differ with probability angle / pi (Charikar, STOC 2002); orthogonal directions vary
    less (Ji et al., NeurIPS 2012). Activations after a ReLU are never negative and so lie within a
    right angle of each other, where few signs differ: hence the mean, a running one.

    Parameters
    ----------
    features : int
        Length D of the vectors.
    bits : int
        At most D directions can be orthogonal; the rest start a new set.
    """

    def __init__(self, features: int, bits: int = CODE_BITS) -> None:
        super().__init__()
        sets = [
            nn.init.orthogonal_(torch.empty(min(bits - start, features), features))
            for start in range(0, bits, features)
        ]
        self.register_buffer("directions", torch.cat(sets))
        self.register_buffer("mean", torch.zeros(features))

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, D] to [N, bits], the hash before its signs are taken."""
        if self.training:
            self.mean.lerp_(features.detach().mean(dim=0), 0.02)
        return functional.linear(features - self.mean, self.directions)


class Classifier(ContractNetwork):
    """Convolutions followed by two fully connected layers and the scores of the classes.

    Parameters
    ----------
    convolutions : Module
        Picture to feature map; its output is flattened.
    flattened : int
        Length of that.
    units : int
        Length D of each fully connected layer.
    labels : int
    hidden : int
        Number of fully connected layers before the scores.
    dropout : float
        Share of units left out of each step after each of these layers; one half in Krizhevsky et
        al. (NeurIPS 2012).
    """

    def __init__(
        self,
        convolutions: nn.Module,
        flattened: int,
        units: int,
        labels: int,
        *,
        hidden: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.convolutions = convolutions
        lengths = [flattened] + [units] * hidden
        self.hidden = nn.ModuleList(nn.Linear(lengths[i], units) for i in range(hidden))
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(units, labels)
        self.hash = RandomHash(units)
        _start_weights(self)

    def layers(self, image: Tensor) -> list[Tensor]:
        """Return the activations of the fully connected layers [N, D] and the scores [N, K]."""
        values = self.convolutions(image).flatten(1)
        outputs = []
        for layer in self.hidden:
            values = functional.relu(layer(values))
            outputs.append(values)
            values = self.dropout(values)
        return [*outputs, self.scores(values)]


def _start_weights(network: nn.Module) -> None:
    """Draw weights that keep the variance from layer to layer (He et al., ICCV 2015).

    Without it fourteen layers without normalisation do not start to learn.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    # Scores near zero at first: a wild guess costs more than none and kills units.
    nn.init.normal_(network.scores.weight, std=0.01)


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, pad: int = 0
) -> list[nn.Module]:
    """Convolution with ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, pad), nn.ReLU(inplace=True)]


def cross_entropy(network: ContractNetwork, image: Tensor, targets: Targets) -> Tensor:
    """Softmax cross-entropy of the labels."""
    return functional.cross_entropy(network.outputs(image)[LOGITS], targets.labels)


def momentum_sgd(network: ContractNetwork, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent as AlexNet and VGG were trained."""
    return torch.optim.SGD(
        network.parameters(), settings.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def five_convolutions(inputs: int, channels: tuple[int, ...], pad: int) -> nn.Sequential:
    """Return the convolutions of the AlexNet family.

    Parameters
    ----------
    inputs : int
        Channels of the picture.
    channels : tuple of int
        Of the five convolutions.
    pad : int
        Padding of the first; the others keep their size.
    """
    c1, c2, c3, c4, c5 = channels
    return nn.Sequential(
        *convolution(inputs, c1, 11, stride=4, pad=pad),
        nn.MaxPool2d(3, 2),
        *convolution(c1, c2, 5, pad=2),
        nn.MaxPool2d(3, 2),
        *convolution(c2, c3, 3, pad=1),
        *convolution(c3, c4, 3, pad=1),
        *convolution(c4, c5, 3, pad=1),
        nn.MaxPool2d(3, 2),
    )


def flattened_length(convolutions: nn.Module, channels: int, size: int) -> int:
    """Return how many values the convolutions leave of a picture.

    Raises
    ------
    ConfigurationError
        If none are left.
    """
    weightless = copy.deepcopy(convolutions).to("meta")
    try:
        values = weightless(torch.empty(1, channels, size, size, device="meta"))
    except RuntimeError as error:
        raise ConfigurationError(
            f"pictures of {size} pixels are too small for this network; use a larger size"
        ) from error
    return int(values.shape[1:].numel())
