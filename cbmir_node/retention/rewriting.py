"""Writes a stored file anew with other values of some attributes, everything else as it was."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from typing import Protocol

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

from cbmir_node.archive.header import EncodedDataSet, is_deflated
from cbmir_node.archive.store import Archive, StoredFile
from cbmir_node.catalog.reception.records import attribute_text
from cbmir_node.errors import InvalidObjectError

_PIXELS = 0x7FE00000
_BEHIND_STUDY = 0x00210000
"""Everything that can be changed lies before: groups 0008, 0010 and 0020."""
_UTF_8 = "ISO_IR 192"


class _Writable(Protocol):
    def write(self, data: bytes) -> object: ...


class _Deflating:
    """Deflates what is written to it (RFC 1951, PS3.5 A.5)."""

    def __init__(self, target: _Writable) -> None:
        self._target = target
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._length = 0

    def write(self, data: bytes) -> None:
        self._put(self._deflate.compress(data))

    def close(self) -> None:
        self._put(self._deflate.flush())
        if self._length % 2:
            self._target.write(b"\0")

    def _put(self, data: bytes) -> None:
        self._length += len(data)
        self._target.write(data)


def has_values(archive: Archive, relative: str, values: Mapping[str, str]) -> bool:
    """Tell whether a stored file has these values of attributes already.

    Parameters
    ----------
    archive : Archive
    relative : str
        The file.
    values : mapping of str to str
        Keyword to value, as the catalogue writes it.
    """
    attributes = archive.read_header(archive.path(relative), list(values)).attributes
    return all(attribute_text(attributes, keyword) == text for keyword, text in values.items())


def rewrite(archive: Archive, relative: str, values: Mapping[str, str], target: str) -> StoredFile:
    """Write a file's object to `target` with other values; the file itself is left alone.

    Pixel data and whatever else follows the changed attributes are copied byte by byte. Where a
    value is not ASCII, and the object's character set is not UTF-8, its texts are brought to UTF-8.

    Parameters
    ----------
    archive : Archive
    relative, target : str
        Files of the archive; `target` from `Archive.new_path`.
    values : mapping of str to str
        Keyword to value; an empty one empties the attribute where the object has it.

    Raises
    ------
    InvalidObjectError
        The file is damaged, or cannot be written so that it has the values.
    OutOfSpaceError
        The disk is full, or its reserve is reached.
    """
    header = archive.read_header(archive.path(relative))
    with archive.open_data_set(relative) as encoded, archive.receive() as incoming:
        incoming.begin(
            header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, ""
        )
        if is_deflated(header.transfer_syntax_uid):
            deflating = _Deflating(incoming)
            _write_changed(encoded, values, deflating)
            deflating.close()
        else:
            _write_changed(encoded, values, incoming)
        incoming.finish()
        after = archive.read_header(incoming.path, list(values)).attributes
        for keyword, text in values.items():
            if attribute_text(after, keyword) != text:
                raise InvalidObjectError(f"{keyword} cannot be changed in {relative}")
        return archive.keep(incoming, target)


def _write_changed(encoded: EncodedDataSet, values: Mapping[str, str], target: _Writable) -> None:
    plain = all(text.isascii() for text in values.values())
    implicit = encoded.syntax == ImplicitVRLittleEndian
    little = encoded.syntax.is_little_endian
    head = _head(encoded, _BEHIND_STUDY)
    if not plain and _UTF_8 not in str(head.get("SpecificCharacterSet", "")):
        head = _head(encoded, _PIXELS)
        try:
            head.decode()
        except Exception as error:  # pydicom raises many kinds on texts in no character set
            raise InvalidObjectError(f"its texts cannot be brought to UTF-8: {error}") from error
        head.SpecificCharacterSet = _UTF_8
    for keyword, text in values.items():
        if text or keyword in head:
            setattr(head, keyword, text)
    written = DicomBytesIO()
    written.is_implicit_VR, written.is_little_endian = implicit, little
    try:
        write_dataset(written, head)
    except Exception as error:  # pydicom raises many kinds on values that break their VR
        raise InvalidObjectError(f"the object cannot be written anew: {error}") from error
    target.write(written.getvalue())
    shutil.copyfileobj(encoded.handle, target, 1 << 20)  # from where reading stopped


def _head(encoded: EncodedDataSet, stop: int) -> Dataset:
    """Read the elements before a tag."""
    encoded.handle.seek(encoded.start)
    try:
        return read_dataset(
            encoded.handle,
            is_implicit_VR=encoded.syntax == ImplicitVRLittleEndian,
            is_little_endian=encoded.syntax.is_little_endian,
            stop_when=lambda tag, _vr, _length: tag >= stop,
        )
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise InvalidObjectError(f"the data set cannot be read: {error}") from error
