"""An object's file, opened so that single frames are decoded without reading the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cbmir_node.errors import PixelError
from cbmir_node.imaging.decoders import RLE_LOSSLESS, StoredFrame, decode_frame
from cbmir_node.imaging.element_encoding import byte_swapped
from cbmir_node.imaging.image_pixel import ImagePixel, read_image_pixel
from cbmir_node.imaging.non_pictures import refuse_missing_pixels, refuse_non_pictures

_PIXEL_KEYWORDS: Final = {
    Tag(0x7FE00008): "FloatPixelData",
    Tag(0x7FE00009): "DoubleFloatPixelData",
    Tag(0x7FE00010): "PixelData",
}
_FLOAT_BITS: Final = {"FloatPixelData": 32, "DoubleFloatPixelData": 64, "PixelData": 0}
NATIVE: Final = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    }
)
"""Transfer syntaxes of uncompressed pixels."""

_EXPLICIT_VRS: Final = (b"OB", b"OW", b"OF", b"OD", b"UN")
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelSource:
    """The header of an object and the place of its pixels.

    Attributes
    ----------
    dataset : Dataset
        Everything before the pixels.
    image : ImagePixel
    """

    dataset: Dataset
    image: ImagePixel
    _element: _PixelElement

    @property
    def transfer_syntax(self) -> str:
        """In which the file is."""
        return str(self._element.transfer_syntax)

    def cells(self, index: int) -> bytes:
        """Return the bytes of the native frame at `index`, as they are, in Little Endian.

        Frames must fill whole bytes (`ImagePixel.frame_bits`).
        """
        size = self.image.frame_bits // 8
        start, end = index * size, (index + 1) * size
        if self._element.transfer_syntax != ExplicitVRBigEndian:
            return self._read(start, end)
        first = start - start % 2  # a word may belong to two frames of single bytes
        words = byte_swapped(self._read(first, end + end % 2), self._element.vr)
        return words[start - first : end - first]

    def _read(self, start: int, end: int) -> bytes:
        self._element.value.seek(self._element.position + start)
        return self._element.value.read(end - start)

    def codestream(self, index: int) -> bytes:
        """Return all fragments of the encapsulated frame at `index`."""
        self._element.value.seek(self._element.position)
        return get_frame(
            self._element.value,
            index,
            number_of_frames=self.image.number_of_frames,
            extended_offsets=self._extended_offsets(),
        )

    def frame(self, index: int) -> StoredFrame:
        """Decode the frame at `index`, from 0.

        Raises
        ------
        PixelError
            The transfer syntax has no decoder, or codestream and header disagree.
        Exception
            Whatever pydicom or a codec raises on damaged pixels.
        """
        syntax = self._element.transfer_syntax
        self._element.value.seek(self._element.position)
        if syntax in NATIVE:
            return self._native_frame(index)
        if syntax == RLE_LOSSLESS:
            return self._native_frame(index, decoding_plugin="pydicom")
        return decode_frame(self.codestream(index), syntax, self.image)

    def frames(self) -> Iterator[StoredFrame]:
        """Decode all frames in order; raises as `frame` does.

        Without an offset table, finding one frame means to go past all those before it.
        """
        syntax = self._element.transfer_syntax
        if syntax in NATIVE or syntax == RLE_LOSSLESS:
            yield from (self.frame(index) for index in range(self.image.number_of_frames))
            return
        self._element.value.seek(self._element.position)
        codestreams = generate_frames(
            self._element.value,
            number_of_frames=self.image.number_of_frames,
            extended_offsets=self._extended_offsets(),
        )
        left = self.image.number_of_frames
        for codestream in islice(codestreams, left):
            left -= 1
            yield decode_frame(codestream, syntax, self.image)
        if left:
            raise PixelError(f"{left} of {self.image.number_of_frames} frames are missing")

    def _native_frame(self, index: int, **options: Any) -> StoredFrame:
        """Decode whole cells; High Bit may put the values above the low bits (PS3.5 8.1.1)."""
        surplus = max(0, self.image.high_bit + 1 - self.image.bits_stored)
        if self.image.high_bit >= self.image.bits_allocated:
            surplus = 0
        stored = self.image.bits_stored + surplus
        frame = self._pydicom_frame(index, bits_stored=stored, **options)
        return replace(frame, values=frame.values >> surplus) if surplus else frame

    def _pydicom_frame(self, index: int, **options: Any) -> StoredFrame:
        image = self.image
        values, properties = get_decoder(self._element.transfer_syntax).as_array(
            self._element.value,
            index=index,
            raw=True,
            **{
                "rows": image.rows,
                "columns": image.columns,
                "number_of_frames": image.number_of_frames,
                "samples_per_pixel": image.samples_per_pixel,
                "photometric_interpretation": image.photometric_interpretation,
                "bits_allocated": image.bits_allocated,
                "bits_stored": image.bits_stored,
                "pixel_representation": image.pixel_representation,
                "planar_configuration": image.planar_configuration,
                "pixel_keyword": self._element.keyword,
                "pixel_vr": self._element.vr,
                "extended_offsets": self._extended_offsets(),
                **options,
            },
        )
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return StoredFrame(np.asarray(native), str(properties["photometric_interpretation"]))

    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        """Return the Extended Offset Table (PS3.3 C.7.6.3.1.8), ignored when it is incomplete."""
        offsets = self.dataset.get("ExtendedOffsetTable")
        lengths = self.dataset.get("ExtendedOffsetTableLengths")
        if not offsets or not lengths or len(offsets) != len(lengths):
            return None
        return offsets, lengths


@dataclass(frozen=True)
class _PixelElement:
    """Where an object's pixels are; `length` is `_UNDEFINED_LENGTH` for encapsulated ones."""

    keyword: str
    vr: str
    length: int
    value: BinaryIO
    position: int
    transfer_syntax: UID


