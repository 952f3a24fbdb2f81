"""A DICOM file in, display pictures of the frames that stand for it out.

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cbmir_node.imaging.display import display_picture
from cbmir_node.imaging.frames import chosen_frames
from cbmir_node.imaging.opened_frames import as_pixel_error, damage_as_pixel_error
from cbmir_node.imaging.pixel_source import open_pixels


@dataclass(frozen=True)
class Picture:
    """One frame as a viewer would first show it.

    Attributes
    ----------
    frame_number : int
        From 1, as in DICOM.
    pixels : uint8 [H, W] or [H, W, 3]
        Grey or RGB, 0 black.
    """

    frame_number: int
    pixels: npt.NDArray[np.uint8]


def pictures(path: Path, frames_per_instance: int) -> list[Picture]:
    """Decode the frames of an object that stand for it (`chosen_frames`).

    Parameters
    ----------
    path : Path
        A DICOM file (PS3.10), with or without preamble.
    frames_per_instance : int
        Most pictures wanted.

    Raises
    ------
    NoPixelsError
        The object is no picture (`non_pictures`).
    PixelError
        The pixels cannot be decoded; the message is the reason to record.
    """
    return list(iterate_pictures(path, frames_per_instance))


def iterate_pictures(path: Path, frames_per_instance: int) -> Iterator[Picture]:
    """Yield what `pictures` returns, one frame in memory at a time."""
    try:
        with damage_as_pixel_error(), open_pixels(path) as source:
            for index in chosen_frames(source.image.number_of_frames, frames_per_instance):
                pixels = display_picture(source.frame(index), source.dataset, source.image, index)
                yield Picture(index + 1, pixels)
    except OSError as error:
        raise as_pixel_error(error) from error
