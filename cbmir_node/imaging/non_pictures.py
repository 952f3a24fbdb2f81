"""Which objects are no picture, although some of them carry Pixel Data.

Two rules, in this order:

1. The SOP class is one of `NOT_PICTURES`: its pixels are labels, doses or measurements that mean
   nothing on their own, and as pictures they would be found for the wrong reason.
2. The object has no Pixel Data, Float Pixel Data or Double Float Pixel Data, or it is empty. This
   covers reports, presentation states, plans, waveforms, encapsulated documents, directories,
   palettes and every private class without pixels, with no list to keep up.
"""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from cbmir_node.errors import NoPixelsError, PixelError

NOT_PICTURES: Final = {
    "1.2.840.10008.5.1.4.1.1.66": "Raw Data Storage: its pixels are raw data",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage: its pixels are labels",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage: its pixels are labels",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage: its pixels are labels",
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose Storage: its pixels are doses",
}
"""SOP Class UID (PS3.4 B.5) to reason."""


def refuse_non_pictures(dataset: Dataset) -> None:
    """Raise `NoPixelsError` for an object whose SOP class is one of `NOT_PICTURES`."""
    reason = NOT_PICTURES.get(_sop_class(dataset))
    if reason:
        raise NoPixelsError(f"{reason}, not a picture")


def refuse_missing_pixels(dataset: Dataset, length: int) -> None:
    """Raise `NoPixelsError` where the pixel element is absent or empty (`length` 0).

    With neither pixels nor SOP class it is a `PixelError`: the file is damaged or not DICOM.
    """
    if length == 0:
        name = UID(_sop_class(dataset)).name
        if not name:
            raise PixelError("neither a SOP class nor Pixel Data: not DICOM, or damaged")
        raise NoPixelsError(f"{name}: there is no Pixel Data")


def _sop_class(dataset: Dataset) -> str:
    """Return the SOP Class UID, from the file meta information where the data set has none."""
    in_meta = getattr(dataset, "file_meta", Dataset()).get("MediaStorageSOPClassUID")
    return str(dataset.get("SOPClassUID") or in_meta or "")
