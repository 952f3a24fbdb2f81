"""Enters a stored object in the catalogue, and decides what becomes of one that is known."""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.forwarding.queue import awaiting_destinations, request_forwards
from cbmir_node.catalog.query.sequence_items import write_items
from cbmir_node.catalog.reception.records import InstanceRecord
from cbmir_node.catalog.reception.representation import sampling_order
from cbmir_node.catalog.retention.tombstones import cause_of, forget_deletion
from cbmir_node.catalog.retention.unused_files import name_unused
from cbmir_node.catalog.upsert import find_or_insert
from cbmir_node.catalog.vectors.rows import remove_vectors
from cbmir_node.catalog.work.requests import request_work, reset_work
from cbmir_node.config import RetentionSettings

Duplicates = Literal["keep", "replace", "mend", "adopt"]
"""What wins when a known SOP Instance UID arrives again: ``keep`` the first content, ``replace`` it
by the new one, or ``mend``: the new file in any case, because the known one is lost or damaged.
``adopt`` is for a file that was found and did not arrive: it brings nothing back that was deleted,
nor pixels, where these are evicted."""

REPAIR = "repair"
"""Source of an object that was found in the archive: nobody was told that it is stored."""

_AS_CONFIGURED = RetentionSettings()

_log = logging.getLogger(__name__)

_instances, _studies, _work = schema.instances.c, schema.studies.c, schema.work.c
_models = schema.models.c

# built once: building a statement costs more than running it
_FIND = select(
    _instances.id,
    _instances.content_sha256,
    _instances.transfer_syntax_uid,
    _instances.path,
    _instances.series,
    _instances.source,
).where(_instances.sop_instance_uid == bindparam("sop_instance_uid"))
_FIND_STUDY = select(_studies.id).where(
    _studies.study_instance_uid == bindparam("study_instance_uid")
)
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
    REFUSED = "refused"
    """Deleted by a rejection note: not stored again."""


@dataclass(frozen=True)
class Registered:
    """What was written.

    Attributes
    ----------
    unused_path : str or None
        File that no row names, or none any more, and that may be removed.
    kept_path, kept_sha256 : str or None
        File and content that an earlier reception stored and that stay.
    left_series : int or None
        Series that a replaced object was in, and that may be empty now.
    """

    outcome: StoreOutcome
    unused_path: str | None = None
    kept_path: str | None = None
    kept_sha256: str | None = None
    left_series: int | None = None


def register(
    connection: Connection,
    record: InstanceRecord,
    duplicates: Duplicates,
    retention: RetentionSettings = _AS_CONFIGURED,
) -> Registered:
    """Write one record in the caller's transaction, which holds `Lock.HIERARCHY`, shared.

    Parameters
    ----------
    connection : Connection
    record : InstanceRecord
        Its file is durable.
    duplicates : {"keep", "replace", "mend", "adopt"}
    retention : RetentionSettings
        Whether rejection notes are honoured, and whether pixels are kept once embedded.
    """
    uid = record.sop_instance_uid
    known = connection.execute(_FIND, {"sop_instance_uid": uid}).first()
    if known is not None and known.path == record.path:
        # the very same file: a repair and a receiver were both at it, or the answer to an
        # earlier commit got lost
        return Registered(StoreOutcome.DUPLICATE)
    cause = cause_of(connection, uid)
    if cause is not None:
        rejected = cause == "rejected" and retention.honour_rejection_notes
        if rejected or duplicates == "adopt":
            return Registered(StoreOutcome.REFUSED, record.path)
        forget_deletion(connection, uid)  # somebody wants it after all
    if known is None:
        _insert(connection, record)
        return Registered(StoreOutcome.STORED)
    if (known.content_sha256, known.transfer_syntax_uid) == (
        record.content_sha256,
        record.transfer_syntax_uid,
    ):
        return _same_again(connection, known, record, duplicates, retention)
    if duplicates in ("keep", "adopt"):
        _log.info("%s arrived again with different content; the first is kept", uid)
        return Registered(
            StoreOutcome.CONFLICT, record.path, known.path or None, known.content_sha256
        )
    _log.info("%s arrived again with different content; replaced", uid)
    # who still waits for the old content gets the new one, whoever sent it
    awaiting = set(awaiting_destinations(connection, known.id)) - {record.source}
    record = replace(record, forward_to=tuple(sorted(awaiting.union(record.forward_to))))
    remove_vectors(connection, [known.id])
    connection.execute(delete(schema.instances).where(_instances.id == known.id))
    series = _insert(connection, record)
    name_unused(connection, [known.path])
    left = known.series if known.series != series else None
    return Registered(StoreOutcome.REPLACED, known.path or None, left_series=left)


