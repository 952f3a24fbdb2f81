"""One writer for received objects: many waiting associations share one commit.

A commit costs a disk sync whatever it carries. Receivers hand their records to this writer and
wait; while it waits for the disk, the next ones gather.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from concurrent.futures import Future
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError, OperationalError

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold
from cbmir_node.catalog.reception.records import InstanceRecord
from cbmir_node.catalog.reception.registration import Duplicates, Registered, register
from cbmir_node.config import RetentionSettings
from cbmir_node.errors import CatalogError

_AS_CONFIGURED = RetentionSettings()

_log = logging.getLogger(__name__)


class _Request(NamedTuple):
    record: InstanceRecord
    duplicates: Duplicates
    answer: Future[Registered]


class GroupCommit:
    """The writer of received objects; start it, submit records from any thread, close it.

    Parameters
    ----------
    catalog : Catalog
        Where to write.
    largest_group : int
        Records per transaction at most.
    retention : RetentionSettings
        What becomes of objects that were rejected or are not kept.
    """

    def __init__(
        self,
        catalog: Catalog,
        largest_group: int = 128,
        retention: RetentionSettings = _AS_CONFIGURED,
    ) -> None:
        self._catalog = catalog
        self._largest_group = largest_group
        self._retention = retention
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what was submitted and stop."""
        self._queue.put(None)
        self._thread.join()

    def commit(self, record: InstanceRecord, duplicates: Duplicates = "keep") -> Registered:
        """Write `record` and return once it is durable.

        Raises
        ------
        CatalogError
            The database refused it, or did not answer: then it may have been written all the same.
        """
        request = _Request(record, duplicates, Future())
        self._queue.put(request)
        return request.answer.result()

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            group = [] if first is None else [first]
            open_ = first is not None
            with contextlib.suppress(queue.Empty):
                while open_ and len(group) < self._largest_group:
                    request = self._queue.get_nowait()
                    if request is None:
                        open_ = False
                    else:
                        group.append(request)
            if group:
                self._answer(group)

    def _answer(self, group: list[_Request]) -> None:
        try:
            results = self._write(group)
        except Exception as error:  # whatever it is, senders wait and this thread must live on
            # one bad record must not fail its neighbours; a database that does not answer
            # would make each of them wait in turn
            if len(group) > 1 and not isinstance(error.__cause__, OperationalError):
                for request in group:
                    self._answer([request])
                return
            _log.exception("cannot catalogue %d objects", len(group))
            for request in group:
                request.answer.set_exception(_as_catalog_error(error, request.record))
            return
        for request, result in zip(group, results, strict=True):
            request.answer.set_result(result)

    def _write(self, group: list[_Request]) -> list[Registered]:
        try:
            return self._write_once(group)
        except CatalogError as error:
            if len(group) > 1 or not isinstance(error.__cause__, IntegrityError):
                raise
        # another process has entered the same object since it was looked up: look again
        return self._write_once(group)

    def _write_once(self, group: list[_Request]) -> list[Registered]:
        with self._catalog.write() as connection:
            hold(connection, Lock.HIERARCHY, shared=True)
            return [
                register(connection, request.record, request.duplicates, self._retention)
                for request in group
            ]


def _as_catalog_error(error: Exception, record: InstanceRecord) -> CatalogError:
    if isinstance(error, CatalogError):
        return error
    return CatalogError(f"cannot catalogue {record.sop_instance_uid}: {error}")
