"""C-FIND in the Study Root model of another node (PS3.4 C.4.1 and C.6.2)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from cbmir_node.dicom.client.association import Peer, association
from cbmir_node.dicom.statuses import Status
from cbmir_node.errors import PeerRefusedError, PeerUnreachableError

_log = logging.getLogger(__name__)

_MODEL = StudyRootQueryRetrieveInformationModelFind
_PENDING = (Status.PENDING, Status.PENDING_UNSUPPORTED_KEYS)
# Cancelled without our asking is how Orthanc says that there is more
_LIMITED = {Status.CANCELLED, *range(0xA700, 0xA800), *range(0xB000, 0xC000)}

QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]


class Query:
    """Queries to one peer, over one association.

    Parameters
    ----------
    peer : Peer
        Who is asked.
    opened : pynetdicom.association.Association
        Established.

    Attributes
    ----------
    limited : bool
        Whether the peer said of its latest answer that there is more.
    unreadable : int
        How many identifiers of its latest answer could not be read.
    """

    def __init__(self, peer: Peer, opened: Any) -> None:
        self._peer = peer
        self._opened = opened
        self.limited = False
        self.unreadable = 0

    def find(self, level: QueryLevel, keys: Mapping[str, str]) -> Iterator[Dataset]:
        """Ask, and iterate over the answers; they must be taken to the end.

        Parameters
        ----------
        level : {"STUDY", "SERIES", "IMAGE"}
        keys : mapping of str to str
            Keyword to value, several UIDs joined by a backslash, empty ones to be returned only.

        Raises
        ------
        PeerUnreachableError
            The answer does not come, or breaks off.
        PeerRefusedError
            It is a failure.
        """
        self.limited = False
        self.unreadable = 0
        if not self._opened.is_established:
            raise PeerUnreachableError(f"{self._peer} has ended the association")
        status = Dataset()
        for status, answer in self._opened.send_c_find(_identifier(level, keys), _MODEL):
            if status.get("Status") in _PENDING:
                if answer is None:
                    self.unreadable += 1
                    _log.warning("%s: an answer cannot be read and is left out", self._peer)
                else:
                    yield answer
        if "Status" not in status:
            raise PeerUnreachableError(
                f"{self._peer} does not answer C-FIND, or breaks off; check that it knows the AE "
                f"title {self._opened.requestor.ae_title} and allows it C-FIND, try later, or "
                "allow it more time"
            )
        self.limited = status.Status in _LIMITED
        if status.Status != Status.SUCCESS and not self.limited:
            raise PeerRefusedError(f"{self._peer} answers C-FIND with {described(status)}")


@contextmanager
def querying(peer: Peer, *, calling_ae_title: str, timeout: float) -> Iterator[Query]:
    """Open an association for Study Root queries.

    Raises
    ------
    PeerUnreachableError, PeerRefusedError
        There is none, or the peer does not offer such queries.
    """
    proposed = [build_context(_MODEL)]
    with association(peer, proposed, calling_ae_title=calling_ae_title, timeout=timeout) as opened:
        yield Query(peer, opened)


def described(status: Dataset) -> str:
    """Return a response's status and comment for a person."""
    comment = str(status.get("ErrorComment", "") or "")
    return f"status 0x{status.Status:04X}{f' ({comment})' if comment else ''}"


def _identifier(level: QueryLevel, keys: Mapping[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value.split("\\") if "\\" in value else value)
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier
