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

from cbmir_node.archive.header import ObjectHeader
from cbmir_node.archive.store import Archive, IncomingObject, StoredFile
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.group_commit import GroupCommit
from cbmir_node.catalog.records import RECORD_KEYWORDS, make_record
from cbmir_node.catalog.registration import Duplicates, StoreOutcome
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
        self._duplicates: Duplicates = duplicates
        self._presence = archive.announce_reception()
        self._group_commit = GroupCommit(catalog, largest_group)

    def close(self) -> None:
        """Finish what is being written."""
        self._group_commit.close()
        self._presence.close()

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
        header = self.archive.read_header(incoming.path, RECORD_KEYWORDS)
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
        header = self.archive.read_header(path)
        with self.archive.receive() as incoming:
            incoming.begin(
                header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, ""
            )
            with path.open("rb") as original:
                original.seek(header.dataset_offset)
                shutil.copyfileobj(original, incoming, 1 << 20)
            # what was copied is validated, not what is there: the file may still be being written
            return self.accept(
                incoming,
                source=source,
                sop_class_uid=header.sop_class_uid,
                sop_instance_uid=header.sop_instance_uid,
            )

    def adopt(self, relative: str) -> Receipt:
        """Catalogue a file that is in the archive already; remove it when its object is known.

        Such a file was stored but not acknowledged before the node was killed.
        """
        path = self.archive.path(relative)
        header = self.archive.read_header(path, RECORD_KEYWORDS)
        digest = self.archive.content_sha256(relative)
        return self._commit(StoredFile(relative, path.stat().st_size, digest), header, "repair")

    def _keep(self, incoming: IncomingObject, header: ObjectHeader, source: str) -> Receipt:
        stored = self.archive.keep(incoming, header.study_instance_uid, header.sop_instance_uid)
        return self._commit(stored, header, source)

    def _commit(self, stored: StoredFile, header: ObjectHeader, source: str) -> Receipt:
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
        done = self._group_commit.commit(record, self._duplicates)
        if done.kept_path is not None and not self._is_whole(done.kept_path, done.kept_sha256):
            # the file that was to stay is lost or damaged: this one is the only copy
            done = self._group_commit.commit(record, "mend")
        if done.unused_path is not None:
            self.archive.remove(done.unused_path)
        _log.debug("%s %s from %s", header.sop_instance_uid, done.outcome.value, source)
        return Receipt(header.sop_instance_uid, done.outcome)

    def _is_whole(self, relative: str, content_sha256: str | None) -> bool:
        """Tell whether a stored file is there and has its content."""
        try:
            return self.archive.content_sha256(relative) == content_sha256
        except (InvalidObjectError, OSError):
            return False


def _must_agree(name: str, announced: str | None, actual: str) -> None:
    if announced is not None and announced != actual:
        raise IdentifierError(f"{name} of command and data set differ: {announced}, {actual}")
