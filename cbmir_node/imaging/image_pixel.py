"""The Image Pixel Module of an object (PS3.3 C.7.6.3), read leniently and judged strictly.

Real files leave elements out or fill them badly. Where only one reading makes sense it is taken;
otherwise a `PixelError` names the element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from cbmir_node.errors import PixelError
from cbmir_node.imaging.elements import text, values

MAX_FRAME_SAMPLES: Final = 2**27
"""Rows x columns x samples of one frame at most (134 million): beyond any modality, and what the
display steps take (8 bytes a sample and more) stays within the default memory limit."""

GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
PALETTE: Final = "PALETTE COLOR"
COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})


@dataclass(frozen=True)
class ImagePixel:
    """What has to be known to read stored values; the names are those of the standard.

    `is_float` is for (Double) Float Pixel Data.
    """

    rows: int
    columns: int
    number_of_frames: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    planar_configuration: int
    is_float: bool

    @property
    def is_inverted(self) -> bool:
        """Whether small values are bright."""
        return self.photometric_interpretation == "MONOCHROME1"

    @property
    def frame_bits(self) -> int:
        """Size of one uncompressed frame, bits; YBR_FULL_422 shares its chroma (C.7.6.3.1.2)."""
        bits = self.rows * self.columns * self.samples_per_pixel * self.bits_allocated
        return bits * 2 // 3 if self.photometric_interpretation == "YBR_FULL_422" else bits


def read_image_pixel(dataset: Dataset, float_bits: int = 0) -> ImagePixel:
    """Read and check the Image Pixel Module.

    Parameters
    ----------
    dataset : Dataset
    float_bits : int
        32 or 64 for (Double) Float Pixel Data, whose bit depth is not in elements.

    Raises
    ------
    PixelError
        An element is missing or impossible, or one frame is larger than `MAX_FRAME_SAMPLES`.
    """
    photometric = text(dataset, "PhotometricInterpretation")
    samples = _integer(dataset, "SamplesPerPixel", 3 if photometric in COLOUR else 1)
    allocated = float_bits or _integer(dataset, "BitsAllocated")
    stored = float_bits or _integer(dataset, "BitsStored", allocated)
    image = ImagePixel(
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        number_of_frames=_integer(dataset, "NumberOfFrames", 1) or 1,
        samples_per_pixel=samples,
        photometric_interpretation=photometric or ("MONOCHROME2" if samples == 1 else "RGB"),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_integer(dataset, "HighBit", stored - 1),
        pixel_representation=_integer(dataset, "PixelRepresentation", 0),
        planar_configuration=_integer(dataset, "PlanarConfiguration", 0),
        is_float=bool(float_bits),
    )
    _check(image)
    return image


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return the first value: a US written as four bytes reads as [value, 0]."""
    found = values(dataset, keyword)
    if not found and not (keyword in dataset and dataset.get_item(keyword).value):
        if default is None:
            raise PixelError(f"{keyword} is missing")
        return default
    try:
        return int(found[0])
    except (IndexError, TypeError, ValueError):
        raise PixelError(f"{keyword} is not a number") from None


def _check(image: ImagePixel) -> None:
    if not (0 < image.rows <= 65535 and 0 < image.columns <= 65535):
        raise PixelError(f"Rows x Columns is {image.rows} x {image.columns}")
    if image.number_of_frames < 1:
        raise PixelError(f"NumberOfFrames is {image.number_of_frames}")
    if image.bits_allocated not in (1, 8, 16, 32, 64):
        raise PixelError(f"BitsAllocated is {image.bits_allocated}, not 1, 8, 16, 32 or 64")
    if not 1 <= image.bits_stored <= image.bits_allocated:
        raise PixelError(f"BitsStored is {image.bits_stored} of {image.bits_allocated} allocated")
    if image.pixel_representation not in (0, 1) or image.planar_configuration not in (0, 1):
        raise PixelError("PixelRepresentation and PlanarConfiguration must be 0 or 1")
    _check_photometric(image)
    samples = image.rows * image.columns * image.samples_per_pixel
    if samples > MAX_FRAME_SAMPLES:
        raise PixelError(
            f"a frame of {image.rows} x {image.columns} x {image.samples_per_pixel} samples is "
            f"larger than the limit of {MAX_FRAME_SAMPLES}"
        )


def _check_photometric(image: ImagePixel) -> None:
    photometric = image.photometric_interpretation
    if photometric not in GREY | COLOUR | {PALETTE}:
        raise PixelError(f"photometric interpretation {photometric} cannot be shown")
    expected = 3 if photometric in COLOUR else 1
    if image.samples_per_pixel != expected:
        raise PixelError(f"{image.samples_per_pixel} samples per pixel do not fit {photometric}")
