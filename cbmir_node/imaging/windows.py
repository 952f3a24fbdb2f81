"""Which grey values become black and white: the VOI window (PS3.3 C.11.2.1.2) and its default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from cbmir_node.imaging.elements import numbers, text
from cbmir_node.imaging.image_pixel import ImagePixel

Floats = npt.NDArray[np.floating[Any]]
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

_FUNCTIONS: Final[dict[str, Function]] = {"LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}

DEFAULT_PERCENTILES: Final = (0.5, 99.5)
"""Darkest and brightest share of the pixels that may saturate, percent: enough for hot pixels and
markers, too little to lose anatomy."""


@dataclass(frozen=True)
class Window:
    """A window over modality values.

    Attributes
    ----------
    center, width : float
        In the units of the modality transform's output (Hounsfield units for CT).
    function : {"LINEAR", "LINEAR_EXACT", "SIGMOID"}
        VOI LUT Function.
    """

    center: float
    width: float
    function: Function = "LINEAR"

    def brightness(self, inputs: Floats) -> Floats:
        """Map modality values to 0 (black) … 1 (white), by the formulas of C.11.2.1.2 and .3."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (inputs - self.center) / self.width, -80, 80)
            return np.asarray(1 / (1 + np.exp(exponent)))
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        scaled: Floats = inputs - center
        if width <= 0:  # LINEAR of width 1 is a threshold
            return (scaled > 0).astype(inputs.dtype)
        scaled /= width
        scaled += 0.5
        return np.asarray(np.clip(scaled, 0, 1, out=scaled))


CT_DEFAULT: Final = Window(40, 400)
"""Soft tissue. CT is calibrated in Hounsfield units, so a fixed window makes the same tissue the
same grey in every slice and study, which percentiles of a slice cannot."""


def stated_window(source: Dataset, *, is_float: bool) -> Window | None:
    """Return the first usable window of a data set or Frame VOI LUT item, or None.

    Alternatives after the first pair are views for a reader to choose from. A width that is not
    positive is skipped. LINEAR is made for integers: over float pixels, and with a width below 1,
    which the standard forbids but writers of scaled values use, it is taken as LINEAR_EXACT.
    """
    function = _FUNCTIONS.get(text(source, "VOILUTFunction"), "LINEAR")
    centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        if width > 0:
            exact = function == "LINEAR" and (is_float or width < 1)
            return Window(center, width, "LINEAR_EXACT" if exact else function)
    return None


def default_windows(
    inputs: Floats, dataset: Dataset, rescale: Dataset | None, image: ImagePixel
) -> Iterator[Window]:
    """Yield the windows to try where the object states none, best first.

    Soft tissue for CT in Hounsfield units; the full range for unscaled, unsigned pixels of up to 8
    bits, which are display values already; the `DEFAULT_PERCENTILES` of the pixels; and their
    whole range, for frames that are nearly all background.

    Parameters
    ----------
    inputs : float [N]
        Modality values of the pixels that count: finite, without padding; at least one.
    dataset : Dataset
    rescale : Dataset or None
        What holds the frame's Rescale Slope and Intercept, if any.
    image : ImagePixel
    """
    if rescale is not None and _hounsfield(dataset, rescale):
        yield CT_DEFAULT
    if rescale is None and image.bits_stored <= 8 and image.pixel_representation == 0:
        yield _between(0, 2**image.bits_stored - 1)
    low, high = (float(value) for value in np.percentile(inputs, DEFAULT_PERCENTILES))
    if low < high:
        yield _between(low, high)
    low, high = float(inputs.min()), float(inputs.max())
    if low < high:
        yield _between(low, high)


def _hounsfield(dataset: Dataset, rescale: Dataset) -> bool:
    return text(dataset, "Modality") == "CT" and text(rescale, "RescaleType") in ("", "HU")


def _between(low: float, high: float) -> Window:
    return Window((low + high) / 2, high - low, "LINEAR_EXACT")
