"""Objects in an uncompressed transfer syntax, for receivers that take no other (PS3.5 Annex A).

What is decompressed keeps its stored values, with two exceptions after lossy compression: values
that overshoot Bits Stored are clipped, and YCbCr becomes RGB, the only colour space that the IODs
of ultrasound and visible light allow in uncompressed objects (PS3.3 C.8.5.6.1.2, C.8.12.1.1.1).

Pixels come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID

from cbmir_node.errors import OutOfSpaceError, PixelError
from cbmir_node.imaging.data_set_source import PIXEL_DATA, DataSetSource, PixelHeader, open_data_set
from cbmir_node.imaging.decoders import CODECS, RLE_LOSSLESS, StoredFrame
from cbmir_node.imaging.display import rgb_of_ybr
from cbmir_node.imaging.element_encoding import (
    UNDEFINED_LENGTH,
    Element,
    ElementWriter,
    Encoding,
    byte_swapped,
    encoding_of,
)
from cbmir_node.imaging.image_pixel import ImagePixel
from cbmir_node.imaging.native_pixels import NativePixels
from cbmir_node.imaging.pixel_source import NATIVE, open_pixels

_OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002, 0x7FE00003)
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_HIGH_BIT: Final = 0x00280102
_LOSSY, _LOSSY_METHOD = 0x00282110, 0x00282114
_LONGEST_VALUE: Final = 0xFFFFFFFE
_CHUNK: Final = 1 << 20
_LONGEST_REASON: Final = 200

_PREFIX: Final = "1.2.840.10008.1.2.4."
_LOSSY_METHODS: Final = {
    f"{_PREFIX}{suffix}": method
    for suffix, method in (
        *((suffix, "ISO_10918_1") for suffix in ("50", "51", "53", "55")),
        *(("81", "ISO_14495_1"), ("91", "ISO_15444_1"), ("203", "ISO_15444_15")),
        *(("111", "ISO_18181_1"), ("112", "ISO_18181_1")),
    )
}
"""Lossy transfer syntax to Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""


def can_transcode(transfer_syntax: str) -> bool:
    """Tell whether objects in a transfer syntax can become uncompressed, by what it says."""
    return transfer_syntax in NATIVE or transfer_syntax in CODECS or transfer_syntax == RLE_LOSSLESS


