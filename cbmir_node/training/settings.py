"""What shapes a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cbmir_node.errors import ConfigurationError
from cbmir_node.imaging.network_input import Preprocessing

SIZE_MULTIPLE = 32
"""The network halves its input five times; ``SAME`` padding stays regular for multiples of this."""

IMAGES_PER_CLASS = 4
"""Pictures of one class in a batch: partners for the contrastive loss."""


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that shapes a run; a checkpoint is resumed only with the same.

    Attributes
    ----------
    epochs, batch_size : int
    size : int
        Height and width of the input in pixels, a multiple of 32.
    seed : int
    init : {"imagenet", "random"}
    width : float
        Channels against Lite0's; only 1 fits the ImageNet weights.
    learning_rate : float
        Peak, reached after the first epoch; falls to 0 along a cosine.
    ignored_findings : tuple of str
        Labels whose findings are not learned, because they give away the source.
    """

    epochs: int = 13
    size: int = 128
    batch_size: int = 64
    seed: int = 0
    init: Literal["imagenet", "random"] = "imagenet"
    width: float = 1.0
    learning_rate: float = 2e-3
    ignored_findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size % SIZE_MULTIPLE or self.size <= 0:
            raise ConfigurationError(
                f"size must be a positive multiple of {SIZE_MULTIPLE}, not {self.size}"
            )
        if self.batch_size < 2 * IMAGES_PER_CLASS:
            raise ConfigurationError(f"batch_size must be at least {2 * IMAGES_PER_CLASS}")
        if self.init == "imagenet" and self.width != 1:
            raise ConfigurationError("the ImageNet weights fit width 1 only; use init random")


def preprocessing_for(size: int) -> Preprocessing:
    """How pictures reach a network of this input size.

    Padding instead of stretching keeps the anatomy's proportions, which differ between a 512 x 512
    and a 512 x 400 matrix of the same organ, and black borders are what collimation and
    reconstruction circles look like anyway. Mean and deviation are those of the start weights.
    """
    return Preprocessing(
        height=size, width=size, channels=3, resize="pad", mean=(127.0,) * 3, std=(128.0,) * 3
    )
