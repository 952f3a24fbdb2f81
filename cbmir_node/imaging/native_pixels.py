"""Stored values as native, uncompressed pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbmir_node.errors import PixelError
from cbmir_node.imaging.image_pixel import ImagePixel


class NativePixels:
    """Encodes the frames of one object, in Little Endian (PS3.5 section 8.1.1).

    Pixels of one bit run on from one frame to the next.

    Parameters
    ----------
    image : ImagePixel
        Says how a pixel cell is to be.
    """

    def __init__(self, image: ImagePixel) -> None:
        self._bits = image.bits_allocated
        self._type = f"<{'i' if image.pixel_representation else 'u'}{max(self._bits // 8, 1)}"
        self._left = np.zeros(0, np.uint8)

    def encode(self, values: npt.NDArray[Any]) -> bytes:
        """Return the bytes of a frame's stored values; bits that fill none wait for the next frame.

        Raises
        ------
        PixelError
            The values are no integers.
        """
        if values.dtype.kind == "f":
            raise PixelError("the codestream holds floating point values")
        if self._bits > 1:
            return values.astype(self._type).tobytes()
        bits = np.concatenate([self._left, values.astype(np.uint8).ravel()])
        whole = bits.size - bits.size % 8
        self._left = bits[whole:]
        return np.packbits(bits[:whole], bitorder="little").tobytes()

    def rest(self) -> bytes:
        """Return the bits that are left after the last frame."""
        return np.packbits(self._left, bitorder="little").tobytes()
