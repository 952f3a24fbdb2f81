"""DICOM objects made for tests: stored values in, a file out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import pack_bits
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"

Encode = Callable[[np.ndarray], bytes]


def write_object(
    path: Path,
    stored: np.ndarray,
    *,
    syntax: str = ExplicitVRLittleEndian,
    encode: Encode | None = None,
    **elements: Any,
) -> Path:
    """Write stored values [H, W], [H, W, 3] or, with NumberOfFrames, [F, …] as an object.

    `encode` compresses one frame. `elements` set or, with None, delete what follows from the
    array; ``PixelData`` may be given as it shall be written.
    """
    frames = stored if "NumberOfFrames" in elements else stored[np.newaxis]
    colour = frames.ndim == 4
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality = "OT"
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = elements.get("BitsStored") or stored.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    if encode is not None:
        dataset.PixelData = encapsulate([encode(frame) for frame in frames])
        dataset["PixelData"].VR = "OB"
    elif stored.dtype.kind == "f":
        keyword = "FloatPixelData" if stored.dtype.itemsize == 4 else "DoubleFloatPixelData"
        setattr(dataset, keyword, frames.tobytes())
    else:
        swapped = frames.astype(
            frames.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")
        )
        dataset.PixelData = swapped.tobytes() + b"\0" * (frames.nbytes % 2)
        dataset["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        elif keyword == "PixelData":
            dataset.PixelData = value
        else:
            setattr(dataset, keyword, value)
    if encode is not None and "PixelData" not in elements:
        dataset["PixelData"].is_undefined_length = True
    _write(path, dataset)
    return path


def _write(path: Path, dataset: Dataset) -> None:
    """Write the file; pydicom itself refuses transfer syntaxes that it does not know."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_transfer_syntax:
        dataset.save_as(path, enforce_file_format=True)
        return
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, dataset.file_meta, enforce_standard=False)
        body = DicomFileLike(file)
        body.is_little_endian, body.is_implicit_VR = True, False
        write_dataset(body, dataset)


def ramp(height: int = 24, width: int = 32, top: int = 4095) -> np.ndarray:
    """Return a picture without symmetry: a horizontal ramp over a vertical wave, uint16."""
    across = np.linspace(0, 1, width)
    down = np.sin(np.linspace(0, 5, height)) ** 2
    return np.rint(top * (0.8 * across + 0.2 * down[:, np.newaxis])).astype(np.uint16)


def colours(height: int = 24, width: int = 32) -> np.ndarray:
    """Return smooth colours without symmetry, uint8 [H, W, 3]."""
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(20, 200, height)[:, np.newaxis], (height, width))
    return np.rint(np.stack([across, down, 255 - across], axis=-1)).astype(np.uint8)


def rle(frame: np.ndarray) -> bytes:
    colour = frame.ndim == 3
    return RLELosslessEncoder.encode(
        np.ascontiguousarray(frame),
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=3 if colour else 1,
        bits_allocated=frame.dtype.itemsize * 8,
        bits_stored=frame.dtype.itemsize * 8,
        pixel_representation=int(frame.dtype.kind == "i"),
        photometric_interpretation="RGB" if colour else "MONOCHROME2",
        number_of_frames=1,
        planar_configuration=0,
    )


def deflate(frame: np.ndarray) -> bytes:
    native = pack_bits(frame) if frame.dtype == bool else frame.tobytes()
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(native) + compressor.flush()


def _unsigned(frame: np.ndarray) -> np.ndarray:
    return frame.view(f"u{frame.dtype.itemsize}")


def jpeg_lossless(frame: np.ndarray) -> bytes:
    space = "RGB" if frame.ndim == 3 else None
    return imagecodecs.jpeg8_encode(
        _unsigned(frame), lossless=True, colorspace=space, outcolorspace=space
    )


LOSSLESS: dict[str, Encode] = {
    "1.2.840.10008.1.2.4.57": jpeg_lossless,
    "1.2.840.10008.1.2.4.70": jpeg_lossless,
    "1.2.840.10008.1.2.4.80": lambda frame: imagecodecs.jpegls_encode(_unsigned(frame)),
    "1.2.840.10008.1.2.4.90": lambda frame: imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="J2K", reversible=True, mct=False
    ),
    "1.2.840.10008.1.2.4.110": lambda frame: imagecodecs.jpegxl_encode(
        _unsigned(frame), lossless=True
    ),
    "1.2.840.10008.1.2.4.201": lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.4.202": lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.5": rle,
    "1.2.840.10008.1.2.8.1": deflate,
}
"""Every lossless compressed transfer syntax the node decodes, with an encoder for one frame."""
