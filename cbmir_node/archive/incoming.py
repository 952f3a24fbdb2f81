"""An object on its way into the archive."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Self

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from cbmir_node import __version__
from cbmir_node.errors import OutOfSpaceError

IMPLEMENTATION_CLASS_UID = UID("2.25.312870092836445113425119065513259998441")
IMPLEMENTATION_VERSION_NAME = f"CBMIR_{__version__}".replace(".", "")[:16]


class IncomingObject:
    """An object that is being received into a temporary file of the archive's file system.

    Use it as a context manager: leaving the block removes the file unless it was kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        while True:
            descriptor, name = tempfile.mkstemp(suffix=".part", dir=folder)
            # held while this process lives: another one that sweeps must not take it away
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # it was swept before it was locked
        self._file = os.fdopen(descriptor, "wb")
        self.path = Path(name)
        self._digest = hashlib.sha256()
        self._left = max_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.discard()

    def begin(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str
    ) -> None:
        """Write preamble and file meta information."""
        self._file.write(file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid, source))

    def write(self, data: bytes | memoryview) -> None:
        """Append encoded data set bytes."""
        self._left -= len(data)
        if self._left < 0:
            raise OutOfSpaceError("the object is larger than archive.max_object_mib allows")
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise OutOfSpaceError(f"cannot write to the archive: {error.strerror}") from error

    def finish(self) -> str:
        """Push everything to the operating system; return the content's SHA-256."""
        try:
            self._file.flush()
        except OSError as error:
            raise OutOfSpaceError(f"cannot write to the archive: {error.strerror}") from error
        return self._digest.hexdigest()

    def sync(self) -> int:
        """Wait until the data are on the disk; return the file's size in bytes."""
        os.fdatasync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def discard(self) -> None:
        """Close and remove the temporary file; harmless after it was kept."""
        with contextlib.suppress(OSError):  # a full disk may refuse the last flush
            self._file.close()
        self.path.unlink(missing_ok=True)


def file_head(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str = ""
) -> bytes:
    """Return what a file has before its data set (PS3.10 section 7.1).

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        Of the data set.
    source : str
        AE title of who sent it.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    if source:
        meta.SourceApplicationEntityTitle = source[:16]
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + buffer.getvalue()
