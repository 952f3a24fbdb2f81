"""One writer for received objects: many waiting associations share one commit.

A commit costs a disk sync whatever it carries. Receivers hand their records to this writer and
wait; while it waits for the disk, the next ones gather.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.records import InstanceRecord
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.catalog.vectors import remove_vectors
from cbmir_node.catalog.work_queue import request_work, reset_work
from cbmir_node.errors import CatalogError

_log = logging.getLogger(__name__)


class StoreOutcome(enum.Enum):
    """What became of a received object."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """Known, with the same content: nothing to do."""
    CONFLICT = "conflict"
    """Known, with other content: the first one was kept."""
    REPLACED = "replaced"
    """Known, with other content: the new one took its place."""


@dataclass(frozen=True)
class Committed:
    """A committed record.

    Attributes
    ----------
    unused_path : str or None
        File that no row names, or none any more, and that may be removed.
    known_path : str or None
        File of a duplicate that was stored earlier.
    """

    outcome: StoreOutcome
    unused_path: str | None = None
    known_path: str | None = None


class GroupCommit:
    """The writer of received objects; start it, submit records from any thread, close it.

    Parameters
    ----------
    catalog : Catalog
        Where to write.
    largest_group : int
        Records per transaction at most.
    duplicates : {"keep", "replace"}
        What wins when a known SOP Instance UID arrives with different content.
    """

    def __init__(
        self,
        catalog: Catalog,
        largest_group: int = 128,
        duplicates: Literal["keep", "replace"] = "keep",
    ) -> None:
        self._catalog = catalog
        self._largest_group = largest_group
        self._duplicates = duplicates
        self._queue: queue.SimpleQueue[tuple[InstanceRecord, Future[Committed]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what was submitted and stop."""
        self._queue.put(None)
        self._thread.join()

    def commit(self, record: InstanceRecord) -> Committed:
        """Write `record` and return once it is durable.

        Raises
        ------
        CatalogError
            The database refused it; nothing was written.
        """
        future: Future[Committed] = Future()
        self._queue.put((record, future))
        return future.result()

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            group = [] if first is None else [first]
            open_ = first is not None
            with contextlib.suppress(queue.Empty):
                while open_ and len(group) < self._largest_group:
                    item = self._queue.get_nowait()
                    if item is None:
                        open_ = False
                    else:
                        group.append(item)
            if group:
                self._write(group)

    def _write(self, group: list[tuple[InstanceRecord, Future[Committed]]]) -> None:
        try:
            with self._catalog.write() as connection:
                results = [
                    write_record(connection, record, self._duplicates) for record, _ in group
                ]
        except Exception as error:  # whatever it is, senders wait and this thread must live on
            if len(group) > 1:  # one bad record must not fail its neighbours
                for item in group:
                    self._write([item])
                return
            _log.exception("cannot catalogue %s", group[0][0].sop_instance_uid)
            uid = group[0][0].sop_instance_uid
            known = isinstance(error, CatalogError)
            group[0][1].set_exception(
                error if known else CatalogError(f"cannot catalogue {uid}: {error}")
            )
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)


def name_file(
    catalog: Catalog, sop_instance_uid: str, old_path: str, path: str, size_bytes: int
) -> bool:
    """Give an instance another file with the same content; tell whether it still had the old one.

    If its embedding had failed, as it does without a file, it is tried again.
    """
    instances = schema.instances.c
    this = (instances.sop_instance_uid == sop_instance_uid) & (instances.path == old_path)
    with catalog.write() as connection:
        row = connection.execute(select(instances.id).where(this)).scalar()
        if row is None:
            return False
        connection.execute(
            update(schema.instances)
            .where(instances.id == row)
            .values(path=path, size_bytes=size_bytes)
        )
        failed = (schema.work.c.instance == row) & (schema.work.c.state == "failed")
        reset_work(connection, failed, time.time())
    return True


def write_record(
    connection: Connection, record: InstanceRecord, duplicates: Literal["keep", "replace"]
) -> Committed:
    """Write one record in the caller's transaction."""
    instances = schema.instances.c
    known = connection.execute(
        select(
            instances.id,
            instances.content_sha256,
            instances.transfer_syntax_uid,
            instances.path,
        ).where(instances.sop_instance_uid == record.sop_instance_uid)
    ).first()
    if known is None:
        return _insert(connection, record)
    if (known.content_sha256, known.transfer_syntax_uid) == (
        record.content_sha256,
        record.transfer_syntax_uid,
    ):
        if known.path == record.path:  # a repair and the receiver were both at it
            return Committed(StoreOutcome.DUPLICATE)
        return Committed(StoreOutcome.DUPLICATE, record.path, known.path)
    if duplicates == "keep":
        _log.warning(
            "%s arrived again with different content; the first is kept", record.sop_instance_uid
        )
        return Committed(StoreOutcome.CONFLICT, record.path)
    _log.warning("%s arrived again with different content; replaced", record.sop_instance_uid)
    remove_vectors(connection, [known.id])
    connection.execute(delete(schema.instances).where(instances.id == known.id))
    _insert(connection, record)
    return Committed(StoreOutcome.REPLACED, known.path)


def _insert(connection: Connection, record: InstanceRecord) -> Committed:
    attributes = record.attributes
    patient = find_or_insert(
        connection,
        schema.patients,
        {"identity": record.identity},
        {**attributes["PATIENT"]},
    )
    study_uid = {"study_instance_uid": attributes["STUDY"]["study_instance_uid"]}
    study = find_or_insert(
        connection,
        schema.studies,
        study_uid,
        {
            **attributes["STUDY"],
            "patient": patient,
            "age_years": record.age_years,
            "received_at": record.received_at,
            "updated_at": record.received_at,
        },
    )
    series = find_or_insert(
        connection,
        schema.series,
        {"study": study, "series_instance_uid": attributes["SERIES"]["series_instance_uid"]},
        {**attributes["SERIES"]},
    )
    instance = connection.execute(
        insert(schema.instances).values(
            **attributes["IMAGE"],
            series=series,
            transfer_syntax_uid=record.transfer_syntax_uid,
            path=record.path,
            size_bytes=record.size_bytes,
            content_sha256=record.content_sha256,
            has_pixels=record.has_pixels,
            representative=record.representative,
            source=record.source,
            received_at=record.received_at,
        )
    ).inserted_primary_key
    assert instance is not None  # noqa: S101  both back ends return it
    connection.execute(
        update(schema.studies)
        .where(schema.studies.c.id == study)
        .values(updated_at=record.received_at)
    )
    request_work(connection, instance.id, record.received_at)
    return Committed(StoreOutcome.STORED)
