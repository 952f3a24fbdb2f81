"""Headers of stored objects, read without their pixels and other large binary values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian

from cbmir_node.archive.header import EncodedDataSet
from cbmir_node.archive.store import Archive
from cbmir_node.errors import InvalidObjectError
from cbmir_node.imaging.data_set_source import VR_OF_PIXELS, DataSetSource, PixelHeader
from cbmir_node.imaging.element_encoding import UNDEFINED_LENGTH, byte_swapped
from cbmir_node.web.dicomweb.dicom_json import BULK_VRS, MOST_ELEMENTS, too_many_elements

_LARGE_BYTES = 1 << 20
_LONGEST_SEQUENCE = 16 << 20
_MOST_READS = 4 * MOST_ELEMENTS  # an element takes two to four
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # in either byte order
_PADDING = 0xFFFCFFFC  # of a file, not of the object (PS3.10 section 7.2)


class LargeValue(NamedTuple):
    """A binary value that was not read, and where its bytes are in the data set."""

    vr: str
    offset: int
    length: int


@dataclass(frozen=True)
class ReadHeader:
    """What was read of an object.

    Attributes
    ----------
    attributes : Dataset
        Before and behind the pixels, binary values in Little Endian; without `large` ones.
    pixels : PixelHeader or None
        The head of the pixel element.
    large : dict of int to LargeValue
        By tag.
    """

    attributes: Dataset
    pixels: PixelHeader | None
    large: dict[int, LargeValue]


def read_object_header(archive: Archive, relative: str) -> ReadHeader:
    """Read an object of the archive around its pixels.

    Raises
    ------
    InvalidObjectError, OSError
        The file is damaged or gone.
    """
    with archive.open_data_set(relative) as encoded:
        try:
            return _read(encoded)
        except InvalidObjectError:
            raise
        except Exception as error:  # pydicom raises many kinds on hostile bytes
            raise InvalidObjectError(f"the header cannot be read: {error}") from error


def _read(encoded: EncodedDataSet) -> ReadHeader:
    heads: list[PixelHeader] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag not in VR_OF_PIXELS:
            return False
        heads.append(PixelHeader(tag, vr or VR_OF_PIXELS[tag], length))
        return True

    encoded.handle.seek(encoded.start)
    attributes = _elements(encoded, at_pixels)
    if heads:
        _skip(encoded, heads[0])
        behind = _elements(encoded, lambda tag, _vr, _length: tag <= heads[0].tag)
        for element in behind.values():
            attributes[element.tag] = element
    attributes.pop(_PADDING, None)
    large = _complete(attributes, encoded.handle)
    _check_number_of_items(attributes)
    if not encoded.syntax.is_little_endian:
        attributes.walk(_swap_words)
    return ReadHeader(attributes, heads[0] if heads else None, large)


def _elements(encoded: EncodedDataSet, stop: Callable[[BaseTag, str | None, int], bool]) -> Dataset:
    little = encoded.syntax.is_little_endian
    return read_dataset(
        cast(BinaryIO, _CountedReads(encoded.handle)),
        is_implicit_VR=encoded.syntax == ImplicitVRLittleEndian,
        is_little_endian=little,
        stop_when=stop,
        defer_size=_LARGE_BYTES if little else None,  # what is swapped must be read
    )


def _skip(encoded: EncodedDataSet, pixels: PixelHeader) -> None:
    """Go behind the pixels, before whose header pydicom has stopped."""
    encoded.handle.seek(8 if encoded.syntax == ImplicitVRLittleEndian else 12, 1)
    if pixels.length == UNDEFINED_LENGTH:
        DataSetSource(encoded.handle, encoded.syntax).skip_fragments()
    else:
        encoded.handle.seek(pixels.length, 1)


class _CountedReads:
    """A file that gives up on a data set of very many elements, each of which takes a read."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._left = _MOST_READS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise too_many_elements()
        return self._handle.read(size)


def _check_number_of_items(attributes: Dataset) -> None:
    """Refuse very many items before they become objects of their own."""
    items = sum(
        element.value.count(item)
        for item in _ITEMS
        for element in attributes.values()
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes)
        if element.VR in ("SQ", "UN", None)
    )
    if items > MOST_ELEMENTS:
        raise too_many_elements()


def _complete(attributes: Dataset, handle: BinaryIO) -> dict[int, LargeValue]:
    """Take large binary values out of a header, and read other large values after all."""
    large = {}
    for tag, element in list(attributes.items()):
        if not isinstance(element, RawDataElement) or element.value is not None:
            continue
        if not 0 < element.length < 0xFFFFFFFF:
            continue
        vr = element.VR or _vr_of(tag)
        if vr in BULK_VRS:
            large[int(tag)] = LargeValue(vr, element.value_tell, element.length)
            del attributes[tag]
        elif element.length > _LONGEST_SEQUENCE:
            raise InvalidObjectError(f"the attribute {tag} has {element.length} bytes")
        else:
            handle.seek(element.value_tell)
            value = handle.read(element.length)
            attributes[tag] = element._replace(value=value)
    return large


def _vr_of(tag: int) -> str:
    try:
        vr = dictionary_VR(tag)
    except KeyError:  # private, or of a newer standard
        return "UN"
    return "OW" if " or " in vr else vr


def _swap_words(_dataset: Dataset, element: DataElement) -> None:
    """Bring binary values, which pydicom leaves as they are, to Little Endian."""
    if element.VR in ("OD", "OF", "OL", "OV", "OW"):
        element.value = byte_swapped(element.value or b"", element.VR)
