"""The DIMSE statuses the node answers with (PS3.4 B.2.3 and C.4, PS3.7 Annex C)."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from pydicom import Dataset

from cbmir_node.errors import CbmirError

_COMMENT_LENGTH = 64  # Error Comment is a LO


class Status(enum.IntEnum):
    """Status codes; what each means is in `MEANINGS`."""

    SUCCESS = 0x0000
    PENDING = 0xFF00
    PENDING_UNSUPPORTED_KEYS = 0xFF01
    CANCELLED = 0xFE00
    SUB_OPERATIONS_INCOMPLETE = 0xB000
    OUT_OF_RESOURCES = 0xA700
    CANNOT_COUNT_MATCHES = 0xA701
    CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    IDENTIFIER_MISMATCH = 0xA900
    UNABLE_TO_PROCESS = 0xC000
    UNKNOWN_EXAMPLE = 0xC101
    EXAMPLE_NOT_EMBEDDED = 0xC102
    NOT_SUPPORTED_YET = 0xC103
    REJECTED_OBJECT = 0xC104


_REFUSED_RETRIEVALS: Mapping[Status, str] = {
    Status.CANNOT_COUNT_MATCHES: "the catalogue does not answer",
    Status.CANNOT_PERFORM_SUB_OPERATIONS: "no object could be sent",
    Status.IDENTIFIER_MISMATCH: "Query/Retrieve Level or a unique key is missing or unfit",
    Status.UNABLE_TO_PROCESS: "the request cannot be read, or an error inside the node",
}
_RETRIEVALS: Mapping[Status, str] = {
    Status.PENDING: "more objects are to be sent",
    Status.SUCCESS: "all objects have been sent; also when there are none",
    Status.SUB_OPERATIONS_INCOMPLETE: "some objects were not sent, or taken with a warning",
    Status.CANCELLED: "cancelled by C-CANCEL; what was sent before stays sent",
}
MEANINGS: Mapping[str, Mapping[Status, str]] = {
    "C-STORE": {
        Status.SUCCESS: "the object is durable: on disk, synced and in the catalogue",
        Status.OUT_OF_RESOURCES: "disk full, disk reserve reached, object larger than "
        "`archive.max_object_mib`, or the catalogue does not answer",
        Status.IDENTIFIER_MISMATCH: "a UID is missing, is no UID, or differs between command and "
        "data set",
        Status.UNABLE_TO_PROCESS: "the data set is truncated, or is none",
        Status.REJECTED_OBJECT: "a rejection note has rejected this object",
    },
    "C-FIND": {
        Status.PENDING: "a match",
        Status.PENDING_UNSUPPORTED_KEYS: "a match; a key asked for is not supported",
        Status.SUCCESS: "all matches have been sent",
        Status.CANCELLED: "cancelled by C-CANCEL; the matches sent are valid",
        Status.OUT_OF_RESOURCES: "more than `dicom.max_find_results` matches (those sent are "
        "valid), out of memory, or the catalogue does not answer",
        Status.IDENTIFIER_MISMATCH: "Query/Retrieve Level or a unique key is missing, a value does "
        "not fit, or no example is named",
        Status.UNABLE_TO_PROCESS: "the request cannot be read, or an error inside the node",
        Status.UNKNOWN_EXAMPLE: "the node does not have the example",
        Status.EXAMPLE_NOT_EMBEDDED: "the example is known, but has no vector (yet)",
        Status.NOT_SUPPORTED_YET: "a private element that is not supported yet has a value",
    },
    "C-MOVE": {
        **_RETRIEVALS,
        Status.MOVE_DESTINATION_UNKNOWN: "the destination is none of `[peers]`",
        **_REFUSED_RETRIEVALS,
        Status.CANNOT_PERFORM_SUB_OPERATIONS: "no object could be sent; also when the destination "
        "does not answer or rejects the association",
    },
    "C-GET": {**_RETRIEVALS, **_REFUSED_RETRIEVALS},
}
"""What each status means in the answer to each message; ``docs/conformance.md`` shows it."""


class RefusedRequestError(CbmirError):
    """A request that is answered with a failure; lives here because it carries the DIMSE status.

    Parameters
    ----------
    status : Status
        What to answer.
    comment : str
        Error Comment.
    *offending : int
        Tags of the elements at fault.
    """

    def __init__(self, status: Status, comment: str, *offending: int) -> None:
        super().__init__(comment)
        self.status = status
        self.offending = offending


def failure(status: Status, comment: str, *offending: int) -> Dataset:
    """Return the command elements of a failure: Status, Error Comment, Offending Element."""
    command = Dataset()
    command.Status = int(status)
    command.ErrorComment = error_comment(comment)
    if offending:
        command.OffendingElement = list(offending)
    return command


def error_comment(text: str) -> str:
    """Return `text` as a valid Error Comment: 64 characters of ASCII, no backslash."""
    plain = text.encode("ascii", "replace").decode().replace("\\", "/")
    plain = " ".join(plain.split())
    return plain if len(plain) <= _COMMENT_LENGTH else plain[: _COMMENT_LENGTH - 3] + "..."
