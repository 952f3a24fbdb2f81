"""The training run: resumable, deterministic on one machine, one checkpoint per epoch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cbmir_node.errors import ConfigurationError
from cbmir_node.training.allocation import keep_freed_memory
from cbmir_node.training.checkpoint import Checkpoint, Vocabulary, load_checkpoint, save_checkpoint
from cbmir_node.training.examples import Examples, load_examples, to_input
from cbmir_node.training.manifest import load_pictures, used_images
from cbmir_node.training.recipe import ContractNetwork, Recipe
from cbmir_node.training.recipes import recipe_named
from cbmir_node.training.settings import TrainingSettings
from cbmir_node.training.validation import Validation, validate

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
FINISHED = "finished.pt"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch brought.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss : float
        Mean over the epoch's batches.
    validation : Validation or None
        None in a final run, which has no validation images.
    seconds : float
    """

    epoch: int
    epochs: int
    loss: float
    validation: Validation | None
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
        The checkpoint, for `export_onnx`: the last epoch's, the best one's if the recipe stops
        early, or the finished one if the recipe adds to what was trained.

    Raises
    ------
    ConfigurationError
        If the manifest is unusable, or the checkpoint comes from other settings or labels.
    """
    keep_freed_memory()
    recipe = recipe_named(settings.recipe)
    images, held_out = used_images(manifest, settings)
    vocabulary = Vocabulary.of(images)
    network, optimiser = _start(recipe, vocabulary, settings)
    output.mkdir(parents=True, exist_ok=True)
    path, best = output / CHECKPOINT, output / BEST
    done = 0
    scores: list[float] = []
    if resume and path.exists():
        done, scores = _restore(path, settings, vocabulary, network, optimiser)
    patience = recipe.patience if held_out else None

    preprocessing = recipe.preprocessing(settings.size)
    examples = load_examples(images, vocabulary, preprocessing)
    validation_pictures = load_pictures(held_out, preprocessing) if held_out else None
    for epoch in range(done, settings.epochs):
        if patience and _epochs_since_best(scores) >= patience:
            break
        started = time.monotonic()
        loss = _train_epoch(recipe, network, optimiser, examples, settings, epoch)
        validation = None
        if validation_pictures is not None:
            validation = validate(network, validation_pictures, held_out, vocabulary, preprocessing)
            scores.append(validation.mean_average_precision)
        save_checkpoint(
            path,
            Checkpoint(
                settings=settings,
                validation=tuple(scores),
                epochs_done=epoch + 1,
                vocabulary=vocabulary,
                network=network.state_dict(),
                optimiser=optimiser.state_dict(),
            ),
        )
        if patience and _epochs_since_best(scores) == 0:
            shutil.copyfile(path, best)
        seconds = time.monotonic() - started
        report(EpochReport(epoch + 1, settings.epochs, loss, validation, seconds))
    if recipe.finishing:
        path = output / FINISHED
        finished = recipe.finishing.finish(network, images, vocabulary, settings)
        save_checkpoint(
            path,
            Checkpoint(
                settings=settings,
                validation=tuple(scores),
                epochs_done=settings.epochs,
                vocabulary=vocabulary,
                network=finished.state_dict(),
                optimiser={},
                finished=True,
            ),
        )
    return best if patience else path


def build_network(vocabulary: Vocabulary, settings: TrainingSettings) -> ContractNetwork:
    """Return an untrained network in the memory layout that is fastest on a CPU."""
    network = recipe_named(settings.recipe).build(vocabulary, settings)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def _epochs_since_best(scores: list[float]) -> int:
    return len(scores) - 1 - int(np.argmax(scores)) if scores else 0


def _start(
    recipe: Recipe, vocabulary: Vocabulary, settings: TrainingSettings
) -> tuple[ContractNetwork, torch.optim.Optimizer]:
    torch.manual_seed(settings.seed)
    network = build_network(vocabulary, settings)
    if recipe.initialise:
        recipe.initialise(network, settings)
    return network, recipe.optimiser(network, settings)


def _restore(
    path: Path,
    settings: TrainingSettings,
    vocabulary: Vocabulary,
    network: ContractNetwork,
    optimiser: torch.optim.Optimizer,
) -> tuple[int, list[float]]:
    checkpoint = load_checkpoint(path)
    found, wanted = asdict(checkpoint.settings), asdict(settings)
    different = [name for name in wanted if found[name] != wanted[name]]
    if checkpoint.vocabulary != vocabulary:
        different.append("labels or findings of the manifest")
    if different:
        raise ConfigurationError(
            f"{path} was trained with other {', '.join(different)}; use the same, another output "
            "folder, or --restart"
        )
    network.load_state_dict(checkpoint.network)
    optimiser.load_state_dict(checkpoint.optimiser)
    return checkpoint.epochs_done, list(checkpoint.validation)


def _train_epoch(
    recipe: Recipe,
    network: ContractNetwork,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    settings: TrainingSettings,
    epoch: int,
) -> float:
    # All randomness of an epoch follows from seed and epoch, so that a resumed run repeats it.
    torch.manual_seed(settings.seed * 1_000_003 + epoch)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = np.random.default_rng([settings.seed, epoch])
    batches = list(recipe.batches(examples.labels.numpy(), settings.batch_size, order))
    preprocessing = recipe.preprocessing(settings.size)
    network.train()
    total = 0.0
    for step, rows in enumerate(batches):
        rate = _learning_rate(settings, epoch * len(batches) + step, len(batches))
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        batch = torch.from_numpy(rows)
        pictures = examples.pictures[batch]
        if recipe.augment:
            pictures = recipe.augment(pictures, generator)
        loss = recipe.loss(network, to_input(pictures, preprocessing), examples.targets(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    return total / len(batches)


def _learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    warm_up = steps_per_epoch
    if settings.epochs == 1 or step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / (steps_per_epoch * (settings.epochs - 1))
    return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))
