"""The folder of received objects.

::

    ARCHIVE/incoming/…                     being written; swept when the node starts
    ARCHIVE/ab/<StudyInstanceUID>/<SOPInstanceUID>.<number>.dcm

``ab`` spreads the studies over 256 folders. The number is random: every reception has a file of
its own that nothing overwrites, and the catalogue says which one an instance has. A file that no
row names is a leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from cbmir_node import __version__
from cbmir_node.archive.header import ObjectHeader, read_header
from cbmir_node.durable import sync_folder
from cbmir_node.errors import ArchiveError, OutOfSpaceError

IMPLEMENTATION_CLASS_UID = UID("2.25.312870092836445113425119065513259998441")
IMPLEMENTATION_VERSION_NAME = f"CBMIR_{__version__}".replace(".", "")[:16]
_INCOMING = "incoming"
_PRESENCE = ".receiving"


@dataclass(frozen=True)
class StoredFile:
    """A durable file of the archive.

    Attributes
    ----------
    path : str
        Relative to the archive.
    content_sha256 : str
        Of the data set without file meta information: the same object sent twice has the same.
    """

    path: str
    size_bytes: int
    content_sha256: str


class IncomingObject:
    """An object that is being received into a temporary file of the archive's file system.

    Use it as a context manager: leaving the block removes the file unless it was kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        descriptor, name = tempfile.mkstemp(suffix=".part", dir=folder)
        # held while this process lives: a node that starts meanwhile must not sweep it away
        fcntl.flock(descriptor, fcntl.LOCK_EX)
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
        """Write preamble and file meta information (PS3.10 section 7.1)."""
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
        self._file.write(b"\0" * 128 + b"DICM" + buffer.getvalue())

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


class Archive:
    """Received objects on disk.

    Parameters
    ----------
    root : Path
        The folder.
    reserve_bytes : int
        Free space below which nothing more is accepted.
    max_object_bytes : int
        Largest object accepted.
    create : bool
        Make the folder when it is absent.

    Raises
    ------
    ArchiveError
        It is absent, or cannot be made.
    """

    def __init__(
        self,
        root: Path,
        reserve_bytes: int = 0,
        max_object_bytes: int = 1 << 32,
        *,
        create: bool = True,
    ) -> None:
        self.root = root
        self.reserve_bytes = reserve_bytes
        self.max_object_bytes = max_object_bytes
        self._incoming = root / _INCOMING
        self._making_folder = threading.Lock()
        if self._incoming.is_dir():
            return
        if not create:
            raise ArchiveError(
                f"the archive {root} is not there: is its disk mounted? If it is lost for good, "
                f"make the folder {self._incoming} to begin anew"
            )
        try:
            self._make()
        except OSError as error:
            raise ArchiveError(
                f"cannot create the archive {root}: {error.strerror}; choose another --data-dir"
            ) from error

    def _make(self) -> None:
        """Make the folders; ``incoming`` comes last and says that the others are there, synced."""
        self.root.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (self.root / f"{number:02x}").mkdir(exist_ok=True)
        sync_folder(self.root.parent)
        sync_folder(self.root)
        self._incoming.mkdir(exist_ok=True)

    def free_bytes(self) -> int:
        """Return the space left on the archive's file system."""
        return shutil.disk_usage(self.root).free

    def has_room(self) -> bool:
        """Tell whether the disk reserve is untouched."""
        return self.free_bytes() >= self.reserve_bytes

    def receive(self) -> IncomingObject:
        """Begin to receive an object.

        Raises
        ------
        OutOfSpaceError
            The disk reserve is reached.
        """
        if not self.has_room():
            raise OutOfSpaceError(
                f"less than {self.reserve_bytes >> 20} MiB are free: nothing more is stored"
            )
        try:
            return IncomingObject(self._incoming, self.max_object_bytes)
        except OSError as error:
            raise OutOfSpaceError(f"cannot write to the archive: {error.strerror}") from error

    def keep(
        self, incoming: IncomingObject, study_instance_uid: str, sop_instance_uid: str
    ) -> StoredFile:
        """Make a received object durable: sync, rename, sync the folder.

        Both UIDs must have been validated: they become the path.
        """
        digest = incoming.finish()
        size = incoming.sync()
        folder = self.root / _spread(study_instance_uid) / study_instance_uid
        folder.parent.mkdir(exist_ok=True)  # in case only ``incoming`` was made by hand
        with self._making_folder:  # whoever finds the folder may rely on its being durable
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                sync_folder(folder.parent)
        target = folder / f"{sop_instance_uid}.{secrets.token_hex(6)}.dcm"
        incoming.path.rename(target)
        sync_folder(folder)
        return StoredFile(str(target.relative_to(self.root)), size, digest)

    def read_header(self, path: Path, keywords: Sequence[str] = ()) -> ObjectHeader:
        """Validate a file, within this archive's limits; see `header.read_header`."""
        return read_header(path, keywords, self.max_object_bytes, self._incoming)

    def content_sha256(self, relative: str) -> str:
        """Return the digest of a stored file's data set, as `StoredFile.content_sha256` has it.

        Raises
        ------
        InvalidObjectError, OSError
            The file is damaged or gone.
        """
        path = self.path(relative)
        offset = self.read_header(path).dataset_offset
        with path.open("rb") as handle:
            handle.seek(offset)
            return hashlib.file_digest(handle, "sha256").hexdigest()

    def path(self, relative: str) -> Path:
        """Return the absolute path of a stored file."""
        return self.root / relative

    def remove(self, relative: str) -> None:
        """Remove a stored file, not its folder: another object may be on its way there."""
        self.path(relative).unlink(missing_ok=True)

    def announce_reception(self) -> BinaryIO:
        """Tell other processes that this one may be storing objects, until the result is closed."""
        presence = (self.root / _PRESENCE).open("ab")
        fcntl.flock(presence, fcntl.LOCK_SH)
        return presence

    def is_receiving(self) -> bool:
        """Tell whether any process on this machine may be storing objects right now."""
        with (self.root / _PRESENCE).open("ab") as presence:
            try:
                fcntl.flock(presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def sweep(self) -> int:
        """Remove what interrupted receptions left behind; return the number of files.

        What another process is receiving at this moment stays.
        """
        return sum(_swept(path) for path in self._incoming.glob("*.part"))

    def files(self) -> Iterator[str]:
        """Iterate over the relative paths of all stored files."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/*/*.dcm"):
            yield str(path.relative_to(self.root))


def _swept(path: Path) -> bool:
    """Remove a temporary file unless the process that writes it lives; tell whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _spread(study_instance_uid: str) -> str:
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:2]
