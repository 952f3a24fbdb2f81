"""Objects of a STOW-RS request on their way in: written as they come, then taken as by C-STORE."""

from __future__ import annotations

import io
import logging
from pathlib import Path

from pydicom.filereader import read_dataset

from cbmir_node.archive.header import is_uid
from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive
from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.errors import CatalogError, CbmirError, NotAnObjectError, OutOfSpaceError
from cbmir_node.intake import Intake
from cbmir_node.web.dicomweb.media_types import DICOM
from cbmir_node.web.dicomweb.store.response import (
    FailedInstance,
    OtherStudyError,
    StoredInstance,
    StoreReport,
    failure_reason,
)
from cbmir_node.web.problems import NO_CATALOG

_RESERVE_CHECK_BYTES = 64 << 20
_ANNOUNCEMENT_BYTES = 1 << 14
_MOST_TOLD = 20

_log = logging.getLogger(__name__)


class Reception:
    """The objects of one request, and what became of them.

    Parameters
    ----------
    intake : Intake
    study_instance_uid : str or None
        Of the only study that is taken; None for any.
    source : str
        Where the catalogue says that they came from.
    may_reject : bool
        Whether rejection notes take effect; otherwise they are refused.

    Attributes
    ----------
    report : StoreReport
    """

    def __init__(
        self, intake: Intake, study_instance_uid: str | None, source: str, *, may_reject: bool
    ) -> None:
        self.report = StoreReport()
        self._intake = intake
        self._study = study_instance_uid
        self._source = source
        self._may_reject = may_reject

    def begin(self, media_type: str) -> _ArrivingObject:
        """Take the next part."""
        return _ArrivingObject(self, self._intake.archive, media_type)

    def store(self, file: Path) -> None:
        """Store a part that has arrived completely."""
        header = self._intake.archive.read_header(file)
        if self._study not in (None, header.study_instance_uid):
            raise OtherStudyError(f"not of this study: of {header.study_instance_uid}")
        receipt = self._intake.accept_file(
            file,
            source=self._source,
            header=header,
            fetched=False,
            may_reject=self._may_reject,
        )
        self.report.stored.append(
            StoredInstance(
                header.sop_class_uid,
                header.sop_instance_uid,
                header.study_instance_uid,
                str(header.attributes.SeriesInstanceUID),
                kept_other_content=receipt.outcome is StoreOutcome.CONFLICT,
            )
        )

    def fail(self, failed: FailedInstance, error: Exception) -> None:
        """Note what could not be stored; the log tells of the first few and `close` of the rest."""
        self.report.failed.append(failed)
        if len(self.report.failed) <= _MOST_TOLD:
            _log.warning(
                "STOW-RS of %s from %s: 0x%04X %s",
                *(failed.sop_instance_uid or "an unreadable part", self._source),
                *(failed.reason, error),
            )

    def close(self) -> None:
        """Log how many more could not be stored."""
        if (untold := len(self.report.failed) - _MOST_TOLD) > 0:
            _log.warning("STOW-RS from %s: %d more objects were not stored", self._source, untold)


class _ArrivingObject:
    """A part on its way in.

    Taking it never fails: what goes wrong is kept for the answer, and the rest of the part is
    drained, so that the parts behind it get their turn.
    """

    def __init__(self, reception: Reception, archive: Archive, media_type: str) -> None:
        self._reception = reception
        self._archive = archive
        self._until_check = _RESERVE_CHECK_BYTES
        self._incoming: IncomingObject | None = None
        self._failure: CbmirError | None = None
        self._head = bytearray()
        if media_type not in ("", DICOM):
            self._failure = NotAnObjectError(f"the part is {media_type}, not {DICOM}")
            return
        try:
            self._incoming = archive.receive()
        except OutOfSpaceError as error:
            self._failure = error

    def write(self, data: memoryview) -> None:
        self._head += data[: _ANNOUNCEMENT_BYTES - len(self._head)]
        if self._incoming is None:
            return
        try:
            self._incoming.write(data)
            self._until_check -= len(data)
            if self._until_check < 0:
                self._until_check = _RESERVE_CHECK_BYTES
                if not self._archive.has_room():
                    raise OutOfSpaceError("the disk reserve is reached: nothing more is stored")
        except OutOfSpaceError as error:
            self._failure = error
            self.discard()

    def finish(self) -> None:
        error: Exception | None = self._failure
        if self._incoming is not None:
            try:
                self._incoming.finish()
                self._reception.store(self._incoming.path)
            except CbmirError as refusal:
                error = refusal
            except Exception as failure:  # the answer must tell what became of the other parts
                _log.exception("STOW-RS: an object could not be stored")
                error = failure
        if error is not None:
            failed = FailedInstance(
                *_announced(bytes(self._head)), failure_reason(error), _comment(error)
            )
            self._reception.fail(failed, error)
        self.discard()

    def discard(self) -> None:
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


def _comment(error: Exception) -> str:
    """Return what the sender is told; of errors inside the node only the log tells more."""
    if isinstance(error, CatalogError):
        return NO_CATALOG
    return str(error) if isinstance(error, CbmirError) else "the node failed; its log tells why"


def _announced(head: bytes) -> tuple[str, str]:
    """Return SOP Class and Instance UID of a file's meta information; empty when unreadable."""
    start = 132 if head[128:132] == b"DICM" else 0
    try:
        meta = read_dataset(
            io.BytesIO(head[start:]),
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        )
        uids = (
            str(meta.get("MediaStorageSOPClassUID", "")),
            str(meta.get("MediaStorageSOPInstanceUID", "")),
        )
    except Exception:  # pydicom raises many kinds on hostile bytes
        return "", ""
    return uids if all(map(is_uid, uids)) else ("", "")
