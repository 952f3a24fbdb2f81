"""PNG and JPEG pictures as DICOM objects (Secondary Capture, PS3.3 A.8.1).

Pictures come from strangers: outside of tests call it through `DecoderProcess`.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from cbmir_node.errors import UploadError
from cbmir_node.imaging.image_pixel import MAX_FRAME_SAMPLES

_FORMATS: Final = ("PNG", "JPEG")
_LONGEST_SIDE: Final = 65535  # Rows and Columns are US
_MOST_PIXELS: Final = 64_000_000  # a few hundred kB that decompress for seconds are cheap to send
_DEEP_MODES: Final = ("I", "I;16", "I;16B", "I;16L")
"""What Pillow calls grey of more than 8 bits."""


def secondary_capture(picture: Path, modality: str, destination: Path, name: str = "") -> None:
    """Write a picture as a Secondary Capture object.

    It embeds to the same network input as the picture. Grey of 16 bits keeps its values and gets
    no window, so that the default of ``docs/pixels.md`` applies; what is transparent is black; a
    JPEG is turned as its EXIF orientation says.

    Parameters
    ----------
    picture : Path
        A PNG or JPEG file.
    modality : str
        Modality (0008,0060); ``OT`` when empty.
    destination : Path
        Becomes a DICOM file with fresh UIDs, uncompressed.
    name : str
        Study Description: what the picture was called.

    Raises
    ------
    UploadError
        It is no PNG or JPEG, damaged, or larger than 64 million pixels or
        `image_pixel.MAX_FRAME_SAMPLES`.
    """
    pixels, is_lossy = _read(picture)
    dataset = _described(pixels, modality or "OT", name, is_lossy=is_lossy)
    dataset.save_as(destination, enforce_file_format=True)


def _read(picture: Path) -> tuple[npt.NDArray[Any], bool]:
    """Return uint8 or uint16 [H, W], or uint8 [H, W, 3], and whether it was a JPEG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit of size is below ours
        try:
            with Image.open(picture, formats=_FORMATS) as image:
                _check_size(image)  # the header's word, before anything is decoded
                return _pixels(image), image.format != "PNG"  # a phone's JPEG may be an MPO
        except (UploadError, MemoryError):
            raise
        except UnidentifiedImageError as error:  # whose message is the file's path
            raise UploadError("the picture cannot be read; save it again as PNG or JPEG") from error
        except Image.DecompressionBombError as error:
            raise UploadError(f"the picture is too large: {error}") from error
        except Exception as error:  # Pillow's plugins raise almost any class on bad input
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UploadError(
                f"the picture cannot be read ({type(error).__name__}: {error}); save it again as "
                "PNG or JPEG"
            ) from error


def _check_size(image: Image.Image) -> None:
    samples = image.width * image.height * len(image.getbands())
    is_too_large = image.width * image.height > _MOST_PIXELS or samples > MAX_FRAME_SAMPLES
    if max(image.size) > _LONGEST_SIDE or is_too_large:
        raise UploadError(
            f"a picture of {image.width} x {image.height} is too large: reduce it to at most "
            f"{_MOST_PIXELS // 1_000_000} million pixels and {_LONGEST_SIDE} a side"
        )


def _pixels(image: Image.Image) -> npt.NDArray[Any]:
    upright: Image.Image = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP_MODES:
        deep: npt.NDArray[Any] = np.asarray(upright)
        return deep.clip(0, 65535).astype(np.uint16)
    if "transparency" in upright.info or upright.mode in ("LA", "PA", "RGBA"):
        shown = upright.convert("RGBA")
        black = Image.new("RGBA", shown.size, (0, 0, 0, 255))
        flat = Image.alpha_composite(black, shown)
        return np.asarray(flat.convert("L" if upright.mode in ("1", "L", "LA") else "RGB"))
    return np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))


def _described(pixels: npt.NDArray[Any], modality: str, name: str, *, is_lossy: bool) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid(prefix=None))  # from a random UUID (PS3.5 B.2)
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
        *("SeriesNumber", "PatientOrientation"),
    ):
        setattr(dataset, keyword, "")  # type 2: nobody knows
    dataset.InstanceNumber = 1
    dataset.Modality = modality
    dataset.ConversionType = "WSD"
    dataset.StudyDescription = _long_string(name)
    now = datetime.now(UTC)
    dataset.DateOfSecondaryCapture = now.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = now.strftime("%H%M%S")
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.LossyImageCompression = "01" if is_lossy else "00"
    if is_lossy:
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    content = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", content + b"\0" * (len(content) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _long_string(name: str) -> str:
    """Return what an LO may hold of a file's name (PS3.5 section 6.2)."""
    return "".join(c for c in name if c.isprintable() and c != "\\")[:64].strip()