def transcode(
    path: Path,
    transfer_syntax: str,
    destination: Path,
    max_bytes: int,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Write an object's data set in an uncompressed transfer syntax.

    Parameters
    ----------
    path : Path
        A DICOM file (PS3.10).
    transfer_syntax : str
        UID of Implicit or Explicit VR Little Endian or Explicit VR Big Endian.
    destination : Path
        Becomes the data set without file meta information.
    max_bytes : int
        Most bytes of pixels to write.
    progress : callable, optional
        Called after every frame, and every MiB of native pixels.

    Raises
    ------
    PixelError
        The pixels cannot be decoded, or are too many for a value's length.
    OutOfSpaceError
        They are more than `max_bytes`.
    OSError
        A file cannot be read or written; the object is not to blame.
    """
    with warnings.catch_warnings(), destination.open("wb") as out:
        # pydicom warns of every irregularity; what matters of them ends in an error here
        warnings.simplefilter("ignore")
        try:
            with open_data_set(path) as source:
                if not can_transcode(source.transfer_syntax):
                    name = UID(source.transfer_syntax).name
                    raise PixelError(f"transfer syntax {name} cannot be decoded")
                target = encoding_of(transfer_syntax)
                _Transcoding(path, source, target, out, max_bytes, progress).run()
        except (PixelError, OutOfSpaceError, MemoryError):
            raise
        except Exception as error:  # pydicom and the codecs raise almost any class on bad input
            if isinstance(error, OSError) and error.errno is not None:  # those of codecs have none
                raise
            reason = f"{type(error).__name__}: {error}"
            raise PixelError(reason[:_LONGEST_REASON]) from error


class _Transcoding:
    """One object on its way from one transfer syntax to another."""

    def __init__(
        self,
        path: Path,
        source: DataSetSource,
        target: Encoding,
        out: BinaryIO,
        max_bytes: int,
        progress: Callable[[], None],
    ) -> None:
        self._path = path
        self._source = source
        self._syntax = source.transfer_syntax
        self._target = target
        self._out = out
        self._writer = ElementWriter(out, target)
        self._max_bytes = max_bytes
        self._progress = progress

    def run(self) -> None:
        read, pixels = self._source.read_to_pixels()
        elements = {int(element.tag): element for element in read}
        if pixels is None:
            self._writer.write(elements.values())
        elif pixels.length == UNDEFINED_LENGTH:
            self._write_decoded(elements)
            self._source.skip_fragments()
        elif self._syntax in NATIVE:
            self._writer.write(elements.values())
            self._copy(pixels)
        else:
            raise PixelError("the pixels are not encapsulated as their transfer syntax says")
        self._writer.write(self._source.read_rest())

    def _copy(self, pixels: PixelHeader) -> None:
        """Copy native pixels, in the byte order of the target."""
        left = pixels.length
        self._check_size(left)
        self._writer.write_header(*pixels)
        swap = self._source.is_little_endian != self._target.little
        while left:
            chunk = self._source.file.read(min(left, _CHUNK))
            if not chunk:
                raise PixelError(f"{left} bytes of the pixels are missing")
            self._out.write(byte_swapped(chunk, pixels.vr) if swap else chunk)
            left -= len(chunk)
            self._progress()

    def _write_decoded(self, elements: dict[int, Element]) -> None:
        """Write what describes decoded pixels, and the pixels frame by frame."""
        with open_pixels(self._path, pictures_only=False) as pixels:
            image = pixels.image
            if image.bits_allocated == 1 and self._syntax == RLE_LOSSLESS:
                raise PixelError("RLE of one-bit pixels has no decoder")
            size = self._size(image)
            frames = (as_sent(frame, image, self._syntax) for frame in pixels.frames())
            first = next(frames)
            self._describe(elements, first.photometric_interpretation, image)
            self._writer.write(elements.values())
            vr = "OB" if image.bits_allocated <= 8 else "OW"
            self._writer.write_header(PIXEL_DATA, vr, size + size % 2)
            native = NativePixels(image)
            for frame in chain([first], frames):
                if frame.photometric_interpretation != first.photometric_interpretation:
                    raise PixelError("the frames are not all in the same colour space")
                values = native.encode(frame.values)
                self._out.write(values if self._target.little else byte_swapped(values, vr))
                self._progress()
            self._out.write(native.rest() + b"\0" * (size % 2))

    def _describe(self, elements: dict[int, Element], photometric: str, image: ImagePixel) -> None:
        """Let the Image Pixel Module say what the decoded pixels are."""
        for tag in _OFFSET_TABLES:
            elements.pop(tag, None)
        _set(elements, _PHOTOMETRIC_INTERPRETATION, photometric)
        if image.samples_per_pixel > 1:
            _set(elements, _PLANAR_CONFIGURATION, 0)
        _set(elements, _HIGH_BIT, image.bits_stored - 1)
        if self._syntax in _LOSSY_METHODS:
            _set(elements, _LOSSY, "01")
            if _LOSSY_METHOD not in elements:
                _set(elements, _LOSSY_METHOD, _LOSSY_METHODS[self._syntax])

    def _size(self, image: ImagePixel) -> int:
        """Return the size of all frames in bytes."""
        not_subsampled = replace(image, photometric_interpretation="")
        size = -(-not_subsampled.frame_bits * image.number_of_frames // 8)
        self._check_size(size)
        return size

    def _check_size(self, size: int) -> None:
        if size > _LONGEST_VALUE:
            raise PixelError(f"{size} bytes of pixels are more than a value can have")
        if size > self._max_bytes:
            raise OutOfSpaceError(
                f"{size} bytes of pixels are more than the {self._max_bytes} there is room for"
            )


def as_sent(frame: StoredFrame, image: ImagePixel, transfer_syntax: str) -> StoredFrame:
    """Undo what lossy compression in `transfer_syntax` does to values and colours."""
    if transfer_syntax not in _LOSSY_METHODS:
        return frame
    half = 1 << image.bits_stored - 1
    lowest = -half if image.pixel_representation else 0
    values = np.clip(frame.values, lowest, lowest + 2 * half - 1)
    if frame.photometric_interpretation == "YBR_FULL" and values.dtype == np.uint8:
        return StoredFrame(rgb_of_ybr(values), "RGB")
    return replace(frame, values=values)


def photometric_as_sent(photometric_interpretation: str, transfer_syntax: str) -> str:
    """Return the Photometric Interpretation of an object's pixels once they are decompressed.

    What the header of a compressed object says is enough here: where its codestream disagrees,
    the outcome is the same.
    """
    colour = photometric_interpretation.startswith("YBR")
    if photometric_interpretation in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    return "RGB" if colour and transfer_syntax in _LOSSY_METHODS else photometric_interpretation


def _set(elements: dict[int, Element], tag: int, value: str | int) -> None:
    if isinstance(value, int):
        vr, encoded = "US", struct.pack("<H", value)
    else:
        vr, encoded = "CS", value.encode() + b" " * (len(value) % 2)
    elements[tag] = RawDataElement(Tag(tag), vr, len(encoded), encoded, 0, False, True)
