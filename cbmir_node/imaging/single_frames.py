"""The pixels of single frames, uncompressed or as they are stored (PS3.18 section 10.4.1.1.6).

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from cbmir_node.errors import PixelError
from cbmir_node.imaging.native_pixels import NativePixels
from cbmir_node.imaging.opened_frames import open_frame
from cbmir_node.imaging.pixel_source import NATIVE
from cbmir_node.imaging.transcoding import as_sent

_LARGEST_CODESTREAM: Final = 1 << 30


def native_frame(path: Path, frame_number: int) -> bytes:
    """Return the uncompressed pixels of a frame.

    Parameters
    ----------
    path : Path
        A DICOM file (PS3.10).
    frame_number : int
        From 1.

    Returns
    -------
    bytes
        Pixel cells in Little Endian (PS3.5 section 8.1.1), colour by pixel when it was compressed;
        a frame of one-bit pixels is filled up to a whole byte. Lossy colour becomes RGB.

    Raises
    ------
    SelectionError
        There is no such frame.
    PixelError
        It cannot be decoded.
    """
    with open_frame(path, frame_number, pictures_only=False) as (pixels, index):
        image = pixels.image
        if pixels.transfer_syntax in NATIVE and image.frame_bits % 8 == 0:
            return pixels.cells(index)
        frame = as_sent(pixels.frame(index), image, pixels.transfer_syntax)
        if image.bits_allocated == 1:
            return np.packbits(frame.values.astype(np.uint8).ravel(), bitorder="little").tobytes()
        return NativePixels(image).encode(frame.values)


def encoded_frame(path: Path, frame_number: int) -> bytes:
    """Return the codestream of a compressed frame; parameters and errors as `native_frame`."""
    with open_frame(path, frame_number, pictures_only=False) as (pixels, index):
        if pixels.transfer_syntax in NATIVE:
            raise PixelError("the pixels are not compressed")
        codestream = pixels.codestream(index)
        if len(codestream) > _LARGEST_CODESTREAM:
            raise PixelError(f"the codestream has {len(codestream)} bytes, too many for a frame")
        return codestream
