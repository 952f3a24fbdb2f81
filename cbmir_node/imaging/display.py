"""From stored values to the picture a viewer would show first.

The order is that of the standard's grayscale pipeline (PS3.4 N.2): stored values, modality
transform, values of interest, presentation. See ``docs/pixels.md`` for the rules on one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from cbmir_node.imaging.decoders import StoredFrame
from cbmir_node.imaging.elements import frame_macro, item, number
from cbmir_node.imaging.image_pixel import GREY, PALETTE, ImagePixel
from cbmir_node.imaging.lookup_tables import LookupTable, palette_picture, read_lookup_table
from cbmir_node.imaging.windows import Floats, Window, default_windows, stated_window

Picture8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Transform = Window | LookupTable
"""From modality values to brightness, 0 (black) … 1 (white)."""


def display_picture(
    frame: StoredFrame, dataset: Dataset, image: ImagePixel, index: int
) -> Picture8:
    """Turn one decoded frame into a display picture.

    Parameters
    ----------
    frame : StoredFrame
    dataset : Dataset
        The object's header.
    image : ImagePixel
        Its Image Pixel Module.
    index : int
        The frame's index from 0, for per-frame functional groups.

    Returns
    -------
    uint8 [H, W] or [H, W, 3]
        Grey or RGB, 0 black.
    """
    if frame.photometric_interpretation in GREY:
        return _grey_picture(frame, dataset, image, index)
    if frame.photometric_interpretation == PALETTE:
        signed = image.pixel_representation == 1
        return palette_picture(frame.values, dataset, signed=signed)
    return _colour_picture(frame, image)


def _colour_picture(frame: StoredFrame, image: ImagePixel) -> Picture8:
    """Bring colour to 8 bits and to RGB; windows do not apply to it (C.11.2.1.2)."""
    values = frame.values
    bits = min(image.bits_stored, values.dtype.itemsize * 8)
    if bits != 8 or values.dtype != np.uint8:
        scaled = values.astype(np.float64) * (255 / (2**bits - 1))
        values = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if frame.photometric_interpretation in ("YBR_FULL", "YBR_FULL_422"):
        return rgb_of_ybr(values)
    return np.ascontiguousarray(values)


def rgb_of_ybr(values: Picture8) -> Picture8:
    """Convert YBR_FULL to RGB, uint8 [H, W, 3] both."""
    # Pillow's YCbCr is the full-range matrix of C.7.6.3.1.2.
    planes = [Image.fromarray(np.ascontiguousarray(values[..., i])) for i in range(3)]
    return np.asarray(Image.merge("YCbCr", planes).convert("RGB"))


@dataclass(frozen=True)
class GreyValues:
    """A grey frame after the modality transform.

    Attributes
    ----------
    inputs : float [H, W]
        Modality values; where they are not `valid`, one that is there anyway.
    valid : bool [H, W]
        False for padding, NaN and infinities; True somewhere.
    rescale : Dataset or None
        What holds the Rescale Slope and Intercept that were applied.
    """

    inputs: Floats
    valid: Mask
    rescale: Dataset | None

    def picture(self, brightness: Floats, *, inverted: bool) -> Picture8:
        """Return the picture that a transform's output for the `inputs` is, padding black."""
        if inverted:
            brightness = 1 - brightness
        if not self.valid.all():
            brightness[~self.valid] = 0
        return (brightness * 255 + 0.5).astype(np.uint8)


def grey_values(frame: StoredFrame, dataset: Dataset, index: int) -> GreyValues | None:
    """Return a grey frame's modality values, or None where nothing is valid."""
    inputs, rescale = _modality_values(frame.values, dataset, index)
    valid = np.isfinite(inputs)
    padding = padding_mask(frame.values, dataset)
    if padding is not None:
        valid &= ~padding
    if not valid.any():
        return None
    if not valid.all():  # give them a value that is there anyway, so that they stand out in nothing
        inputs[~valid] = inputs.flat[valid.argmax()]
    return GreyValues(inputs, valid, rescale)


def _grey_picture(frame: StoredFrame, dataset: Dataset, image: ImagePixel, index: int) -> Picture8:
    grey = grey_values(frame, dataset, index)
    chosen = None if grey is None else values_of_interest(grey, dataset, image, index)
    if grey is None or chosen is None:
        return np.zeros(frame.values.shape, np.uint8)
    _, brightness = chosen
    return grey.picture(brightness, inverted=image.is_inverted)


def _modality_values(
    stored: npt.NDArray[Any], dataset: Dataset, index: int
) -> tuple[Floats, Dataset | None]:
    """Apply the modality LUT, or rescale (C.11.1); float32 where it is exact enough.

    Returns
    -------
    tuple of (float [H, W], Dataset or None)
        Modality values, and what holds the rescale that made them.
    """
    exact = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    inputs: Floats = stored.astype(np.float32 if exact else np.float64)
    source = frame_macro(dataset, index, "PixelValueTransformationSequence") or dataset
    table = _table(item(dataset, "ModalityLUTSequence"), dataset, stored)
    if table is not None:
        return table.apply(stored).astype(inputs.dtype), None
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if not slope:  # a slope of 0 would erase the image
        return inputs, None
    inputs *= slope
    inputs += intercept or 0
    return inputs, source


def values_of_interest(
    grey: GreyValues, dataset: Dataset, image: ImagePixel, index: int
) -> tuple[Transform, Floats] | None:
    """Choose VOI LUT, stated window or a default window; None where all pixels are equal.

    Its output comes with it: brightness, 0 (black) … 1 (white).

    A LUT or window that leaves the frame without any contrast does not belong to it (it was
    written for other units, say) and gives way to the next.
    """
    for transform in _transforms(grey, dataset, image, index):
        brightness = transform.brightness(grey.inputs)
        if brightness.min() < brightness.max():
            return transform, brightness
    return None


def _transforms(
    grey: GreyValues, dataset: Dataset, image: ImagePixel, index: int
) -> Iterator[Transform]:
    source = frame_macro(dataset, index, "FrameVOILUTSequence") or dataset
    table = _table(item(source, "VOILUTSequence"), dataset, grey.inputs)
    if table is not None:
        yield table
    window = stated_window(source, is_float=image.is_float)
    if window is not None:
        yield window
    yield from default_windows(grey.inputs[grey.valid], dataset, grey.rescale, image)


def _table(
    holder: Dataset | None, dataset: Dataset, inputs: npt.NDArray[Any]
) -> LookupTable | None:
    if holder is None:
        return None
    _, little = dataset.original_encoding
    return read_lookup_table(
        holder,
        "LUTDescriptor",
        "LUTData",
        signed=bool(inputs.min() < 0),
        big_endian=little is False,
    )


def padding_mask(stored: npt.NDArray[Any], dataset: Dataset) -> Mask | None:
    """Return which stored values are padding (PS3.3 C.7.5.1.1.2), or None where none can be.

    The value may be written with the wrong sign; it is read with the sign of the pixels.
    """
    value = number(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind not in "iu":
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    bounds = [_wrapped(bound, stored.dtype) for bound in (value, value if limit is None else limit)]
    return np.asarray((stored >= min(bounds)) & (stored <= max(bounds)))


def _wrapped(value: float, dtype: np.dtype[Any]) -> int:
    """Return `value` as its two's complement reading in `dtype`."""
    span = 1 << (8 * dtype.itemsize)
    return (int(value) - np.iinfo(dtype).min) % span + int(np.iinfo(dtype).min)
