"""Enters a stored object in the catalogue, and decides what becomes of one that is known."""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.records import InstanceRecord
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.catalog.vectors import remove_vectors
from cbmir_node.catalog.work_requests import request_work, reset_work

Duplicates = Literal["keep", "replace", "mend"]
"""What wins when a known SOP Instance UID arrives again: ``keep`` the first content, ``replace`` it
by the new one, or ``mend``: the new file in any case, because the known one is lost or damaged."""

_log = logging.getLogger(__name__)

_instances, _studies, _work = schema.instances.c, schema.studies.c, schema.work.c

# built once: building a statement costs more than running it
_FIND = select(
    _instances.id,
    _instances.content_sha256,
    _instances.transfer_syntax_uid,
    _instances.path,
).where(_instances.sop_instance_uid == bindparam("sop_instance_uid"))
_INSERT = insert(schema.instances)
_TOUCH_STUDY = (
    update(schema.studies)
    .where(_studies.id == bindparam("study"))
    .values(updated_at=bindparam("now"))
)


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
class Registered:
    """What was written.

    Attributes
    ----------
    unused_path : str or None
        File that no row names, or none any more, and that may be removed.
    kept_path, kept_sha256 : str or None
        File and content that an earlier reception stored and that stay.
    """

    outcome: StoreOutcome
    unused_path: str | None = None
    kept_path: str | None = None
    kept_sha256: str | None = None


def register(connection: Connection, record: InstanceRecord, duplicates: Duplicates) -> Registered:
    """Write one record in the caller's transaction."""
    uid = record.sop_instance_uid
    known = connection.execute(_FIND, {"sop_instance_uid": uid}).first()
    if known is None:
        _insert(connection, record)
        return Registered(StoreOutcome.STORED)
    if known.path == record.path:
        # the very same file: a repair and a receiver were both at it, or the answer to an
        # earlier commit got lost
        return Registered(StoreOutcome.DUPLICATE)
    kept = (known.path, known.content_sha256)
    if (known.content_sha256, known.transfer_syntax_uid) == (
        record.content_sha256,
        record.transfer_syntax_uid,
    ):
        if duplicates == "mend":
            _name_file(connection, known.id, record)
            return Registered(StoreOutcome.DUPLICATE, known.path)
        return Registered(StoreOutcome.DUPLICATE, record.path, *kept)
    if duplicates == "keep":
        _log.info("%s arrived again with different content; the first is kept", uid)
        return Registered(StoreOutcome.CONFLICT, record.path, *kept)
    _log.info("%s arrived again with different content; replaced", uid)
    remove_vectors(connection, [known.id])
    connection.execute(delete(schema.instances).where(_instances.id == known.id))
    _insert(connection, record)
    return Registered(StoreOutcome.REPLACED, known.path)


def _name_file(connection: Connection, instance: int, record: InstanceRecord) -> None:
    """Let an instance have another file; a failed embedding, as without a file, is tried again."""
    connection.execute(
        update(schema.instances)
        .where(_instances.id == instance)
        .values(path=record.path, size_bytes=record.size_bytes)
    )
    failed = (_work.instance == instance) & (_work.state == "failed")
    reset_work(connection, failed, time.time())


def _insert(connection: Connection, record: InstanceRecord) -> None:
    attributes = record.attributes
    patient = find_or_insert(
        connection, schema.patients, {"identity": record.identity}, attributes["PATIENT"]
    )
    study = find_or_insert(
        connection,
        schema.studies,
        {"study_instance_uid": attributes["STUDY"]["study_instance_uid"]},
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
        attributes["SERIES"],
    )
    instance = connection.execute(
        _INSERT,
        {
            **attributes["IMAGE"],
            "series": series,
            "transfer_syntax_uid": record.transfer_syntax_uid,
            "path": record.path,
            "size_bytes": record.size_bytes,
            "content_sha256": record.content_sha256,
            "has_pixels": record.has_pixels,
            "representative": record.representative,
            "source": record.source,
            "received_at": record.received_at,
        },
    ).inserted_primary_key
    assert instance is not None  # noqa: S101  both back ends return it
    connection.execute(_TOUCH_STUDY, {"study": study, "now": record.received_at})
    request_work(connection, instance.id, record.received_at)
