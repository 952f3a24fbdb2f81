"""The training run: resumable, deterministic on one machine, one checkpoint per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.metrics import LabelledVectors, retrieval_scores
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.augmentation import augment
from cbmir_node.training.checkpoint import Checkpoint, Vocabulary, load_checkpoint, save_checkpoint
from cbmir_node.training.examples import Examples, balanced_batches, load_examples, to_input
from cbmir_node.training.imagenet import load_imagenet_weights
from cbmir_node.training.losses import (
    cosine_margin,
    finding_within_class,
    supervised_contrastive,
)
from cbmir_node.training.manifest import LabelledImage, load_pictures, read_manifest
from cbmir_node.training.network import RetrievalNetwork
from cbmir_node.training.settings import TrainingSettings, preprocessing_for

CHECKPOINT = "checkpoint.pt"

MARGIN = 0.2
TEMPERATURE = 0.1
FINDING_SCALE = 16.0
CONTRASTIVE_WEIGHT = 0.5
FINDING_WEIGHT = 0.5
WEIGHT_DECAY = 0.02
BACKBONE_SHARE = 0.3
"""Learning rate of the backbone against that of the new heads."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch brought.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss : float
        Mean over the epoch's batches.
    validation : float
        Mean average precision, macro over classes, of the val images asking each other.
    seconds : float
    """

    epoch: int
    epochs: int
    loss: float
    validation: float
    seconds: float


def train(
    manifest: Path,
    output: Path,
    settings: TrainingSettings,
    *,
    resume: bool = True,
    report: Callable[[EpochReport], None] = lambda _: None,
) -> Path:
    """Train on the ``train`` rows of a manifest, validating on its ``val`` rows.

    Parameters
    ----------
    manifest : Path
        See `read_manifest`.
    output : Path
        Folder of the checkpoint; made if absent.
    resume : bool
        Go on from the folder's checkpoint, if there is one; otherwise begin anew.
    report : callable
        Called after each epoch's checkpoint is on disk.

    Returns
    -------
    Path
        The checkpoint, for `export_onnx`.

    Raises
    ------
    ConfigurationError
        If the manifest is unusable, or the checkpoint comes from other settings or labels.
    """
    images = _training_images(manifest, settings.ignored_findings)
    held_out = read_manifest(manifest, "val")
    vocabulary = Vocabulary.of(images)
    network, optimiser = _start(vocabulary, settings)
    output.mkdir(parents=True, exist_ok=True)
    path = output / CHECKPOINT
    done = 0
    if resume and path.exists():
        done = _restore(path, settings, vocabulary, network, optimiser)

    preprocessing = preprocessing_for(settings.size)
    examples = load_examples(images, vocabulary, preprocessing)
    validation_pictures = load_pictures(held_out, preprocessing)
    for epoch in range(done, settings.epochs):
        started = time.monotonic()
        loss = _train_epoch(network, optimiser, examples, settings, epoch)
        save_checkpoint(
            path,
            Checkpoint(
                settings=asdict(settings),
                epochs_done=epoch + 1,
                vocabulary=vocabulary,
                network=network.state_dict(),
                optimiser=optimiser.state_dict(),
            ),
        )
        embeddings = embed(network, validation_pictures, preprocessing)
        validation = _validation_score(embeddings, held_out)
        seconds = time.monotonic() - started
        report(EpochReport(epoch + 1, settings.epochs, loss, validation, seconds))
    return path


def build_network(vocabulary: Vocabulary, width: float) -> RetrievalNetwork:
    """Return an untrained network in the memory layout that is fastest on a CPU."""
    network = RetrievalNetwork(len(vocabulary.labels), len(vocabulary.findings), width)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def embed(
    network: RetrievalNetwork, pictures: npt.NDArray[np.uint8], preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    """Return the unit vectors [N, 256] of pictures prepared by `load_pictures`."""
    network.eval()
    batches = torch.from_numpy(pictures).split(64)
    with torch.no_grad():
        vectors = [network.embed(to_input(batch, preprocessing)) for batch in batches]
    return torch.cat(vectors).numpy()  # type: ignore[no-any-return]


def _training_images(manifest: Path, ignored_findings: tuple[str, ...]) -> list[LabelledImage]:
    images = read_manifest(manifest, "train")
    absent = sorted(set(ignored_findings) - {image.label for image in images})
    if absent:
        raise ConfigurationError(f"no training image has the label(s) {', '.join(absent)}")
    return [replace(i, finding="") if i.label in ignored_findings else i for i in images]


def _start(
    vocabulary: Vocabulary, settings: TrainingSettings
) -> tuple[RetrievalNetwork, torch.optim.Optimizer]:
    torch.manual_seed(settings.seed)
    network = build_network(vocabulary, settings.width)
    if settings.init == "imagenet":
        load_imagenet_weights(network.backbone)
    backbone = list(network.backbone.parameters())
    heads = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    optimiser = torch.optim.AdamW(
        [{"params": backbone, "share": BACKBONE_SHARE}, {"params": heads, "share": 1.0}],
        lr=settings.learning_rate,
        weight_decay=WEIGHT_DECAY,
    )
    return network, optimiser


def _restore(
    path: Path,
    settings: TrainingSettings,
    vocabulary: Vocabulary,
    network: RetrievalNetwork,
    optimiser: torch.optim.Optimizer,
) -> int:
    checkpoint = load_checkpoint(path)
    wanted = asdict(settings)
    different = [name for name in wanted if checkpoint.settings.get(name) != wanted[name]]
    if checkpoint.vocabulary != vocabulary:
        different.append("labels or findings of the manifest")
    if different:
        raise ConfigurationError(
            f"{path} was trained with other {', '.join(different)}; use the same, another output "
            "folder, or --restart"
        )
    network.load_state_dict(checkpoint.network)
    optimiser.load_state_dict(checkpoint.optimiser)
    return checkpoint.epochs_done


def _train_epoch(
    network: RetrievalNetwork,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    settings: TrainingSettings,
    epoch: int,
) -> float:
    # All randomness of an epoch follows from seed and epoch, so that a resumed run repeats it.
    torch.manual_seed(settings.seed * 1_000_003 + epoch)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = np.random.default_rng([settings.seed, epoch])
    batches = list(balanced_batches(examples.labels.numpy(), settings.batch_size, order))
    preprocessing = preprocessing_for(settings.size)
    network.train()
    total = 0.0
    for step, rows in enumerate(batches):
        rate = _learning_rate(settings, epoch * len(batches) + step, len(batches))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        batch = torch.from_numpy(rows)
        pictures = augment(examples.pictures[batch], generator)
        loss = _loss(network, to_input(pictures, preprocessing), examples, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    return total / len(batches)


def _loss(network: RetrievalNetwork, image: Tensor, examples: Examples, rows: Tensor) -> Tensor:
    labels = examples.labels[rows]
    embedding = network.embed(image)
    loss = cosine_margin(network.label_cosines(embedding), labels, network.scale, MARGIN)
    loss = loss + CONTRASTIVE_WEIGHT * supervised_contrastive(embedding, labels, TEMPERATURE)
    return loss + FINDING_WEIGHT * finding_within_class(
        network.finding_cosines(embedding),
        examples.findings[rows],
        examples.candidates[labels],
        FINDING_SCALE,
    )


def _learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    warm_up = steps_per_epoch
    if settings.epochs == 1 or step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / (steps_per_epoch * (settings.epochs - 1))
    return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))


def _validation_score(embeddings: npt.NDArray[np.float32], images: list[LabelledImage]) -> float:
    items = LabelledVectors(
        embeddings,
        np.array([image.label for image in images]),
        np.array([image.patient_id for image in images]),
    )
    return retrieval_scores(items, items).mean_average_precision
