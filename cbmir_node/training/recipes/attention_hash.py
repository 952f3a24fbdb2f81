"""Attention, ResNet-18 and a learned hash, after Öztürk et al.

Öztürk, Alhudhaif and Polat, "Attention-based end-to-end CNN framework for content-based X-ray image
retrieval", Turkish Journal of Electrical Engineering and Computer Sciences 29 (2021): a fully
convolutional network with attention finds a saliency map, the picture multiplied by it goes through
ResNet-18, and a hash layer turns its features into a binary code, ranked by Hamming distance. An
exact re-rank by ``embedding`` is an option of a query.

Choices where the description leaves them open: three convolutions with stride 4 in all and 32 and
64 channels give the map, through a sigmoid; it is enlarged to the picture, whose black is 0, so
that what is not salient turns black. Nothing but the task shapes the map. 64 bits. The loss adds up

- softmax cross-entropy of the labels, from the features;
- a pairwise hinge on the codes (`pairwise_hinge`): a target of "all bits alike" within a class
  would put every class on one code and leave nothing to rank by within it;
- quantisation, which draws each tanh to -1 or +1, and bit balance, which keeps the mean of every
  bit over a batch near 0.

Adam with decoupled weight decay; batches of four pictures per class; 224 x 224 pixels in colour,
stretched, not changed at random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS, SALIENCY
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import Targets, balanced_batches
from cbmir_node.training.recipe import ContractNetwork, Recipe
from cbmir_node.training.recipes.classifier import scaled
from cbmir_node.training.recipes.resnet import ResNet18
from cbmir_node.training.settings import TrainingSettings

CODE_BITS = 64
ALIKE = 0.7
"""Pictures of one class need no more alike codes than this cosine: 15 % of the bits may differ."""
DIFFERENT = 0.1
PAIRWISE_WEIGHT = 2.0
QUANTISATION_WEIGHT = 0.1
BALANCE_WEIGHT = 0.5
WEIGHT_DECAY = 0.02


class SaliencyMap(nn.Sequential):
    """Fully convolutional network: pictures [N, 3, H, W] to [N, 1, H / 4, W / 4] in 0 to 1."""

    def __init__(self, width: float) -> None:
        first, second = scaled(32, width), scaled(64, width)
        super().__init__(
            nn.Conv2d(3, first, 5, 2, 2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 5, 2, 2, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, 1, 5, 1, 2),
            nn.Sigmoid(),
        )


class AttentionHashNetwork(ContractNetwork):
    """The paper's network.

    Parameters
    ----------
    labels : int
    width : float
    attention : bool
        False: ResNet-18 sees the picture as it is, and there is no output ``saliency``.
    """

    def __init__(self, labels: int, width: float, attention: bool) -> None:
        super().__init__()
        self.saliency = SaliencyMap(width) if attention else None
        self.output_names = (EMBEDDING, LOGITS, CODE, *([SALIENCY] if attention else []))
        self.backbone = ResNet18(width)
        self.scores = nn.Linear(self.backbone.features, labels)
        self.hash = nn.Linear(self.backbone.features, CODE_BITS)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map float32 [N, 3, H, W] to what `output_names` lists; ``code`` is in -1 to 1."""
        maps: tuple[Tensor, ...] = ()
        if self.saliency is not None:
            saliency = self.saliency(image)
            image = image * functional.interpolate(
                saliency, image.shape[2:], mode="bilinear", align_corners=False
            )
            maps = (saliency,)
        features = self.backbone(image)
        return features, self.scores(features), self.hash(features).tanh(), *maps


def pairwise_hinge(codes: Tensor, labels: Tensor) -> Tensor:
    """Ask for alike codes within a class and different ones between classes, up to a point.

    Parameters
    ----------
    codes : float [N, B]
        In -1 to 1.
    labels : int64 [N]

    Returns
    -------
    scalar
        Mean square of what pairs of one class lack to `ALIKE`, plus that of what pairs of two
        classes have beyond `DIFFERENT`, as cosines of the codes.
    """
    unit = functional.normalize(codes, dim=1)
    cosines = unit @ unit.T
    itself = torch.eye(len(labels), dtype=torch.bool)
    same = (labels[:, None] == labels[None, :]) & ~itself
    other = labels[:, None] != labels[None, :]
    lacking = ((ALIKE - cosines).relu() ** 2 * same).sum() / same.sum().clamp(min=1)
    beyond = ((cosines - DIFFERENT).relu() ** 2 * other).sum() / other.sum().clamp(min=1)
    return lacking + beyond


def _loss(network: ContractNetwork, image: Tensor, targets: Targets) -> Tensor:
    outputs = network.outputs(image)
    codes = outputs[CODE]
    quantisation = ((codes.abs() - 1) ** 2).mean()
    balance = (codes.mean(dim=0) ** 2).mean()
    return (
        functional.cross_entropy(outputs[LOGITS], targets.labels)
        + PAIRWISE_WEIGHT * pairwise_hinge(codes, targets.labels)
        + QUANTISATION_WEIGHT * quantisation
        + BALANCE_WEIGHT * balance
    )


def _build(vocabulary: Vocabulary, settings: TrainingSettings) -> AttentionHashNetwork:
    return AttentionHashNetwork(len(vocabulary.labels), settings.width, settings.attention)


def _optimiser(network: ContractNetwork, settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=WEIGHT_DECAY
    )


def _preprocessing(size: int) -> Preprocessing:
    return Preprocessing(
        height=size, width=size, channels=3, resize="stretch", mean=(0.0,) * 3, std=(255.0,) * 3
    )


RECIPE = Recipe(
    defaults=TrainingSettings(
        recipe="attention-hash", epochs=15, size=128, init="random", width=0.25, learning_rate=2e-3
    ),
    preprocessing=_preprocessing,
    build=_build,
    optimiser=_optimiser,
    loss=_loss,
    batches=balanced_batches,
)
