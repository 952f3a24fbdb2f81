"""Frames of an object, ready for the network.

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cbmir_node.imaging.display import display_picture
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.imaging.opened_frames import open_frame
from cbmir_node.imaging.pictures import Picture, iterate_pictures
from cbmir_node.imaging.rendering import THUMBNAIL, encode_picture


class NetworkInputFrame(NamedTuple):
    """One frame, ready for the network.

    Attributes
    ----------
    frame_number : int
        From 1.
    values : float32 [C, H, W]
    size : tuple of (int, int)
        Rows and columns of the picture it was made from.
    thumbnail : bytes
        The picture as a small JPEG (`rendering.THUMBNAIL`); empty unless asked for.
    """

    frame_number: int
    values: npt.NDArray[np.float32]
    size: tuple[int, int]
    thumbnail: bytes = b""


def network_input_frames(
    path: Path, frames_per_instance: int, preprocessing: Preprocessing, thumbnails: bool
) -> list[NetworkInputFrame]:
    """Prepare the frames that stand for an object; raises as `pictures.pictures`."""
    return [
        _prepared(picture, preprocessing, thumbnail=thumbnails)
        for picture in iterate_pictures(path, frames_per_instance)
    ]


def network_input_frame(
    path: Path, frame_number: int, preprocessing: Preprocessing
) -> NetworkInputFrame:
    """Prepare one frame; raises as `open_frame`."""
    with open_frame(path, frame_number) as (source, index):
        pixels = display_picture(source.frame(index), source.dataset, source.image, index)
        return _prepared(Picture(frame_number, pixels), preprocessing)


def _prepared(
    picture: Picture, preprocessing: Preprocessing, *, thumbnail: bool = False
) -> NetworkInputFrame:
    return NetworkInputFrame(
        picture.frame_number,
        network_input(picture.pixels, preprocessing),
        (picture.pixels.shape[0], picture.pixels.shape[1]),
        encode_picture(picture.pixels, THUMBNAIL) if thumbnail else b"",
    )
