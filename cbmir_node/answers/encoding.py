"""Stored objects in the transfer syntax that a receiver takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.imaging.decoder_pool import DecoderPool


class ObjectEncoder:
    """Provides files with objects; use it as a context manager.

    What was decompressed last is kept until something else is: when a receiver leaves meanwhile,
    the object is ready for the next association.

    Parameters
    ----------
    archive : Archive
        Where the files are.
    decoders : DecoderPool
        Decompress where it must be.
    give_up : callable, optional
        Asked while decompressing; True ends it with an error.
    """

    def __init__(
        self,
        archive: Archive,
        decoders: DecoderPool,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._archive = archive
        self._decoders = decoders
        self._give_up = give_up
        self._key: tuple[StoredObject, str] | None = None
        self._scratch: IncomingObject | None = None

    def __enter__(self) -> ObjectEncoder:
        return self

    def __exit__(self, *_error: object) -> None:
        self._discard()

    def is_ready(self, stored: StoredObject, syntax: str) -> bool:
        """Tell whether an object needs no decompression (any more)."""
        return syntax == stored.transfer_syntax_uid or self._key == (stored, syntax)

    def encoded(self, stored: StoredObject, syntax: str) -> tuple[Path, int]:
        """Return a file with the object in a transfer syntax, and where its data set begins.

        The file is there until the next call.

        Raises
        ------
        CbmirError, OSError
            Of these, only a `PixelError` that is no `DecoderDiedError` is the object's fault.
        """
        path = self._archive.path(stored.path)
        if syntax == stored.transfer_syntax_uid:
            return path, self._archive.read_header(path).dataset_offset
        if self._scratch is None or self._key != (stored, syntax):
            self._discard()
            self._scratch = self._decompressed(path, syntax)
            self._key = stored, syntax
        return self._scratch.path, 0

    def _decompressed(self, path: Path, syntax: str) -> IncomingObject:
        with self._decoders.lend(self._give_up) as decoder:
            # in the folder of receptions, which is on a disk with room and swept after a crash
            scratch = self._archive.receive()
            try:
                # those who decompress at the same time may together go into the reserve: it is
                # there for what takes room for a while
                room = self._archive.free_bytes() - self._archive.reserve_bytes
                decoder.transcode(path, syntax, scratch.path, room, self._give_up)
            except BaseException:
                scratch.discard()
                raise
        return scratch

    def _discard(self) -> None:
        if self._scratch is not None:
            self._scratch.discard()
        self._scratch = self._key = None
