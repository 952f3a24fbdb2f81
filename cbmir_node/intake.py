"""The one way into the node: bytes → validated → durable file → catalogue row.

C-STORE, ``import`` and later STOW-RS all end here, so that an object is treated alike however it
came, and is acknowledged only once it is safe.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cbmir_node.archive.header import ObjectHeader, read_header
from cbmir_node.archive.store import Archive, IncomingObject, StoredFile, dataset_sha256
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.group_commit import GroupCommit, StoreOutcome, name_file
from cbmir_node.catalog.records import RECORD_KEYWORDS, make_record
from cbmir_node.errors import IdentifierError, InvalidObjectError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """Proof that an object is safe."""

    sop_instance_uid: str
    outcome: StoreOutcome


class Intake:
    """Receives objects; safe to use from many threads.

    Parameters
    ----------
    archive : Archive
        Where files go.
    catalog : Catalog
        Where rows go.
    largest_group : int
        Objects that may share one commit.
    duplicates : {"keep", "replace"}
        What wins when a known SOP Instance UID arrives with different content.
    """

    def __init__(
        self,
        archive: Archive,
        catalog: Catalog,
        largest_group: int = 128,
        duplicates: Literal["keep", "replace"] = "keep",
    ) -> None:
        self.archive = archive
        self._catalog = catalog
        self._group_commit = GroupCommit(catalog, largest_group, duplicates)

    def close(self) -> None:
        """Finish what is being written."""
        self._group_commit.close()

    def accept(
        self,
        incoming: IncomingObject,
        *,
        source: str,
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> Receipt:
        """Validate a completely received object and make it durable.

        Parameters
        ----------
        incoming : IncomingObject
            Written, not yet kept; the caller discards it afterwards in any case.
        source : str
            Calling AE title, or how else it came.
        sop_class_uid, sop_instance_uid : str, optional
            What the sender announced; the data set must say the same (PS3.7 9.1.1.1).

        Raises
        ------
        InvalidObjectError
            It is no storable DICOM object.
        OutOfSpaceError
            The disk is full.
        CatalogError
            The database refused it.
        """
        incoming.finish()
        header = read_header(incoming.path, RECORD_KEYWORDS, self.archive.max_object_bytes)
        _must_agree("SOP Class UID", sop_class_uid, header.sop_class_uid)
        _must_agree("SOP Instance UID", sop_instance_uid, header.sop_instance_uid)
        return self._keep(incoming, header, source)

    def accept_file(self, path: Path, *, source: str = "import") -> Receipt:
        """Copy a DICOM file into the archive; the file itself is left alone.

        Raises
        ------
        InvalidObjectError
            It is no storable DICOM object.
        OutOfSpaceError
            The disk is full, or its reserve is reached.
        CatalogError
            The database refused it.
        """
        header = read_header(path, RECORD_KEYWORDS, self.archive.max_object_bytes)
        with self.archive.receive() as incoming:
            incoming.begin(
                header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, ""
            )
            with path.open("rb") as original:
                original.seek(header.dataset_offset)
                shutil.copyfileobj(original, incoming, 1 << 20)
            return self._keep(incoming, header, source)

    def adopt(self, relative: str) -> Receipt:
        """Catalogue a file that is in the archive already; remove it when its object is known.

        Such a file was stored but not acknowledged before the node was killed.
        """
        path = self.archive.path(relative)
        header = read_header(path, RECORD_KEYWORDS, self.archive.max_object_bytes)
        digest = dataset_sha256(path, header.dataset_offset)
        return self._commit(StoredFile(relative, path.stat().st_size, digest), header, "repair")

    def _keep(self, incoming: IncomingObject, header: ObjectHeader, source: str) -> Receipt:
        stored = self.archive.keep(incoming, header.study_instance_uid, header.sop_instance_uid)
        return self._commit(stored, header, source)

    def _commit(self, stored: StoredFile, header: ObjectHeader, source: str) -> Receipt:
        uid = header.sop_instance_uid
        record = make_record(
            header.attributes,
            transfer_syntax_uid=header.transfer_syntax_uid,
            has_pixels=header.has_pixels,
            path=stored.path,
            size_bytes=stored.size_bytes,
            content_sha256=stored.content_sha256,
            source=source,
            received_at=time.time(),
        )
        # When the commit fails the file stays: a lost connection does not tell whether the row was
        # written. `verify` finds left-overs.
        committed = self._group_commit.commit(record)
        unused = committed.unused_path
        if committed.known_path is not None and self._mends(committed.known_path, stored, uid):
            unused = committed.known_path
        if unused is not None:
            self.archive.remove(unused)
        _log.debug("%s %s from %s", uid, committed.outcome.value, source)
        return Receipt(uid, committed.outcome)

    def _mends(self, known_path: str, stored: StoredFile, sop_instance_uid: str) -> bool:
        """Put a duplicate's file in the place of the first one's where that is lost or damaged."""
        if self._is_whole(known_path, stored):
            return False
        return name_file(
            self._catalog, sop_instance_uid, known_path, stored.path, stored.size_bytes
        )

    def _is_whole(self, relative: str, expected: StoredFile) -> bool:
        """Tell whether a file has the expected content."""
        path = self.archive.path(relative)
        try:
            found = dataset_sha256(path, read_header(path, []).dataset_offset)
        except (InvalidObjectError, OSError):
            return False
        return found == expected.content_sha256


def _must_agree(name: str, announced: str | None, actual: str) -> None:
    if announced is not None and announced != actual:
        raise IdentifierError(f"{name} of command and data set differ: {announced}, {actual}")
