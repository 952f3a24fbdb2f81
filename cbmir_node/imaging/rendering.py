"""Frames for people, as JPEG or PNG.

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from cbmir_node.errors import SelectionError
from cbmir_node.imaging.display import Picture8, display_picture, grey_values
from cbmir_node.imaging.image_pixel import GREY
from cbmir_node.imaging.opened_frames import open_frame
from cbmir_node.imaging.pixel_source import PixelSource
from cbmir_node.imaging.windows import Function, Window

MediaType = Literal["image/jpeg", "image/png"]
MAX_VIEWPORT: Final = 8192
"""Longest side that a small picture is enlarged to, pixels."""

_PNG_LEVEL: Final = 3
"""Half the time of Pillow's own choice, for a tenth more bytes."""

_FORMATS: Final[dict[MediaType, str]] = {"image/jpeg": "JPEG", "image/png": "PNG"}


@dataclass(frozen=True)
class Rendering:
    """How a frame is to look.

    Attributes
    ----------
    media_type : {"image/jpeg", "image/png"}
    quality : int
        Of JPEG, 1–100.
    longest_side : int or None
        Most pixels of the longer side; smaller pictures are not enlarged.
    window : tuple of (float, float, str) or None
        Centre, width and VOI LUT Function over modality values; ``None`` shows what
        `display_picture` does. Colour has no window.
    viewport : tuple of (int, int) or None
        Columns and rows to fill as far as the aspect allows, enlarged if need be, though not
        beyond `MAX_VIEWPORT` (PS3.18 section 8.3.5.1.3).
    region : tuple of (float, float, float, float) or None
        Left, top, width and height, in pixels, of the part of the frame to show; a negative width
        or height mirrors it (ibid.).
    """

    media_type: MediaType = "image/jpeg"
    quality: int = 90
    longest_side: int | None = None
    window: tuple[float, float, Function] | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None


THUMBNAIL: Final = Rendering(quality=80, longest_side=256)
"""How thumbnails look."""


def render(path: Path, frame_number: int, rendering: Rendering) -> bytes:
    """Render one frame.

    Parameters
    ----------
    path : Path
        A DICOM file.
    frame_number : int
        From 1.
    rendering : Rendering

    Returns
    -------
    bytes
        A JPEG or PNG file.

    Raises
    ------
    SelectionError
        There is no such frame, or the region lies outside of it.
    NoPixelsError, PixelError
        As `pictures.pictures`.
    """
    with open_frame(path, frame_number) as (source, index):
        return encode_picture(_picture(source, index, rendering.window), rendering)


def encode_picture(picture: Picture8, rendering: Rendering) -> bytes:
    """Encode a display picture, uint8 [H, W] or [H, W, 3], as `rendering` says."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if rendering.region is not None or fitting_size(image.size, rendering) != image.size:
        image = _resized(image, rendering)
    encoded = BytesIO()
    options = {"quality": rendering.quality, "compress_level": _PNG_LEVEL}
    image.save(encoded, _FORMATS[rendering.media_type], **options)
    return encoded.getvalue()


def fitting_size(size: tuple[int, int], rendering: Rendering) -> tuple[int, int]:
    """Return the columns and rows that a picture of `size` is brought to."""
    scale = 1.0
    if rendering.viewport is not None:
        scale = min(
            bound / length
            for bound, length in zip(
                (*rendering.viewport, MAX_VIEWPORT), (*size, max(size)), strict=True
            )
        )
    if rendering.longest_side is not None:
        scale = min(scale, rendering.longest_side / max(size))
    columns, rows = (max(1, round(length * scale)) for length in size)
    return columns, rows


def _picture(
    source: PixelSource, index: int, window: tuple[float, float, Function] | None
) -> Picture8:
    frame, dataset = source.frame(index), source.dataset
    if window is None or frame.photometric_interpretation not in GREY:
        return display_picture(frame, dataset, source.image, index)
    grey = grey_values(frame, dataset, index)
    if grey is None:
        return np.zeros(frame.values.shape, np.uint8)
    brightness = Window(*window).brightness(grey.inputs)
    return grey.picture(brightness, inverted=source.image.is_inverted)


def _resized(image: Image.Image, rendering: Rendering) -> Image.Image:
    left, top, width, height = rendering.region or (0, 0, image.width, image.height)
    box = (
        max(0.0, left),
        max(0.0, top),
        min(float(image.width), left + abs(width)),
        min(float(image.height), top + abs(height)),
    )
    if not (box[0] < box[2] and box[1] < box[3]):
        raise SelectionError(
            f"the region shows nothing: ask for a part of {image.width} x {image.height} pixels"
        )
    part = (max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1])))
    size = fitting_size(part, rendering)
    # Pillow widens the kernel when it shrinks a picture, so that nothing small is lost
    shown = image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
    if width < 0:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        shown = shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return shown
