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
import errno
import fcntl
import hashlib
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cbmir_node.archive.header import EncodedDataSet, ObjectHeader, open_data_set, read_header
from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.durable import sync_folder
from cbmir_node.errors import ArchiveError, OutOfSpaceError

_INCOMING = "incoming"
_PRESENCE = ".receiving"
_FOLDER_TRIES = 20


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

    def new_path(self, study_instance_uid: str, sop_instance_uid: str) -> str:
        """Return a path, relative to the archive, that no file has or ever had.

        Both UIDs must have been validated.
        """
        name = f"{sop_instance_uid}.{secrets.token_hex(6)}.dcm"
        return f"{_spread(study_instance_uid)}/{study_instance_uid}/{name}"

    def keep(self, incoming: IncomingObject, relative: str) -> StoredFile:
        """Make a received object durable: sync, rename, sync the folder.

        Parameters
        ----------
        incoming : IncomingObject
            Completely written.
        relative : str
            Where it goes, from `new_path`.
        """
        digest = incoming.finish()
        size = incoming.sync()
        target = self.path(relative)
        for _ in range(_FOLDER_TRIES):
            self._make_folder(target.parent)
            # whoever removes the last file of a study may remove its folder at this moment
            with contextlib.suppress(FileNotFoundError):
                incoming.path.rename(target)
                break
        else:
            raise FileNotFoundError(errno.ENOENT, "does not stay", str(target.parent))
        sync_folder(target.parent)
        return StoredFile(relative, size, digest)

    def _make_folder(self, folder: Path) -> None:
        folder.parent.mkdir(exist_ok=True)  # in case only ``incoming`` was made by hand
        with self._making_folder:  # whoever finds the folder may rely on its being durable
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                sync_folder(folder.parent)

    def read_header(self, path: Path, keywords: Sequence[str] = ()) -> ObjectHeader:
        """Validate a file, within this archive's limits; see `header.read_header`."""
        return read_header(path, keywords, self.max_object_bytes, self._incoming)

    def open_data_set(self, relative: str) -> AbstractContextManager[EncodedDataSet]:
        """Open the data set of a stored file, inflated, within this archive's limits."""
        return open_data_set(self.path(relative), self.max_object_bytes, self._incoming)

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
        """Remove a stored file that was of no use from the beginning, not its folder."""
        self.path(relative).unlink(missing_ok=True)

    def remove_for_good(self, relative: Sequence[str]) -> None:
        """Remove stored files so that no power cut brings them back, and folders empty by that."""
        folders = set()
        for path in map(self.path, relative):
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders):
            with contextlib.suppress(FileNotFoundError):  # somebody else removed its last file
                sync_folder(folder)
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

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
