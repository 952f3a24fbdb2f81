"""What was deleted or rejected on purpose: SOP Instance UIDs that outlive their rows.

A tombstone is written before anything is removed and says what is still to be removed: whoever
finds one that is not done yet goes on with it, so that a crash cannot leave a deletion half-done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.locks import Lock, hold

Cause = Literal["deleted", "rejected"]
"""Why an object went: a ``deleted`` one may come again when somebody sends it, a ``rejected`` one
may not."""

_deleted, _instances = schema.deleted_objects.c, schema.instances.c
_series, _studies = schema.series.c, schema.studies.c
_UIDS_AT_ONCE = 500

# built once: they run for every object received
_CAUSE = select(_deleted.cause).where(_deleted.sop_instance_uid == bindparam("uid"))
_FORGET = delete(schema.deleted_objects).where(_deleted.sop_instance_uid == bindparam("uid"))


def cause_of(connection: Connection, sop_instance_uid: str) -> Cause | None:
    """Return why an object was deleted, or None when it was not."""
    cause: Cause | None = connection.execute(_CAUSE, {"uid": sop_instance_uid}).scalar()
    return cause


def forget_deletion(connection: Connection, sop_instance_uid: str) -> None:
    """Let an object be known again, and stay where it was not removed yet."""
    connection.execute(_FORGET, {"uid": sop_instance_uid})


def bury_studies(catalog: Catalog, studies: Sequence[int], detail: str) -> int:
    """Mark everything that some studies have now as deleted, in one commit.

    Parameters
    ----------
    catalog : Catalog
    studies : sequence of int
        Rows.
    detail : str
        Who asked for it.

    Returns
    -------
    int
        How many objects are to be removed; `removal.remove_buried` does it.
    """
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        return _bury(connection, _studies.id.in_(list(studies)), "deleted", detail)


def bury_objects(
    catalog: Catalog, objects: Sequence[tuple[str, str]], cause: Cause, detail: str, note: str
) -> bool:
    """Mark objects as deleted or rejected, whether they are here or not, in one commit.

    Does nothing and returns False when the rejection note that says so was itself rejected.

    Parameters
    ----------
    catalog : Catalog
    objects : sequence of (str, str)
        SOP Instance UID and Study Instance UID.
    cause : {"deleted", "rejected"}
    detail : str
        What asked for it.
    note : str
        SOP Instance UID of the rejection note.
    """
    with catalog.write() as connection:
        hold(connection, Lock.HIERARCHY)
        if cause_of(connection, note) == "rejected":
            return False
        for first in range(0, len(objects), _UIDS_AT_ONCE):
            some = dict(objects[first : first + _UIDS_AT_ONCE])
            _bury(connection, _instances.sop_instance_uid.in_(list(some)), cause, detail)
            _bury_absent(connection, some, cause, detail)
    return True


def _bury(connection: Connection, which: ColumnElement[bool], cause: Cause, detail: str) -> int:
    """Write the tombstones of instances; a rejected one stays rejected."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    table = schema.deleted_objects
    insertion = dialect.insert(table).from_select(
        ["sop_instance_uid", "study_instance_uid", "cause", "detail", "deleted_at", "instance"],
        select(
            _instances.sop_instance_uid,
            _studies.study_instance_uid,
            literal(cause),
            literal(detail),
            literal(time.time()),
            _instances.id,
        )
        .select_from(schema.instances.join(schema.series).join(schema.studies))
        .where(which),
    )
    new = insertion.excluded
    stays = (_deleted.cause == "rejected") & (new.cause == "deleted")
    written = connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["sop_instance_uid"],
            set_={
                "instance": new.instance,
                "cause": case((stays, _deleted.cause), else_=new.cause),
                "detail": case((stays, _deleted.detail), else_=new.detail),
                "deleted_at": new.deleted_at,
            },
        ),
        execution_options={"preserve_rowcount": True},
    )
    return int(written.rowcount)


def _bury_absent(
    connection: Connection, objects: dict[str, str], cause: Cause, detail: str
) -> None:
    """Write the tombstones of objects that are not here, so that they are refused later."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insertion = dialect.insert(schema.deleted_objects)
    rows = [
        {
            "sop_instance_uid": uid,
            "study_instance_uid": study,
            "cause": cause,
            "detail": detail,
            "deleted_at": time.time(),
        }
        for uid, study in objects.items()
    ]
    change = {"cause": cause, "detail": detail}
    connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["sop_instance_uid"],
            set_=change,
            where=or_(_deleted.cause != "rejected", literal(cause) == "rejected"),
        ),
        rows,
    )


def count_tombstones(catalog: Catalog) -> dict[str, int]:
    """Return how many objects were deleted, were rejected, and are still to be removed."""
    query = select(
        func.sum(case((_deleted.cause == "deleted", 1), else_=0)),
        func.sum(case((_deleted.cause == "rejected", 1), else_=0)),
        func.count(_deleted.instance),
    )
    with catalog.read() as connection:
        deleted, rejected, waiting = connection.execute(query).one()
    return {"deleted": deleted or 0, "rejected": rejected or 0, "to_be_removed": waiting}
