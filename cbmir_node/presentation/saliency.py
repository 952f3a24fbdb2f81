"""Saliency maps as overlays to lay over a picture."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.imaging.network_input import Preprocessing, placement

_LONGEST_SIDE: Final = 320
"""Of an overlay, pixels: maps have some 10 x 10 values, and a browser enlarges them further."""

_OPAQUE: Final = 0.8
_COLOURS: Final = np.array(
    [(28, 16, 68), (114, 31, 110), (187, 55, 84), (237, 105, 37), (251, 180, 26), (250, 235, 120)],
    np.float32,
)
"""Dark violet over red to light yellow: lightness only ever grows, so that the order shows
whatever colours an eye can tell apart, and on grey too."""


def saliency_overlay(
    saliency: npt.NDArray[np.float32], size: tuple[int, int], preprocessing: Preprocessing
) -> bytes:
    """Colour a saliency map.

    Parameters
    ----------
    saliency : float32 [h, w]
        Of a network input; larger where the network looked.
    size : tuple of (int, int)
        Rows and columns of the picture: the overlay has their aspect.
    preprocessing : Preprocessing
        The model's: what ``pad`` added is cut off.

    Returns
    -------
    bytes
        A PNG file, RGBA: transparent where the network did not look.
    """
    rows, columns = size
    scale = _LONGEST_SIDE / max(rows, columns)
    target = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    cells, box = _cells_of_picture(np.nan_to_num(saliency), (columns, rows), preprocessing)
    low, high = float(cells.min()), float(cells.max())
    scaled = (cells - low) / (high - low) if high > low else np.zeros_like(cells)
    image = Image.fromarray(scaled.astype(np.float32))
    # what bicubic curves overshoot is no part of the map
    share = np.asarray(image.resize(target, Image.Resampling.BICUBIC, box)).clip(0, 1)
    overlay = np.concatenate([_coloured(share), 255 * _OPAQUE * share[..., None]], axis=-1)
    encoded = BytesIO()
    Image.fromarray(np.rint(overlay).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def _cells_of_picture(
    saliency: npt.NDArray[np.float32], picture_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[npt.NDArray[np.float32], tuple[float, float, float, float]]:
    """Return the cells of a map that the picture covers, with the outermost once more around them.

    Also where the picture lies in them: left, top, right, bottom. Nothing of what the network made
    of padding gets into the smoothed picture, and at its edges the map just goes on.
    """
    left, top, width, height = placement(picture_size, preprocessing)
    down, across = np.divide(saliency.shape, (preprocessing.height, preprocessing.width))
    x, y = (left * across, (left + width) * across), (top * down, (top + height) * down)
    (first_column, columns), (first_row, rows) = _centres(*x), _centres(*y)
    cells = saliency[first_row : first_row + rows, first_column : first_column + columns]
    box = (x[0] - first_column, y[0] - first_row, x[1] - first_column, y[1] - first_row)
    return np.pad(cells, 1, mode="edge"), (box[0] + 1, box[1] + 1, box[2] + 1, box[3] + 1)


def _centres(begin: float, end: float) -> tuple[int, int]:
    """Return the first cell whose centre lies in an interval and how many do, at least one."""
    first = min(math.floor(begin + 0.5), math.ceil(end) - 1)
    return first, max(1, math.floor(end + 0.5) - first)


def _coloured(share: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Map shares in [0, 1] to colours, float [H, W, 3]."""
    positions = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(share, positions, channel) for channel in _COLOURS.T], axis=-1)
