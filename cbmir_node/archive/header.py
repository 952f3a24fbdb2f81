"""The header of a DICOM file: what identifies it, and the attributes that describe it."""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cbmir_node.archive.structure import FIRST_PIXEL_DATA_TAG, check_structure
from cbmir_node.errors import (
    IdentifierError,
    InvalidObjectError,
    NotAnObjectError,
    OutOfSpaceError,
)

_UID_PATTERN = re.compile(r"[0-9]+(\.[0-9]+)*")
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SPECIFIC_CHARACTER_SET = 0x00080005
_INFLATE_CHUNK = 1 << 20
_MAX_INFLATION = 200
_ALWAYS_INFLATED_BYTES = 256 << 20
_DEFLATED_PREFIX = "1.2.840.10008.1.2.1.99"
_REFERENCED_PIXELS = {
    "1.2.840.10008.1.2.4.94",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
}


@dataclass(frozen=True)
class ObjectHeader:
    """What a validated object says of itself.

    Attributes
    ----------
    transfer_syntax_uid : str
        How the data set is encoded.
    dataset_offset : int
        Where the data set begins in the file.
    has_pixels : bool
        Whether it carries Pixel Data of any kind.
    attributes : Dataset
        The requested attributes and the identifiers.
    """

    transfer_syntax_uid: str
    dataset_offset: int
    has_pixels: bool
    attributes: Dataset

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the data set."""
        return str(self.attributes.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID of the data set."""
        return str(self.attributes.SOPClassUID)

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID of the data set."""
        return str(self.attributes.StudyInstanceUID)


@dataclass(frozen=True)
class EncodedDataSet:
    """The bytes of a data set.

    Attributes
    ----------
    handle : BinaryIO
        Has them from `start` to its end.
    start : int
        Offset of the first element.
    file_offset : int
        Where the data set, deflated or not, begins in the file it is from.
    transfer_syntax : UID
        As the file names it.
    """

    handle: BinaryIO
    start: int
    file_offset: int
    transfer_syntax: UID

    @property
    def syntax(self) -> UID:
        """How elements are encoded: private transfer syntaxes are taken for Explicit VR LE."""
        known = self.transfer_syntax.is_transfer_syntax
        return self.transfer_syntax if known else ExplicitVRLittleEndian


def is_uid(text: str) -> bool:
    """Tell whether `text` is a UID (PS3.5 section 9.1).

    Components with leading zeros are let through: they are common in practice and harmless.
    """
    return len(text) <= 64 and _UID_PATTERN.fullmatch(text) is not None


def read_header(
    path: Path, keywords: Sequence[str], max_bytes: int = 1 << 32, scratch: Path | None = None
) -> ObjectHeader:
    """Validate a DICOM file from its first byte to its last and read its header.

    Files without preamble and file meta information are accepted when the bytes parse as a data
    set: some archives keep them so.

    Parameters
    ----------
    path : Path
        The file.
    keywords : sequence of str
        Attributes to read besides the identifiers.
    max_bytes : int
        Limit for an inflated data set. Above 256 MiB it may not be larger than 200 times its
        deflated size either: images stay below that, and a bomb reaches 1000.
    scratch : Path, optional
        Folder on whose disk a deflated data set is inflated for a while; the system's temporary
        folder, which may lie in memory, by default.

    Raises
    ------
    InvalidObjectError
        Not DICOM, truncated, without the UIDs it needs, or without a transfer syntax that says
        how to read it.
    OutOfSpaceError
        The disk is too full to inflate it.
    """
    with open_data_set(path, max_bytes, scratch) as encoded:
        return _parse(encoded, keywords)


@contextlib.contextmanager
def open_data_set(
    path: Path, max_bytes: int = 1 << 32, scratch: Path | None = None
) -> Iterator[EncodedDataSet]:
    """Open the data set of a DICOM file, inflated where it is deflated; see `read_header`."""
    with path.open("rb") as handle:
        transfer_syntax, offset = _encoding(handle)
        if is_deflated(transfer_syntax):
            with _inflated(handle, offset, max_bytes, scratch) as body:
                yield EncodedDataSet(body, 0, offset, transfer_syntax)
        else:
            yield EncodedDataSet(handle, offset, offset, transfer_syntax)


def is_deflated(transfer_syntax_uid: str) -> bool:
    """Tell whether data sets in a transfer syntax are deflated as a whole (PS3.5 A.5)."""
    return transfer_syntax_uid.startswith(_DEFLATED_PREFIX)


def _encoding(handle: BinaryIO) -> tuple[UID, int]:
    """Return transfer syntax and offset of the data set."""
    head = handle.read(132)
    if head[128:] != b"DICM":
        if head[:2] != b"\x02\x00":
            return _guessed_encoding(head)
        handle.seek(0)  # file meta information without the preamble before it
    try:
        meta = read_dataset(
            handle,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        )
        syntax = UID(str(meta.get("TransferSyntaxUID", "") or ""))
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise InvalidObjectError(f"the file meta information is damaged: {error}") from error
    offset = handle.tell()
    if _begins_directory(handle.read(4)):
        raise NotAnObjectError("a media directory (DICOMDIR), not an object of its own")
    if not syntax:
        raise InvalidObjectError(
            "the file meta information names no Transfer Syntax UID, so its data set cannot be read"
        )
    if syntax in _REFERENCED_PIXELS:
        raise InvalidObjectError(f"{syntax.name} keeps the pixels elsewhere and is not supported")
    return syntax, offset


def _begins_directory(tag: bytes) -> bool:
    """Tell whether a data set's first tag is one of a file-set's root (PS3.3 F.3.2.1).

    Group 0004 alone does not: objects copied from media keep single elements of it.
    """
    orders = ("<HH", ">HH") if len(tag) == 4 else ()
    return any(
        group == 0x0004 and 0x1130 <= element <= 0x1220
        for group, element in (struct.unpack(order, tag) for order in orders)
    )


def _guessed_encoding(head: bytes) -> tuple[UID, int]:
    """Recognise a bare data set by its first element, which must be of group 0008."""
    if head[:2] == b"\x08\x00" and len(head) >= 8:
        return (ExplicitVRLittleEndian if head[4:6].isalpha() else ImplicitVRLittleEndian), 0
    if head[:2] == b"\x00\x08" and head[4:6].isalpha():
        return ExplicitVRBigEndian, 0
    raise NotAnObjectError("not a DICOM file")


def _inflated(handle: BinaryIO, offset: int, max_bytes: int, scratch: Path | None) -> BinaryIO:
    """Return the inflated data set in a temporary file; bounded, or a bomb would fill the disk."""
    deflated_bytes = handle.seek(0, io.SEEK_END) - offset
    limit = min(max_bytes, max(_ALWAYS_INFLATED_BYTES, _MAX_INFLATION * deflated_bytes))
    handle.seek(offset)
    with contextlib.ExitStack() as on_error:
        try:
            body = cast(BinaryIO, on_error.enter_context(tempfile.TemporaryFile(dir=scratch)))
            _inflate(handle, body, limit)
            body.flush()
        except zlib.error as error:
            raise InvalidObjectError(f"the deflated data set is damaged: {error}") from error
        except OSError as error:
            raise OutOfSpaceError(
                f"cannot inflate the data set into {scratch or tempfile.gettempdir()}: "
                f"{error.strerror}; free some space there"
            ) from error
        on_error.pop_all()  # the caller closes it
    return body


def _inflate(deflated: BinaryIO, body: BinaryIO, limit: int) -> None:
    """Inflate the rest of a file into another (RFC 1951, PS3.5 A.5)."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflate.eof:
        chunk = inflate.unconsumed_tail or deflated.read(_INFLATE_CHUNK)
        if not chunk:
            raise InvalidObjectError("the deflated data set is truncated")
        body.write(inflate.decompress(chunk, _INFLATE_CHUNK))
        if body.tell() > limit:
            raise InvalidObjectError(f"the data set inflates to more than {limit} bytes")


