"""Changes of a query's picture: what a model should not mind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]
Change = Callable[[Picture], Picture]

UNCHANGED = ""
LOW_RESOLUTION = "at 64 px"


def low_resolution(picture: Picture) -> Picture:
    """Bring the longest side down to 64 pixels; the network's own resize brings it up again."""
    image = Image.fromarray(picture)
    scale = 64 / max(image.size)
    if scale >= 1:
        return picture
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def rewindow(picture: Picture, centre: float, width: float) -> Picture:
    """Show a picture through another window (PS3.3 C.11.2.1.2, over the picture's own levels).

    Parameters
    ----------
    picture : uint8
    centre : float
        Shift of the centre as a share of the grey range.
    width : float
        Factor on the width.
    """
    values = (picture / 255.0 - 0.5 - centre) / width + 0.5
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def windows() -> dict[str, Change]:
    """Return the display windows that are tried, by name."""
    return {
        f"window centre {centre:+.0%}, width × {width:g}": partial(
            rewindow, centre=centre, width=width
        )
        for centre, width in product((-0.1, 0.0, 0.1), (0.8, 1.0, 1.25))
        if (centre, width) != (0.0, 1.0)
    }