@contextmanager
def open_pixels(path: Path, *, pictures_only: bool = True) -> Iterator[PixelSource]:
    """Open an object for decoding; only its header is read.

    Parameters
    ----------
    path : Path
        A DICOM file (PS3.10), with or without preamble.
    pictures_only : bool
        Refuse pixels that are labels or doses.

    Raises
    ------
    NoPixelsError
        It has no pixels, or is no picture.
    PixelError
        It has no (known) transfer syntax, or its Image Pixel Module is unusable.
    """
    with path.open("rb") as file:
        dataset = dcmread(file, force=True, stop_before_pixels=True)
        if pictures_only:
            refuse_non_pictures(dataset)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:
            # The pixels are inside the deflated data set, so all of it has to be inflated.
            element = _inflated_element(path, syntax)
        else:
            element = _element_at(file, dataset, syntax)
        refuse_missing_pixels(dataset, element.length)
        if not syntax:
            raise PixelError("the file has no transfer syntax")
        image = read_image_pixel(dataset, _FLOAT_BITS[element.keyword])
        if syntax in NATIVE:
            image = _fitting(image, element.length, _remaining(element))
        yield PixelSource(dataset, image, element)


def _element_at(file: BinaryIO, dataset: Dataset, syntax: UID | None) -> _PixelElement:
    """Read the head of the pixel element (PS3.5 section 7.1) that `file` is positioned at."""
    _, little = dataset.original_encoding
    order: Literal["little", "big"] = "big" if little is False else "little"
    head = file.read(8)
    group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
    keyword = _PIXEL_KEYWORDS.get(BaseTag((group << 16) + element))
    if len(head) < 8 or keyword is None:
        return _PixelElement("PixelData", "OW", 0, file, 0, UID(""))
    # Some data sets are implicit against their transfer syntax, so the element is asked itself.
    implicit = head[4:6] not in _EXPLICIT_VRS
    vr = "OW" if implicit else head[4:6].decode("ascii")
    length = int.from_bytes(head[4:8] if implicit else file.read(4), order)
    return _PixelElement(keyword, vr, length, file, file.tell(), UID(syntax or ""))


def _inflated_element(path: Path, syntax: UID) -> _PixelElement:
    dataset = dcmread(path, force=True)
    for keyword in _PIXEL_KEYWORDS.values():
        if keyword in dataset:
            element = dataset[keyword]
            value = element.value or b""
            return _PixelElement(keyword, element.VR, len(value), BytesIO(value), 0, syntax)
    return _PixelElement("PixelData", "OW", 0, BytesIO(), 0, syntax)


def _remaining(element: _PixelElement) -> int:
    end = element.value.seek(0, 2)
    return end - element.position


def _fitting(image: ImagePixel, length: int, available: int) -> ImagePixel:
    """Check native pixels against the bytes that are there, before anything is allocated.

    YBR_FULL_422 that is not subsampled is a common mistake of writers and shows in the length.
    """
    if length == _UNDEFINED_LENGTH:
        raise PixelError("the pixels are encapsulated although the transfer syntax is native")
    present = min(length, available)
    if image.photometric_interpretation == "YBR_FULL_422":
        full = replace(image, photometric_interpretation="YBR_FULL")
        if present >= -(-full.frame_bits * image.number_of_frames // 8):
            return full
    needed = -(-image.frame_bits * image.number_of_frames // 8)
    if present < needed:
        raise PixelError(f"Pixel Data has {present} bytes, {needed} are needed")
    return image