def _parse(encoded: EncodedDataSet, keywords: Sequence[str]) -> ObjectHeader:
    handle, start, syntax = encoded.handle, encoded.start, encoded.syntax
    handle.seek(0, io.SEEK_END)
    if handle.tell() <= start:
        raise InvalidObjectError("the data set is empty")
    tags = {cast(int, tag_for_keyword(keyword)) for keyword in (*_IDENTIFIERS, *keywords)}
    with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        structure = check_structure(
            view, start, syntax, frozenset({*tags, _SPECIFIC_CHARACTER_SET})
        )
    attributes = _attributes(handle, start, structure.attributes_end, syntax, tags)
    _check_identifiers(attributes)
    return ObjectHeader(
        str(encoded.transfer_syntax), encoded.file_offset, structure.has_pixels, attributes
    )


def _attributes(handle: BinaryIO, start: int, end: int, syntax: UID, tags: set[int]) -> Dataset:
    """Read wanted attributes; pydicom must not go through the long sequences behind them."""
    handle.seek(start)
    try:
        return read_dataset(
            handle,
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax.is_little_endian,
            bytelength=end - start,
            stop_when=lambda tag, _vr, _length: tag >= FIRST_PIXEL_DATA_TAG,
            specific_tags=list(tags),
        )
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise InvalidObjectError(f"the data set cannot be read: {error}") from error


def _check_identifiers(attributes: Dataset) -> None:
    for keyword in _IDENTIFIERS:
        text = str(attributes.get(keyword, "") or "").rstrip(" \0")
        if not text:
            raise IdentifierError(f"the object has no {keyword}")
        if not is_uid(text):
            raise IdentifierError(f"{keyword} is not a UID: {text[:64]!r}")
        setattr(attributes, keyword, text)
