"""Several objects in one response, of which some may turn out to be unreadable.

The status went out long before, so the others are sent and the response then breaks off: no client
may take it for complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.errors import CbmirError, NotKeptError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class IncompleteResponseError(CbmirError):
    """Some of the objects of a response that has begun could not be sent."""


def sendable(objects: Sequence[StoredObject], make: Callable[[StoredObject], T]) -> Iterator[T]:
    """Yield what is made of each object; raise in the end where that failed for some.

    Parameters
    ----------
    objects : sequence of StoredObject
        At least one.
    make : callable
        Returns what is sent of an object; its `CbmirError` or OSError is that object's alone.

    Raises
    ------
    CbmirError
        Nothing can be sent, for the reason of the first object.
    IncompleteResponseError
        Something was sent, and something cannot be.
    """
    failures: list[CbmirError | OSError] = []
    for stored in objects:
        try:
            made = make(stored)
        except (CbmirError, OSError) as error:
            _log.warning("%s is not sent: %s", stored.sop_instance_uid, error)
            failures.append(error)
            continue
        yield made
    if len(failures) == len(objects):
        raise _told(failures[0])
    if failures:
        raise IncompleteResponseError(f"{len(failures)} of {len(objects)} instances cannot be sent")


def _told(error: CbmirError | OSError) -> CbmirError:
    """Return an error as the client is told it; what OSErrors say is of files, not for clients."""
    if isinstance(error, CbmirError):
        return error
    return NotKeptError("its file is not here any more; search again")
