"""The default model: class and finding, see `cbmir_node.training.two_grains`.

What is trained here epoch by epoch is its class eye. The findings take part, so that it keeps
apart within a class what looks different.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cbmir_node.training.augmentation import augment
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import Targets, balanced_batches
from cbmir_node.training.finishing import build_two_grains, finish, two_grain_preprocessing
from cbmir_node.training.imagenet import imagenet_preprocessing, load_imagenet_weights
from cbmir_node.training.losses import (
    cosine_margin,
    finding_within_class,
    supervised_contrastive,
)
from cbmir_node.training.network import RetrievalNetwork
from cbmir_node.training.recipe import Finishing, Recipe
from cbmir_node.training.settings import TrainingSettings

MARGIN = 0.2
TEMPERATURE = 0.1
FINDING_SCALE = 16.0
CONTRASTIVE_WEIGHT = 0.5
FINDING_WEIGHT = 0.5
WEIGHT_DECAY = 0.02
BACKBONE_SHARE = 0.3
"""Learning rate of the backbone against that of the new heads."""


def _build(vocabulary: Vocabulary, settings: TrainingSettings) -> RetrievalNetwork:
    return RetrievalNetwork(len(vocabulary.labels), len(vocabulary.findings), settings.width)


def _initialise(network: RetrievalNetwork, settings: TrainingSettings) -> None:
    if settings.init == "imagenet":
        load_imagenet_weights(network.backbone)


def _optimiser(network: RetrievalNetwork, settings: TrainingSettings) -> torch.optim.Optimizer:
    backbone = list(network.backbone.parameters())
    heads = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    return torch.optim.AdamW(
        [{"params": backbone, "share": BACKBONE_SHARE}, {"params": heads, "share": 1.0}],
        lr=settings.learning_rate,
        weight_decay=WEIGHT_DECAY,
    )


def _loss(network: RetrievalNetwork, image: Tensor, targets: Targets) -> Tensor:
    embedding = network.embed(image)
    cosines = network.label_cosines(embedding)
    loss = cosine_margin(cosines, targets.labels, network.scale, MARGIN)
    contrast = supervised_contrastive(embedding, targets.labels, TEMPERATURE)
    finding = finding_within_class(
        network.finding_cosines(embedding), targets.findings, targets.candidates, FINDING_SCALE
    )
    return loss + CONTRASTIVE_WEIGHT * contrast + FINDING_WEIGHT * finding


RECIPE = Recipe(
    defaults=TrainingSettings(),
    preprocessing=imagenet_preprocessing,
    build=_build,
    optimiser=_optimiser,
    loss=_loss,
    batches=balanced_batches,
    augment=augment,
    initialise=_initialise,
    finishing=Finishing(two_grain_preprocessing, build_two_grains, finish),
)
