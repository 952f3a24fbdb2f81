"""A stored data set, read element by element around its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from pydicom.filereader import data_element_generator, read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cbmir_node.errors import PixelError
from cbmir_node.imaging.element_encoding import Element, encoding_of

PIXEL_DATA: Final = 0x7FE00010
VR_OF_PIXELS: Final = {0x7FE00008: "OF", 0x7FE00009: "OD", PIXEL_DATA: "OW"}
_SEQUENCE_END: Final = 0xFFFEE0DD


class PixelHeader(NamedTuple):
    """The head of the element with the pixels (PS3.5 section 7.1)."""

    tag: int
    vr: str
    length: int


@dataclass(frozen=True)
class DataSetSource:
    """A data set, opened at its first element."""

    file: BinaryIO
    transfer_syntax: str

    @property
    def is_little_endian(self) -> bool:
        """Whether numbers have their least significant byte first."""
        return encoding_of(self.transfer_syntax).little

    def read_to_pixels(self) -> tuple[list[Element], PixelHeader | None]:
        """Read the elements before the pixels and the header of the pixels, if there are any."""
        headers: list[PixelHeader] = []

        def stop(tag: int, vr: str | None, length: int) -> bool:
            if tag in VR_OF_PIXELS:
                headers.append(PixelHeader(tag, vr or VR_OF_PIXELS[tag], length))
            return tag in VR_OF_PIXELS

        elements = list(self._elements(stop))
        if not headers:
            return elements, None
        # pydicom has gone back to before the header
        is_implicit = encoding_of(self.transfer_syntax).implicit
        self.file.seek(8 if is_implicit else 12, 1)
        return elements, headers[0]

    def read_rest(self) -> list[Element]:
        """Read the elements that are left."""
        return list(self._elements(None))

    def skip_fragments(self) -> None:
        """Go behind encapsulated pixels."""
        for _ in self.items():
            pass

    def items(self) -> Iterator[int]:
        """Yield the length of each item of encapsulated pixels, the offset table's first.

        The file is at the item's value each time, and behind the pixels in the end (PS3.5 A.4).

        Raises
        ------
        PixelError
            They have no end.
        """
        while len(head := self.file.read(8)) == 8:
            group, number, length = struct.unpack("<HHL", head)
            if group << 16 | number == _SEQUENCE_END:
                return
            end = self.file.tell() + length
            yield length
            self.file.seek(end)
        raise PixelError("the encapsulated pixels have no end")

    def _elements(
        self, stop: Callable[[BaseTag, str | None, int], bool] | None
    ) -> Iterator[Element]:
        encoding = encoding_of(self.transfer_syntax)
        return data_element_generator(self.file, *encoding, stop_when=stop)


@contextmanager
def open_data_set(path: Path) -> Iterator[DataSetSource]:
    """Open a DICOM file (PS3.10) behind its file meta information; inflate it where needed."""
    with path.open("rb") as file:
        read_preamble(file, force=True)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        )
        syntax = str(meta.get("TransferSyntaxUID", ""))
        if syntax == DeflatedExplicitVRLittleEndian:
            yield DataSetSource(BytesIO(zlib.decompress(file.read(), -zlib.MAX_WBITS)), syntax)
        else:
            yield DataSetSource(file, syntax)
