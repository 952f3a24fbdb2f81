"""The one way into the node: bytes → validated → durable file → catalogue row.

C-STORE, STOW-RS and ``import`` all end here, so that an object is treated alike however it
came, and is acknowledged only once it is safe.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from cbmir_node.archive.header import ObjectHeader
from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive, StoredFile
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.reception.group_commit import GroupCommit
from cbmir_node.catalog.reception.records import RECORD_KEYWORDS, make_record
from cbmir_node.catalog.reception.registration import REPAIR, Duplicates, StoreOutcome
from cbmir_node.catalog.retention.removal import remove_empty_series
from cbmir_node.catalog.retention.tombstones import bury_objects
from cbmir_node.config import RetentionSettings
from cbmir_node.errors import (
    CatalogError,
    IdentifierError,
    InvalidObjectError,
    NotAuthorizedError,
    RejectedObjectError,
)
from cbmir_node.retention.rejection_notes import (
    KEY_OBJECT_SELECTION,
    RejectionNote,
    read_rejection_note,
)
from cbmir_node.retention.removal import finish_removals

_AS_CONFIGURED = RetentionSettings()

_log = logging.getLogger(__name__)


class Destinations(Protocol):
    """Tells which AE titles an object is to be sent on to."""

    def __call__(self, source: str, modality: str, *, fetched: bool) -> tuple[str, ...]:
        """Return them; `fetched`: the node got the object by itself, nobody sent it."""


def _nowhere(source: str, modality: str, *, fetched: bool) -> tuple[str, ...]:
    return ()


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
    destinations : Destinations
        Where new objects are sent on to; each is queued in the transaction that enters it.
    retention : RetentionSettings
        Whether rejection notes take effect, and whether pixels are kept once embedded.
    """

    def __init__(
        self,
        archive: Archive,
        catalog: Catalog,
        largest_group: int = 128,
        duplicates: Literal["keep", "replace"] = "keep",
        destinations: Destinations = _nowhere,
        retention: RetentionSettings = _AS_CONFIGURED,
    ) -> None:
        self.archive = archive
        self._catalog = catalog
        self._duplicates: Duplicates = duplicates
        self._honours_notes = retention.honour_rejection_notes
        self._destinations = destinations
        self._presence = archive.announce_reception()
        self._group_commit = GroupCommit(catalog, largest_group, retention)

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
        fetched: bool = False,
        may_reject: bool = True,
    ) -> Receipt:
        """Validate a completely received object and make it durable.

        A rejection note has taken effect when this returns.

        Parameters
        ----------
        incoming : IncomingObject
            Written, not yet kept; the caller discards it afterwards in any case.
        source : str
            Calling AE title, or how else it came.
        sop_class_uid, sop_instance_uid : str, optional
            What the sender announced; the data set must say the same (PS3.7 9.1.1.1).
        fetched : bool
            Whether the node got the object by itself, so that it is not sent on as a rule.
        may_reject : bool
            Whether the sender's rejection notes delete what they name; otherwise they are refused.

        Raises
        ------
        InvalidObjectError
            It is no storable DICOM object.
        OutOfSpaceError
            The disk is full.
        RejectedObjectError
            A rejection note has named it.
        NotAuthorizedError
            It is a rejection note, and the sender may not reject.
        CatalogError
            The database refused it.
        """
        incoming.finish()
        header = self.archive.read_header(incoming.path, RECORD_KEYWORDS)
        _must_agree("SOP Class UID", sop_class_uid, header.sop_class_uid)
        _must_agree("SOP Instance UID", sop_instance_uid, header.sop_instance_uid)
        note = self._rejection_note(incoming, header)
        if note is not None and not may_reject:
            raise NotAuthorizedError("rejection notes need the right to administer")
        path = self.archive.new_path(header.study_instance_uid, header.sop_instance_uid)
        stored = self.archive.keep(incoming, path)
        # before the note has its row: no crash can leave it without its effect
        rejects = note is not None and bury_objects(
            self._catalog, note.objects, note.cause, note.title, header.sop_instance_uid
        )
        receipt = self._commit(stored, header, source, self._duplicates, fetched=fetched)
        if note is not None and rejects:
            self._carry_out(note)
        if receipt.outcome is StoreOutcome.REFUSED:
            raise RejectedObjectError("rejected by a rejection note (IOCM): not stored again")
        return receipt

    def accept_file(
        self,
        path: Path,
        *,
        source: str = "import",
        header: ObjectHeader | None = None,
        fetched: bool = True,
        may_reject: bool = True,
    ) -> Receipt:
        """Copy a DICOM file into the archive; the file itself is left alone.

        Parameters
        ----------
        path : Path
            The file.
        source : str
            How it came.
        header : ObjectHeader, optional
            The file's, where it has been read already.
        fetched, may_reject : bool
            As in `accept`.

        Raises
        ------
        InvalidObjectError
            It is no storable DICOM object.
        OutOfSpaceError
            The disk is full, or its reserve is reached.
        RejectedObjectError, NotAuthorizedError
            As in `accept`.
        CatalogError
            The database refused it.
        """
        header = header or self.archive.read_header(path)
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
                fetched=fetched,
                may_reject=may_reject,
            )

    def adopt(self, relative: str) -> Receipt:
        """Catalogue a file that is in the archive already; remove it when its object is known.

        Such a file was stored but not acknowledged before the node was killed. It brings nothing
        back that was deleted, and a rejection note among such files rejects nothing: its sender,
        who got no answer, sends it again.
        """
        path = self.archive.path(relative)
        header = self.archive.read_header(path, RECORD_KEYWORDS)
        digest = self.archive.content_sha256(relative)
        stored = StoredFile(relative, path.stat().st_size, digest)
        return self._commit(stored, header, REPAIR, "adopt", fetched=True)

    def _rejection_note(
        self, incoming: IncomingObject, header: ObjectHeader
    ) -> RejectionNote | None:
        if not self._honours_notes or header.sop_class_uid != KEY_OBJECT_SELECTION:
            return None
        return read_rejection_note(incoming.path)

    def _carry_out(self, note: RejectionNote) -> None:
        try:
            removed = finish_removals(self._catalog, self.archive)
        except CatalogError as error:  # the objects are marked: a node's duty goes on with them
            _log.warning("the rejected objects are removed later: %s", error)
            return
        _log.info("rejection note (%s): %d objects removed", note.title, removed)

    def _commit(
        self,
        stored: StoredFile,
        header: ObjectHeader,
        source: str,
        duplicates: Duplicates,
        *,
        fetched: bool,
    ) -> Receipt:
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
        modality = record.attributes["SERIES"]["modality"]
        destinations = self._destinations(source, modality, fetched=fetched)
        record = replace(record, forward_to=destinations)
        # When the commit fails the file stays: a lost connection does not tell whether the row was
        # written. `verify` finds left-overs.
        done = self._group_commit.commit(record, duplicates)
        if done.kept_path is not None and not self._is_whole(done.kept_path, done.kept_sha256):
            # the file that was to stay is lost or damaged: this one is the only copy
            done = self._group_commit.commit(record, "mend")
        if done.unused_path is not None:
            self.archive.remove(done.unused_path)
        if done.left_series is not None:
            remove_empty_series(self._catalog, done.left_series)
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
