"""The last step before the network: a display picture becomes an input tensor.

Training and the node share this function, so that a model sees in production exactly what it saw
when it was trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.errors import ModelError

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture is brought to a network's input; travels in the ONNX file's metadata.

    Attributes
    ----------
    height, width : int
        Input size in pixels.
    channels : {1, 3}
        1: luminance. 3: RGB, grey pictures repeated.
    resize : {"stretch", "pad"}
        ``stretch`` ignores the aspect ratio; ``pad`` keeps it and fills with black, centred.
    mean, std : tuple of float
        Per channel, in grey levels of 0–255; the input is ``(picture - mean) / std``.
    """

    height: int
    width: int
    channels: Literal[1, 3]
    resize: Literal["stretch", "pad"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ModelError(f"preprocessing.channels must be 1 or 3, not {self.channels!r}")
        if self.resize not in ("stretch", "pad"):
            raise ModelError(
                f"preprocessing.resize must be 'stretch' or 'pad', not {self.resize!r}"
            )
        if not (0 < self.height <= 4096 and 0 < self.width <= 4096):
            raise ModelError(f"preprocessing size {self.height}x{self.width} is out of range")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ModelError("preprocessing.mean and .std need one value per channel")
        if min(self.std) <= 0:
            raise ModelError("preprocessing.std must be positive")

    def to_json(self) -> str:
        """Return the JSON text stored in the model's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read the JSON text of a model's metadata; `ModelError` says what is wrong with it."""
        try:
            values = json.loads(text)
            values["mean"] = tuple(float(v) for v in values["mean"])
            values["std"] = tuple(float(v) for v in values["std"])
            return cls(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f"the model's preprocessing metadata is invalid: {error}") from error


def network_input(picture: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> Float32Array:
    """Turn one display picture into one network input.

    Parameters
    ----------
    picture : uint8 [H, W] or [H, W, 3]
        Grey or RGB, 0 black.
    preprocessing : Preprocessing
        The model's own.

    Returns
    -------
    float32 [C, height, width]
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    image = image.convert("L" if preprocessing.channels == 1 else "RGB")
    resized = _resize(image, preprocessing)
    values = np.asarray(resized, dtype=np.float32).reshape(
        preprocessing.height, preprocessing.width, preprocessing.channels
    )
    mean = np.asarray(preprocessing.mean, dtype=np.float32)
    std = np.asarray(preprocessing.std, dtype=np.float32)
    return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


def placement(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a picture within its network input.

    Parameters
    ----------
    size : tuple of (int, int)
        Width and height of the picture.
    preprocessing : Preprocessing
    """
    target = (preprocessing.width, preprocessing.height)
    if preprocessing.resize == "stretch":
        return (0, 0, *target)
    scale = min(target[0] / size[0], target[1] / size[1])
    width, height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (target[0] - width) // 2, (target[1] - height) // 2, width, height


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize with an area-aware filter: Pillow widens the kernel when it shrinks a picture."""
    left, top, *inner = placement(image.size, preprocessing)
    resized = image.resize((inner[0], inner[1]), Image.Resampling.BILINEAR)
    if preprocessing.resize == "stretch":
        return resized
    canvas = Image.new(image.mode, (preprocessing.width, preprocessing.height))
    canvas.paste(resized, (left, top))
    return canvas
