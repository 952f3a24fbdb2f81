"""What shapes a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cbmir_node.errors import ConfigurationError

RECIPES = ("default", "qayyum", "nikitha", "attention-hash", "tag-prefilter")
"""Names of the recipes in `cbmir_node.training.recipes`; here, so that naming needs no PyTorch."""

SIZE_MULTIPLE = 32
"""The networks halve their input five times; padding stays regular for multiples of this."""

IMAGES_PER_CLASS = 4
"""Pictures of one class in a balanced batch: partners for the losses that compare pictures."""


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that shapes a run; a checkpoint is resumed only with the same.

    The defaults are those of the recipe ``default``; the others bring their own, see
    `cbmir_node.training.recipe.Recipe`.

    Attributes
    ----------
    recipe : str
        One of `RECIPES`.
    epochs, batch_size : int
    size : int
        Height and width of the input in pixels, a multiple of 32.
    seed : int
    init : {"imagenet", "random"}
        Only ``default`` has start weights, and they fit width 1 only.
    width : float
        Factor on channels and fully connected units; 1 is the published network.
    learning_rate : float
        Peak, reached after the first epoch; falls to 0 along a cosine.
    ignored_findings : tuple of str
        Labels whose findings are not learned, because they give away the source.
    left_out : tuple of str
        Labels whose images are not used at all, to see how the network does on unknown classes.
    final : bool
        Train on the val images too; nothing is left to validate on or to stop early by.
    attention : bool
        False trains ``attention-hash`` without its attention, for comparison.
    """

    recipe: str = "default"
    epochs: int = 13
    size: int = 128
    batch_size: int = 64
    seed: int = 0
    init: Literal["imagenet", "random"] = "imagenet"
    width: float = 1.0
    learning_rate: float = 2e-3
    ignored_findings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    final: bool = False
    attention: bool = True

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigurationError(
                f"recipe must be one of {', '.join(RECIPES)}, not {self.recipe!r}"
            )
        if self.size % SIZE_MULTIPLE or self.size <= 0:
            raise ConfigurationError(
                f"size must be a positive multiple of {SIZE_MULTIPLE}, not {self.size}"
            )
        if self.batch_size < 2 * IMAGES_PER_CLASS:
            raise ConfigurationError(f"batch_size must be at least {2 * IMAGES_PER_CLASS}")
        if not 0 < self.width <= 4:
            raise ConfigurationError(f"width must be above 0 and at most 4, not {self.width}")
        if self.init == "imagenet" and (self.recipe != "default" or self.width != 1):
            raise ConfigurationError(
                "the ImageNet weights fit the default recipe at width 1 only; use init random"
            )
        if not self.attention and self.recipe != "attention-hash":
            raise ConfigurationError(f"the recipe {self.recipe} has no attention to do without")
