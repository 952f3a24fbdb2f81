"""The narrow interface of this package: a DICOM file in, display pictures out.

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cbmir_node.errors import PixelError
from cbmir_node.imaging.display import display_picture
from cbmir_node.imaging.frames import chosen_frames
from cbmir_node.imaging.pixel_source import open_pixels

_LONGEST_REASON = 200


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
    with warnings.catch_warnings():
        # pydicom warns of every irregularity; what matters of them ends in an error here.
        warnings.simplefilter("ignore")
        try:
            with open_pixels(path) as source:
                for index in chosen_frames(source.image.number_of_frames, frames_per_instance):
                    pixels = display_picture(
                        source.frame(index), source.dataset, source.image, index
                    )
                    yield Picture(index + 1, pixels)
        except (PixelError, MemoryError):
            raise
        except Exception as error:  # pydicom and the codecs raise almost any class on bad input
            reason = f"{type(error).__name__}: {error}"
            raise PixelError(reason[:_LONGEST_REASON]) from error
