"""What becomes of the objects of a STOW-RS request, and how it is told (PS3.18 Annex I)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR

from cbmir_node.answers.query_keys import tag_of
from cbmir_node.errors import (
    CatalogError,
    CbmirError,
    IdentifierError,
    NotAuthorizedError,
    OutOfSpaceError,
    RejectedObjectError,
)
from cbmir_node.web.dicomweb.dicom_json import in_order
from cbmir_node.web.dicomweb.resources import resource_url

_COMMENT_LENGTH = 64  # Error Comment is a LO

_Item = dict[str, Any]


class FailureReason(enum.IntEnum):
    """Values of Failure Reason (0008,1197), PS3.18 Table I.2-2; as C-STORE's statuses."""

    PROCESSING_FAILURE = 0x0110
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    IDENTIFIER_MISMATCH = 0xA900
    OTHER_STUDY = 0xA901
    CANNOT_UNDERSTAND = 0xC000
    REJECTED_OBJECT = 0xC104


MEANINGS: Mapping[FailureReason, str] = {
    FailureReason.PROCESSING_FAILURE: "an error inside the node; its log has more",
    FailureReason.NOT_AUTHORIZED: "a rejection note of a caller without the right `administer`",
    FailureReason.OUT_OF_RESOURCES: "disk full, disk reserve reached, object larger than "
    "`archive.max_object_mib`, or the catalogue does not answer",
    FailureReason.IDENTIFIER_MISMATCH: "a UID is missing or is no UID",
    FailureReason.OTHER_STUDY: "the object is of another study than the URL names",
    FailureReason.CANNOT_UNDERSTAND: "the part is truncated, or no DICOM object",
    FailureReason.REJECTED_OBJECT: "a rejection note has rejected this object",
}
"""What each reason means; ``docs/dicomweb.md`` shows it."""


OTHER_CONTENT_KEPT = 0xB001
"""Warning Reason (0008,1196), of the node's own: the standard has none for it (Table I.2-1)."""


class OtherStudyError(IdentifierError):
    """An object is of another study than the one it was sent to."""


_REASONS: tuple[tuple[tuple[type[Exception], ...], FailureReason], ...] = (
    ((OtherStudyError,), FailureReason.OTHER_STUDY),
    ((IdentifierError,), FailureReason.IDENTIFIER_MISMATCH),
    ((OutOfSpaceError, CatalogError, OSError), FailureReason.OUT_OF_RESOURCES),
    ((NotAuthorizedError,), FailureReason.NOT_AUTHORIZED),
    ((RejectedObjectError,), FailureReason.REJECTED_OBJECT),
    ((CbmirError,), FailureReason.CANNOT_UNDERSTAND),
)
"""The first that fits counts."""


@dataclass(frozen=True)
class StoredInstance:
    """An object that is safe.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid : str
        Its identifiers.
    kept_other_content : bool
        It was known with other content, which stays.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    kept_other_content: bool = False


@dataclass(frozen=True)
class FailedInstance:
    """An object that was not stored.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid : str
        Empty where they cannot be read.
    reason : FailureReason
    comment : str
        For a person.
    """

    sop_class_uid: str
    sop_instance_uid: str
    reason: FailureReason
    comment: str


@dataclass
class StoreReport:
    """What became of a request's objects, in the order in which they came.

    Attributes
    ----------
    stored : list of StoredInstance
        The same object may be in it several times: storing again does no harm.
    failed : list of FailedInstance
    """

    stored: list[StoredInstance] = field(default_factory=list)
    failed: list[FailedInstance] = field(default_factory=list)


def failure_reason(error: Exception) -> FailureReason:
    """Return the reason that an error stands for."""
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return FailureReason.PROCESSING_FAILURE


def response_status(report: StoreReport, *, has_room: bool) -> int:
    """Return the HTTP status (PS3.18 Table 10.5.3-1, and 507 of RFC 4918 where the disk is full).

    Parameters
    ----------
    report : StoreReport
        At least one object.
    has_room : bool
        Whether the archive takes anything now.
    """
    if not report.failed:
        return 202 if any(stored.kept_other_content for stored in report.stored) else 200
    if report.stored:
        return 202
    return 409 if has_room else 507


def store_instances_response(report: StoreReport, service: str) -> dict[str, Any]:
    """Return the Store Instances Response Module (PS3.18 Table I.1-1) as DICOM JSON (Annex F).

    A failure whose object cannot be named is in Other Failures Sequence. Error Comment (0000,0902)
    is an extension that other servers have too.

    Parameters
    ----------
    report : StoreReport
    service : str
        URL of the DICOMweb service, without a slash at its end.
    """
    studies = {stored.study_instance_uid for stored in report.stored}
    study_url = [resource_url(service, studies.pop())] if len(studies) == 1 else []
    named = [failed for failed in report.failed if failed.sop_instance_uid]
    nameless = [failed for failed in report.failed if not failed.sop_instance_uid]
    return in_order(
        {
            **_element("RetrieveURL", *study_url),
            **_sequence("FailedSOPSequence", map(_failure, named)),
            **_sequence(
                "ReferencedSOPSequence", (_reference(stored, service) for stored in report.stored)
            ),
            **_sequence("OtherFailuresSequence", map(_failure, nameless)),
        }
    )


def _reference(stored: StoredInstance, service: str) -> _Item:
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    item = {
        **_element("ReferencedSOPClassUID", stored.sop_class_uid),
        **_element("ReferencedSOPInstanceUID", stored.sop_instance_uid),
        **_element("RetrieveURL", resource_url(service, *uids)),
    }
    if stored.kept_other_content:
        item |= _element("WarningReason", OTHER_CONTENT_KEPT)
        item |= _element("ErrorComment", "not taken: it is known here with other content")
    return in_order(item)


def _failure(failed: FailedInstance) -> _Item:
    comment = failed.comment.replace("\\", "/")[:_COMMENT_LENGTH]
    item = {
        **_element("ErrorComment", comment),
        **_element("FailureReason", int(failed.reason)),
    }
    if failed.sop_instance_uid:
        item |= _element("ReferencedSOPClassUID", failed.sop_class_uid)
        item |= _element("ReferencedSOPInstanceUID", failed.sop_instance_uid)
    return in_order(item)


def _element(keyword: str, *values: str | int) -> _Item:
    element = {"vr": dictionary_VR(keyword), "Value": list(values)}
    return {_tag(keyword): element if values else {"vr": element["vr"]}}


def _sequence(keyword: str, items: Iterable[_Item]) -> _Item:
    """Return a sequence; nothing for an empty one, which the table does not want."""
    found = list(items)
    return {_tag(keyword): {"vr": "SQ", "Value": found}} if found else {}


def _tag(keyword: str) -> str:
    return f"{tag_of(keyword):08X}"
