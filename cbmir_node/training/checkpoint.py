"""The file a training run is resumed from and a model is exported from."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cbmir_node.errors import ConfigurationError
from cbmir_node.training.manifest import LabelledImage
from cbmir_node.training.settings import TrainingSettings


@dataclass(frozen=True)
class Vocabulary:
    """What the outputs of the heads mean, in order.

    Attributes
    ----------
    labels : tuple of str
    findings : tuple of (str, str)
        Label and finding; a finding means something within its label only.
    """

    labels: tuple[str, ...]
    findings: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, images: Sequence[LabelledImage]) -> Vocabulary:
        """Collect the sorted labels and findings of the training images."""
        labels = sorted({image.label for image in images})
        findings = sorted({(image.label, image.finding) for image in images if image.finding})
        return cls(tuple(labels), tuple(findings))


@dataclass(frozen=True)
class Checkpoint:
    """A run's whole state after an epoch.

    Attributes
    ----------
    settings : TrainingSettings
    validation : tuple of float
        The validation score after each epoch.
    epochs_done : int
    vocabulary : Vocabulary
    network, optimiser : dict
        PyTorch state.
    finished : bool
        Whether `network` is the finished one of `Recipe.finishing`.
    """

    settings: TrainingSettings
    validation: tuple[float, ...]
    epochs_done: int
    vocabulary: Vocabulary
    network: dict[str, Any]
    optimiser: dict[str, Any]
    finished: bool = False


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "settings": asdict(checkpoint.settings),
            "validation": checkpoint.validation,
            "epochs_done": checkpoint.epochs_done,
            "labels": checkpoint.vocabulary.labels,
            "findings": checkpoint.vocabulary.findings,
            "network": checkpoint.network,
            "optimiser": checkpoint.optimiser,
            "finished": checkpoint.finished,
        },
        temporary,
    )
    temporary.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; only plain values and tensors are unpickled.

    Raises
    ------
    ConfigurationError
        If the file is missing or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            settings=TrainingSettings(**state["settings"]),
            validation=tuple(state.get("validation", ())),
            epochs_done=state["epochs_done"],
            vocabulary=Vocabulary(tuple(state["labels"]), tuple(state["findings"])),
            network=state["network"],
            optimiser=state["optimiser"],
            finished=state.get("finished", False),
        )
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise ConfigurationError(f"{path} is not a checkpoint of this program: {error}") from error
