"""The DIMSE statuses the node answers with (PS3.4 B.2.3 and C.4.1.1.4, PS3.7 Annex C)."""

from __future__ import annotations

import enum

from pydicom import Dataset

from cbmir_node.errors import CbmirError

_COMMENT_LENGTH = 64  # Error Comment is a LO


class Status(enum.IntEnum):
    """Status codes; their documentation is the table in ``docs/dicom.md``."""

    SUCCESS = 0x0000
    PENDING = 0xFF00
    PENDING_UNSUPPORTED_KEYS = 0xFF01
    CANCELLED = 0xFE00
    OUT_OF_RESOURCES = 0xA700
    IDENTIFIER_MISMATCH = 0xA900
    UNABLE_TO_PROCESS = 0xC000
    UNKNOWN_EXAMPLE = 0xC101
    EXAMPLE_NOT_EMBEDDED = 0xC102
    NOT_SUPPORTED_YET = 0xC103


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
