"""Frames as values, for viewers that change the window themselves.

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.imaging.decoders import StoredFrame
from cbmir_node.imaging.display import (
    GreyValues,
    Transform,
    display_picture,
    grey_values,
    values_of_interest,
)
from cbmir_node.imaging.elements import number
from cbmir_node.imaging.image_pixel import GREY
from cbmir_node.imaging.lookup_tables import LookupTable
from cbmir_node.imaging.opened_frames import open_frame
from cbmir_node.imaging.pixel_source import PixelSource
from cbmir_node.imaging.rendering import Rendering, fitting_size

_LARGEST: Final = 65535


class FrameValues(NamedTuple):
    """One frame's values, for a viewer that changes the window itself.

    Attributes
    ----------
    values : uint16 [H, W] or uint8 [H, W, 3]
        Grey: the modality value is ``minimum + value * step``. Colour: RGB.
    minimum, step : float
        In units of the modality (Hounsfield units for CT); 0 and 1 for colour.
    window_center, window_width : float
        What `display_picture` shows: black at centre - width / 2, white at centre + width / 2.
    inverted : bool
        The smallest value is white.
    number_of_frames, rows, columns : int
        Of the object.
    """

    values: npt.NDArray[Any]
    minimum: float
    step: float
    window_center: float
    window_width: float
    inverted: bool
    number_of_frames: int
    rows: int
    columns: int


def frame_values(path: Path, frame_number: int, longest_side: int) -> FrameValues:
    """Return one frame's values.

    Parameters
    ----------
    path : Path
        A DICOM file.
    frame_number : int
        From 1.
    longest_side : int
        Larger frames are reduced to it by averaging, smaller ones are not enlarged.

    Raises
    ------
    SelectionError
        There is no such frame.
    NoPixelsError, PixelError
        As `pictures.pictures`.
    """
    with open_frame(path, frame_number) as (source, index):
        stored = source.frame(index)
        if stored.photometric_interpretation in GREY:
            return _grey(stored, source, index, longest_side)
        picture = display_picture(stored, source.dataset, source.image, index)
        return FrameValues(
            _reduced(picture, longest_side), 0.0, 1.0, 127.5, 255.0, False, *_geometry(source)
        )


def _grey(stored: StoredFrame, source: PixelSource, index: int, longest_side: int) -> FrameValues:
    image = source.image
    grey = grey_values(stored, source.dataset, index)
    chosen = None if grey is None else values_of_interest(grey, source.dataset, image, index)
    if grey is None or chosen is None:  # black whatever the values are
        value = 0.0 if grey is None else float(grey.inputs.flat[0])
        blank = _reduced(np.zeros(stored.values.shape, np.uint16), longest_side)
        center = value - 1 if image.is_inverted else value + 1
        return FrameValues(blank, value, 1.0, center, 1.0, image.is_inverted, *_geometry(source))
    center, width, falls = equivalent_window(chosen[0])
    inverted = image.is_inverted != falls
    # padding is as black as anything here can be
    inputs = grey.inputs
    inputs[~grey.valid] = inputs.max() if inverted else inputs.min()
    minimum, step = _quantisation(inputs, grey, is_integer=stored.values.dtype.kind in "iu")
    scaled = _reduced(((inputs - minimum) / step).astype(np.float32), longest_side)
    values = np.rint(scaled).astype(np.uint16)
    return FrameValues(values, minimum, step, center, width, inverted, *_geometry(source))


def _geometry(source: PixelSource) -> tuple[int, int, int]:
    return source.image.number_of_frames, source.image.rows, source.image.columns


def _quantisation(
    inputs: npt.NDArray[Any], grey: GreyValues, *, is_integer: bool
) -> tuple[float, float]:
    """Return minimum and step; stored integers keep their steps where 16 bits hold them."""
    low, high = float(inputs.min()), float(inputs.max())
    slope = 1.0 if grey.rescale is None else number(grey.rescale, "RescaleSlope") or 1.0
    return low, max(abs(slope) if is_integer else 0.0, (high - low) / _LARGEST)


def equivalent_window(transform: Transform) -> tuple[float, float, bool]:
    """Return centre and width of the straight line that is most like a transform.

    Returns
    -------
    tuple of (float, float, bool)
        Centre and width as they are stated: LINEAR's half unit (PS3.3 C.11.2.1.2.1) is left to
        those who count it, and SIGMOID has the same slope at its centre. True for a lookup table
        that makes larger values darker.
    """
    if not isinstance(transform, LookupTable):
        return transform.center, transform.width, False
    entries = transform.entries.astype(np.float64) / (2**transform.bits - 1)
    falls = bool(entries[0] > entries[-1])
    if falls:
        entries = 1 - entries
    low, high = float(entries.min()), float(entries.max())
    # through the points where a tenth and nine tenths of the contrast are reached: a curve's
    # toe and shoulder bend it, and do not count
    first, last = (int(np.argmax(entries >= low + part * (high - low))) for part in (0.1, 0.9))
    rise = float(entries[last] - entries[first])
    if last <= first or rise <= 0:
        return transform.first_mapped + float(first), 1.0, falls
    width = (last - first) / rise
    center = transform.first_mapped + first + (0.5 - float(entries[first])) * width
    return center, width, falls


def _reduced(values: npt.NDArray[Any], longest_side: int) -> npt.NDArray[Any]:
    """Average areas so that the longer side has at most so many pixels."""
    rows, columns = values.shape[:2]
    size = fitting_size((columns, rows), Rendering(longest_side=longest_side))
    if size == (columns, rows):
        return np.ascontiguousarray(values)
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize(size, Image.Resampling.BOX))
