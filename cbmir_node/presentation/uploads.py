"""Files on their way in, few at a time and never into the disk reserve."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from cbmir_node.archive.store import Archive
from cbmir_node.errors import BusyError, OutOfSpaceError

MOST_UPLOADS: Final = 16
"""Files that are received at the same time."""

_RESERVE_CHECK_BYTES: Final = 16 << 20


class Upload:
    """A file that grows.

    Attributes
    ----------
    path : Path
        Its file.
    size : int
        Bytes written so far.
    """

    def __init__(self, path: Path, file: IO[bytes], uploads: Uploads) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._uploads = uploads
        self._checked = 0

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes.

        Raises
        ------
        OutOfSpaceError
            The disk, or its reserve, is reached.
        """
        rest = memoryview(data)
        try:
            while rest:  # without a buffer a write may take a part: when the disk is almost full
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OutOfSpaceError(f"the file cannot be taken: {error.strerror}") from error
        self.size += len(data)
        if self.size - self._checked >= _RESERVE_CHECK_BYTES:
            self._checked = self.size
            self._uploads.check_room()


class Uploads:
    """Lends files to write into; thread-safe.

    Parameters
    ----------
    folder : Path
        For the files.
    archive : Archive
        Whose disk reserve is kept.
    """

    def __init__(self, folder: Path, archive: Archive) -> None:
        self._folder = folder
        self._reserve = archive.reserve_bytes
        self._places = threading.Semaphore(MOST_UPLOADS)

    @contextmanager
    def receive(self) -> Iterator[Upload]:
        """Lend an empty file; it is removed in the end.

        Raises
        ------
        OutOfSpaceError
            The disk reserve is reached.
        BusyError
            There are `MOST_UPLOADS` already.
        """
        self.check_room()
        if not self._places.acquire(blocking=False):
            raise BusyError("many files are being sent already; send this one again in a moment")
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", buffering=0) as file:
                yield Upload(Path(file.name), file, self)
        finally:
            self._places.release()

    def check_room(self) -> None:
        """Raise an `OutOfSpaceError` when the disk reserve is reached."""
        if shutil.disk_usage(self._folder).free < self._reserve:
            raise OutOfSpaceError(f"less than {self._reserve >> 20} MiB are free: no file is taken")