def _same_again(
    connection: Connection,
    known: Any,
    record: InstanceRecord,
    duplicates: Duplicates,
    retention: RetentionSettings,
) -> Registered:
    """Decide which of two files with one content stays; `known` is the instance's row."""
    if known.source == REPAIR:  # its sender tries again, to whom it was never acknowledged
        request_forwards(connection, known.id, record.forward_to, record.received_at)
    if known.path:
        wanted = duplicates == "mend"
    elif duplicates == "adopt":
        # where nothing is evicted, its file was lost, and has been found
        wanted = retention.retain == "all" and not retention.quota_gib
    else:
        wanted = retention.retain != "none" or _waits_for_pixels(connection, known.id)
    if not wanted:
        return Registered(
            StoreOutcome.DUPLICATE, record.path, known.path or None, known.content_sha256
        )
    if not _name_file(connection, known.id, known.path, record):
        # evicted or mended by somebody else at this moment: look again
        return register(connection, record, duplicates, retention)
    name_unused(connection, [known.path])
    return Registered(StoreOutcome.DUPLICATE, known.path or None)


def _waits_for_pixels(connection: Connection, instance: int) -> bool:
    """Tell whether a model in use has no answer for an instance yet."""
    waits = (
        select(_work.instance)
        .join(schema.models, _models.id == _work.model)
        .where(
            _work.instance == instance,
            _work.state.in_(("pending", "failed")),
            _models.state.in_(("active", "next")),
        )
    )
    return connection.execute(waits.limit(1)).first() is not None


def _name_file(connection: Connection, instance: int, old: str, record: InstanceRecord) -> bool:
    """Let an instance have another file; a failed embedding, as without a file, is tried again.

    One that had none is kept as long as one that has just been received. Returns False when the
    instance has not the `old` file any more.
    """
    values = {"path": record.path, "size_bytes": record.size_bytes}
    if not old:
        values["received_at"] = record.received_at
    named = connection.execute(
        update(schema.instances)
        .where(_instances.id == instance, _instances.path == old)
        .values(**values)
    )
    if not named.rowcount:
        return False
    failed = (_work.instance == instance) & (_work.state == "failed")
    reset_work(connection, failed, time.time())
    return True


def _insert(connection: Connection, record: InstanceRecord) -> int:
    """Insert an instance and what is above it; return the row of its series."""
    attributes = record.attributes
    study = _find_or_insert_study(connection, record)
    series = find_or_insert(
        connection,
        schema.series,
        {"study": study, "series_instance_uid": attributes["SERIES"]["series_instance_uid"]},
        attributes["SERIES"],
    )
    write_items(connection, record.items, {"STUDY": study, "SERIES": series})
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
            "sampling_order": _sampling_order(record),
            "source": record.source,
            "received_at": record.received_at,
        },
    ).inserted_primary_key
    assert instance is not None  # noqa: S101  both back ends return it
    connection.execute(_TOUCH_STUDY, {"study": study, "now": record.received_at})
    request_work(connection, instance.id, record.received_at)
    request_forwards(connection, instance.id, record.forward_to, record.received_at)
    return series


def _find_or_insert_study(connection: Connection, record: InstanceRecord) -> int:
    """Return the row of the study; the patient of a known one is left alone.

    What its objects say of the patient later does not change it, nor make another patient.
    """
    study = record.attributes["STUDY"]
    unique = {"study_instance_uid": study["study_instance_uid"]}
    known = connection.execute(_FIND_STUDY, unique).scalar()
    if known is not None:
        return int(known)
    patient = find_or_insert(
        connection, schema.patients, {"identity": record.identity}, record.attributes["PATIENT"]
    )
    return find_or_insert(
        connection,
        schema.studies,
        unique,
        {
            **study,
            "patient": patient,
            "age_years": record.age_years,
            "received_at": record.received_at,
            "updated_at": record.received_at,
        },
    )


def _sampling_order(record: InstanceRecord) -> int | None:
    if not record.has_pixels:
        return None
    number = record.attributes["IMAGE"]["instance_number"]
    return sampling_order(number, record.sop_instance_uid, representative=record.representative)
