"""Modality, VOI and palette lookup tables (PS3.3 C.11.1.1, C.11.2.1.1 and C.7.6.3.1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from cbmir_node.errors import PixelError
from cbmir_node.imaging.elements import numbers, values

_DEEPEST = 16


@dataclass(frozen=True)
class LookupTable:
    """A table of output values.

    Attributes
    ----------
    first_mapped : int
        Input value of the first entry; smaller inputs take the first entry, larger ones than the
        table holds the last.
    entries : uint16 [N]
    bits : int
        Depth of the entries.
    """

    first_mapped: int
    entries: npt.NDArray[np.uint16]
    bits: int

    def apply(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Map each input, rounded to an integer, to its entry; NaN takes the first."""
        offsets = np.nan_to_num(inputs.astype(np.float64)) - self.first_mapped
        rows = np.clip(np.rint(offsets), 0, len(self.entries) - 1).astype(np.int32)
        return self.entries[rows]

    def brightness(self, inputs: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Map each input to 0 (black) … 1 (the deepest entry the table's bits can hold)."""
        return self.apply(inputs).astype(np.float32) / np.float32(2**self.bits - 1)


def read_lookup_table(
    dataset: Dataset, descriptor: str, data: str, *, signed: bool, big_endian: bool = False
) -> LookupTable | None:
    """Read a table from its descriptor and data elements.

    Parameters
    ----------
    dataset : Dataset
        The sequence item or data set that holds both.
    descriptor, data : str
        Keywords, such as ``LUTDescriptor`` and ``LUTData``.
    signed : bool
        Whether input values can be negative: the descriptor's second value is then signed,
        whatever VR it was written with.
    big_endian : bool
        Byte order of OW data.

    Returns
    -------
    LookupTable or None
        None when the table is absent or unusable.
    """
    described = [int(value) for value in numbers(dataset, descriptor)]
    if len(described) != 3 or not 1 <= described[2] <= _DEEPEST:
        return None
    count = described[0] % 65536 or 65536  # 0 means 2^16
    first = described[1]
    if signed and first >= 32768:
        first -= 65536
    entries = _entries(values(dataset, data), count, big_endian)
    if entries is None:
        return None
    # Some writers declare fewer bits than their entries use; the entries are believed.
    bits = max(described[2], int(entries.max()).bit_length())
    return LookupTable(first, entries, bits)


def _entries(raw: list[Any], count: int, big_endian: bool) -> npt.NDArray[np.uint16] | None:
    """Return the entries as uint16 [<= count]; 8-bit entries may be packed two to a word."""
    if len(raw) == 1 and isinstance(raw[0], bytes):
        content = raw[0]
        if len(content) < 2 * count and len(content) <= count + 1:
            words = np.frombuffer(content, np.uint8)
        else:
            words = np.frombuffer(content[: len(content) // 2 * 2], ">u2" if big_endian else "<u2")
    else:
        words = np.asarray([int(value) & 0xFFFF for value in raw], dtype=np.uint16)
        if count > 1 and len(words) == (count + 1) // 2:
            words = words.astype("<u2").view(np.uint8)
    return words[:count].astype(np.uint16) if len(words) else None


def palette_picture(
    stored: npt.NDArray[Any], dataset: Dataset, *, signed: bool
) -> npt.NDArray[np.uint8]:
    """Colour the stored values of a PALETTE COLOR image.

    Parameters
    ----------
    stored : int [H, W]
    dataset : Dataset
        With plain or segmented (PS3.3 C.7.9.2) palettes; alpha is left out.
    signed : bool
        Pixel Representation 1.

    Returns
    -------
    uint8 [H, W, 3]

    Raises
    ------
    PixelError
        A palette is missing or unusable.
    """
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        coloured = apply_color_lut(stored, dataset)[..., :3]
        return (coloured >> 8 if coloured.dtype.itemsize == 2 else coloured).astype(np.uint8)
    _, little = dataset.original_encoding
    tables = []
    for colour in ("Red", "Green", "Blue"):
        table = read_lookup_table(
            dataset,
            f"{colour}PaletteColorLookupTableDescriptor",
            f"{colour}PaletteColorLookupTableData",
            signed=signed,
            big_endian=little is False,
        )
        if table is None:
            raise PixelError(f"the {colour.lower()} palette is missing or unusable")
        tables.append(table)
    # Descriptors that say 16 bits are also found over 8-bit entries: the entries are believed.
    shift = 8 if any(int(table.entries.max()) > 255 for table in tables) else 0
    return np.stack([table.apply(stored) >> shift for table in tables], axis=-1).astype(np.uint8)
