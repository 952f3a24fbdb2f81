"""Tag pre-filter and AlexNet features, after P. Haripriya and R. Porkodi.

The network of their DICOM retrieval: 96 kernels of 11 x 11 with stride 4, 256 of 5 x 5, 384, 384
and 256 of 3 x 3, two fully connected layers of 4096 units and a classifier, on grey pictures of
256 x 256, trained with SGD. The pre-filter by tags and the Euclidean ranking are options of a
query, not of the network.

Choices where the description leaves them open: max pooling of 3 x 3 with stride 2 after the first,
second and fifth convolution, no padding in the first, dropout and momentum of AlexNet, no local
response normalisation (later work found no use in it); ``embedding`` is the last fully connected
layer before the classifier; pictures are stretched to the square, and not changed at random. The
70/30 split is replaced by the manifest's, which keeps a patient's pictures together.
"""

from __future__ import annotations

from torch import Tensor

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import shuffled_batches
from cbmir_node.training.recipe import Recipe
from cbmir_node.training.recipes.classifier import (
    Classifier,
    cross_entropy,
    five_convolutions,
    flattened_length,
    momentum_sgd,
    scaled,
)
from cbmir_node.training.settings import TrainingSettings


class TagPrefilterNetwork(Classifier):
    """The paper's network; see `Classifier` for the outputs' shapes."""

    output_names = (EMBEDDING, LOGITS, CODE)

    def __init__(self, labels: int, size: int, width: float) -> None:
        channels = tuple(scaled(count, width) for count in (96, 256, 384, 384, 256))
        convolutions = five_convolutions(1, channels, pad=0)
        flattened = flattened_length(convolutions, 1, size)
        super().__init__(convolutions, flattened, scaled(4096, width), labels)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float32 [N, 1, H, W] to what `output_names` lists."""
        _, features, logits = self.layers(image)
        return features, logits, self.hash(features)


def _build(vocabulary: Vocabulary, settings: TrainingSettings) -> TagPrefilterNetwork:
    return TagPrefilterNetwork(len(vocabulary.labels), settings.size, settings.width)


def _preprocessing(size: int) -> Preprocessing:
    return Preprocessing(
        height=size, width=size, channels=1, resize="stretch", mean=(127.5,), std=(64.0,)
    )


RECIPE = Recipe(
    defaults=TrainingSettings(
        recipe="tag-prefilter",
        epochs=30,
        size=160,
        init="random",
        width=0.1875,
        learning_rate=0.01,
    ),
    preprocessing=_preprocessing,
    build=_build,
    optimiser=momentum_sgd,
    loss=cross_entropy,
    batches=shuffled_batches,
)
