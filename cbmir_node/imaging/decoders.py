"""One pinned decoder per compressed transfer syntax (PS3.5 section 8.2 and Annex A.4).

JPEG decoders differ in the last bit of a decoded pixel, and embeddings differ with them. So the
transfer syntax alone, never what else happens to be installed, chooses the library: imagecodecs
(libjpeg-turbo, CharLS, OpenJPEG, OpenJPH, libjxl), except for RLE, which pydicom decodes itself.

A codestream says how many bits and samples it holds. That is believed before the header; what it
cannot say (the sign in JPEG and JPEG-LS, which bits are unused) comes from the header.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from cbmir_node.errors import PixelError
from cbmir_node.imaging.image_pixel import ImagePixel

StoredValues = npt.NDArray[Any]
_Decode = Callable[[bytes, ImagePixel], tuple[StoredValues, str]]


@dataclass(frozen=True)
class StoredFrame:
    """One decoded frame.

    Attributes
    ----------
    values : int, uint or float [H, W] or [H, W, 3]
        Stored values (PS3.3 C.7.6.3.1), colour by pixel.
    photometric_interpretation : str
        Of `values`: a decoder may have changed it (YBR_RCT to RGB).
    """

    values: StoredValues
    photometric_interpretation: str


def _jpeg(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    photometric = jpeg_photometric(codestream, image.photometric_interpretation)
    if image.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(codestream), photometric
    # Naming the same colour space twice makes libjpeg guess nothing and convert nothing.
    same = imagecodecs.JPEG8.CS.YCbCr
    return imagecodecs.jpeg8_decode(codestream, colorspace=same, outcolorspace=same), photometric


def _jpeg_ls(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    return imagecodecs.jpegls_decode(codestream), image.photometric_interpretation


def _jpeg_2000(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    values = imagecodecs.jpeg2k_decode(codestream, numthreads=1)
    return values, _jpeg_2000_photometric(codestream, image)


def _high_throughput_jpeg_2000(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    return imagecodecs.htj2k_decode(codestream), _jpeg_2000_photometric(codestream, image)


def _jpeg_xl(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    values = imagecodecs.jpegxl_decode(codestream, numthreads=1)
    return values, "RGB" if image.samples_per_pixel == 3 else image.photometric_interpretation


def _deflated(codestream: bytes, image: ImagePixel) -> tuple[StoredValues, str]:
    """Inflate a frame of native pixels, and no more bytes than the header promises."""
    size = -(-image.frame_bits // 8)
    native = zlib.decompressobj(-zlib.MAX_WBITS).decompress(codestream, size)
    if len(native) < size:
        raise PixelError(f"the deflated frame holds {len(native)} bytes instead of {size}")
    if image.bits_allocated == 1:
        count = image.rows * image.columns
        values = np.unpackbits(np.frombuffer(native, np.uint8), count=count, bitorder="little")
    else:
        values = np.frombuffer(native, np.dtype(f"<u{image.bits_allocated // 8}"))
    shape: tuple[int, ...] = (image.rows, image.columns)
    if image.samples_per_pixel == 1:
        return values.reshape(shape), image.photometric_interpretation
    if image.planar_configuration == 1:
        planes = values.reshape(image.samples_per_pixel, *shape)
        return planes.transpose(1, 2, 0), image.photometric_interpretation
    return values.reshape(*shape, image.samples_per_pixel), image.photometric_interpretation


@dataclass(frozen=True)
class _Codec:
    decode: _Decode
    lossless: bool


_PREFIX: Final = "1.2.840.10008.1.2."
RLE_LOSSLESS: Final = f"{_PREFIX}5"

CODECS: Final[dict[str, _Codec]] = {
    f"{_PREFIX}4.50": _Codec(_jpeg, lossless=False),  # JPEG Baseline
    f"{_PREFIX}4.51": _Codec(_jpeg, lossless=False),  # JPEG Extended, 8 and 12 bits
    f"{_PREFIX}4.53": _Codec(_jpeg, lossless=False),  # JPEG Spectral Selection, retired
    f"{_PREFIX}4.55": _Codec(_jpeg, lossless=False),  # JPEG Full Progression, retired
    f"{_PREFIX}4.57": _Codec(_jpeg, lossless=True),  # JPEG Lossless
    f"{_PREFIX}4.70": _Codec(_jpeg, lossless=True),  # JPEG Lossless SV1
    f"{_PREFIX}4.80": _Codec(_jpeg_ls, lossless=True),
    f"{_PREFIX}4.81": _Codec(_jpeg_ls, lossless=False),
    f"{_PREFIX}4.90": _Codec(_jpeg_2000, lossless=True),
    f"{_PREFIX}4.91": _Codec(_jpeg_2000, lossless=False),
    f"{_PREFIX}4.110": _Codec(_jpeg_xl, lossless=True),
    f"{_PREFIX}4.111": _Codec(_jpeg_xl, lossless=False),  # JPEG XL JPEG Recompression
    f"{_PREFIX}4.112": _Codec(_jpeg_xl, lossless=False),
    f"{_PREFIX}4.201": _Codec(_high_throughput_jpeg_2000, lossless=True),
    f"{_PREFIX}4.202": _Codec(_high_throughput_jpeg_2000, lossless=True),
    f"{_PREFIX}4.203": _Codec(_high_throughput_jpeg_2000, lossless=False),
    f"{_PREFIX}8.1": _Codec(_deflated, lossless=True),  # Deflated Image Frame Compression
}
"""Transfer Syntax UID to decoder, without RLE and the native syntaxes."""

_VIDEO: Final = tuple(f"{_PREFIX}4.10{digit}" for digit in range(9))


def undecodable(transfer_syntax: str) -> PixelError:
    """Return the error for a transfer syntax without a decoder."""
    name = UID(transfer_syntax).name
    what = "video" if transfer_syntax.startswith(_VIDEO) else "stored"
    return PixelError(f"transfer syntax {name} is {what} but cannot be decoded")


def decode_frame(codestream: bytes, transfer_syntax: str, image: ImagePixel) -> StoredFrame:
    """Decode one frame with the decoder of its transfer syntax.

    Parameters
    ----------
    codestream : bytes
        All fragments of the frame.
    transfer_syntax : str
        UID, a key of `CODECS`.
    image : ImagePixel
        The header's description.

    Raises
    ------
    PixelError
        There is no decoder, or codestream and header disagree on the frame's shape.
    Exception
        Whatever the library raises on a damaged codestream.
    """
    codec = CODECS.get(transfer_syntax)
    if codec is None:
        raise undecodable(transfer_syntax)
    values, photometric = codec.decode(codestream, image)
    expected: tuple[int, ...] = (image.rows, image.columns)
    if image.samples_per_pixel > 1:
        expected += (image.samples_per_pixel,)
    if values.shape != expected:
        found = " x ".join(str(length) for length in values.shape)
        wanted = " x ".join(str(length) for length in expected)
        raise PixelError(f"the codestream holds {found} samples, the header says {wanted}")
    return StoredFrame(_as_header_says(values, image, codec.lossless), photometric)


def _as_header_says(values: StoredValues, image: ImagePixel, lossless: bool) -> StoredValues:
    """Give `values` the header's sign and clear the bits that are not pixels.

    Bits above Bits Stored may hold overlays or nothing (PS3.5 8.1.1). A lossy decoder overshoots
    into them instead, so there they are kept: cleared, a bright pixel would turn black.
    """
    unused = values.dtype.itemsize * 8 - image.bits_stored
    signed = values.dtype.kind == "i"
    if values.dtype.kind == "f" or unused < 0:
        return values
    if image.pixel_representation == 1 and (not signed or (lossless and unused)):
        extended: StoredValues = (values << unused).view(f"i{values.dtype.itemsize}") >> unused
        return extended
    if image.pixel_representation == 0 and (signed or (lossless and unused)):
        used = (1 << image.bits_stored) - 1
        cleared: StoredValues = values.view(f"u{values.dtype.itemsize}") & used
        return cleared
    return values


def jpeg_photometric(codestream: bytes, photometric: str) -> str:
    """Return the colour space a colour JPEG codestream really has.

    Headers are often wrong about it. In order: components named ``R G B``; the Adobe marker's
    transform flag; the JFIF marker (always YCbCr); subsampled components (only chroma is ever
    subsampled); the header (PS3.5 8.2.1).
    """
    segments, frame_header = _jpeg_segments(codestream)
    components = frame_header[6:]  # identifier, sampling factors, table of each
    if len(components) != 9:
        return photometric
    if components[::3].lower() == b"rgb":
        return "RGB"
    for marker, payload in segments:
        if marker == 0xEE and payload.startswith(b"Adobe") and len(payload) >= 12:
            return "RGB" if payload[11] == 0 else "YBR_FULL"
        if marker == 0xE0 and payload.startswith(b"JFIF"):
            return "YBR_FULL"
    subsampled = len(set(components[1::3])) > 1
    return "YBR_FULL" if subsampled or photometric.startswith("YBR") else "RGB"


def _jpeg_segments(codestream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the marker segments up to the frame header, and the frame header."""
    segments: list[tuple[int, bytes]] = []
    position = 2
    while position + 4 <= len(codestream) and codestream[position] == 0xFF:
        marker = codestream[position + 1]
        if marker == 0xFF:  # fill byte (ISO/IEC 10918-1 B.1.1.2)
            position += 1
            continue
        length = int.from_bytes(codestream[position + 2 : position + 4], "big")
        payload = codestream[position + 4 : position + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return segments, payload
        segments.append((marker, payload))
        position += 2 + length
    return segments, b""


def _jpeg_2000_photometric(codestream: bytes, image: ImagePixel) -> str:
    """Return RGB unless the header says YBR_FULL and no colour transform was undone.

    YBR_RCT and YBR_ICT name the transform inside the codestream (PS3.5 8.2.4): decoding ends in
    RGB.
    """
    if image.samples_per_pixel == 1:
        return image.photometric_interpretation
    coding_style = codestream.find(b"\xff\x52")  # COD: Lcod, Scod, progression, layers, transform
    transformed = coding_style >= 0 and codestream[coding_style + 8 : coding_style + 9] == b"\x01"
    plain_ybr = image.photometric_interpretation in ("YBR_FULL", "YBR_FULL_422")
    return "YBR_FULL" if plain_ybr and not transformed else "RGB"
