"""VGG features and cosine, after Nikitha et al.

Pictures of 224 x 224 in colour, mean subtraction, a VGG-type network, early stopping with patience
5; retrieval of the top 20 by cosine. The text speaks of VGG-16 with 13 convolutions, its table
lists 14: the table is taken, 64 three times, 128 twice, 256, 512 and 512 three times, then three
fully connected layers of 4096 units and the classifier.

Choices where the description leaves them open: kernels of 3 x 3 and max pooling of 2 x 2 after each
group, as in VGG (Simonyan and Zisserman, ICLR 2015); the mean subtracted is VGG's, and what is left
is divided by a constant, which only rescales the first layer's weights; no dropout, early stopping
being the safeguard that is named, and Adam (from random weights one epoch of it got 74 % of the
validation images right, five of SGD with dropout 34 %); pictures stretched to the square, not
changed at random; patience counts epochs without a better validation mAP, and the best epoch is
kept. ``embedding`` is the last fully connected layer before the classifier. The paper's 80/20 split
is replaced by the manifest's, which keeps a patient's pictures together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import shuffled_batches
from cbmir_node.training.recipe import ContractNetwork, Recipe
from cbmir_node.training.recipes.classifier import (
    Classifier,
    convolution,
    cross_entropy,
    flattened_length,
    scaled,
)
from cbmir_node.training.settings import TrainingSettings

WEIGHT_DECAY = 0.02
GROUPS = ((64, 3), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each group."""


class NikithaNetwork(Classifier):
    """The paper's network; see `Classifier` for the outputs' shapes."""

    output_names = (EMBEDDING, LOGITS, CODE)

    def __init__(self, labels: int, size: int, width: float) -> None:
        layers: list[nn.Module] = []
        inputs = 3
        for channels, count in GROUPS:
            outputs = scaled(channels, width)
            for _ in range(count):
                layers += convolution(inputs, outputs, 3, pad=1)
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        convolutions = nn.Sequential(*layers)
        flattened = flattened_length(convolutions, 3, size)
        super().__init__(
            convolutions, flattened, scaled(4096, width), labels, hidden=3, dropout=0.0
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to what `output_names` lists."""
        *_, features, logits = self.layers(image)
        return features, logits, self.hash(features)


def _build(vocabulary: Vocabulary, settings: TrainingSettings) -> NikithaNetwork:
    return NikithaNetwork(len(vocabulary.labels), settings.size, settings.width)


def _optimiser(network: ContractNetwork, settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=WEIGHT_DECAY
    )


def _preprocessing(size: int) -> Preprocessing:
    return Preprocessing(
        height=size,
        width=size,
        channels=3,
        resize="stretch",
        mean=(123.68, 116.78, 103.94),
        std=(64.0,) * 3,
    )


RECIPE = Recipe(
    defaults=TrainingSettings(
        recipe="nikitha", epochs=25, size=96, init="random", width=0.125, learning_rate=1e-3
    ),
    preprocessing=_preprocessing,
    build=_build,
    optimiser=_optimiser,
    loss=cross_entropy,
    batches=shuffled_batches,
    patience=5,
)
