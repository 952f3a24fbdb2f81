"""Files of the archive that no row names any more, or none yet.

A file's name is written down here in the transaction that takes it from its row, and forgotten
after the file is gone: a crash in between leaves a file that is known to be of no use, not one
that might have been received.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.upsert import insert_unless_present

_unused = schema.unused_files.c
_FORGET = delete(schema.unused_files).where(_unused.path == bindparam("unused_path"))
_PROLONG = (
    update(schema.unused_files)
    .where(_unused.path == bindparam("unused_path"))
    .values(since=bindparam("until"))
)
_PATHS_AT_ONCE = 500


def name_unused(connection: Connection, paths: Iterable[str], since: float | None = None) -> None:
    """Write down files that may be removed, in the caller's transaction.

    Parameters
    ----------
    connection : Connection
    paths : iterable of str
        Relative to the archive; empty ones, of instances without a file, are left out.
    since : float, optional
        From when on, seconds since 1970; at once by default.
    """
    moment = time.time() if since is None else since
    rows = [{"path": path, "since": moment} for path in paths if path]
    insert_unless_present(connection, schema.unused_files, rows)


def forget_unused(catalog: Catalog, paths: Sequence[str]) -> None:
    """Forget files that are gone."""
    if paths:
        with catalog.write() as connection:
            connection.execute(_FORGET, [{"unused_path": path} for path in paths])


def reserve_files(catalog: Catalog, paths: Sequence[str], until: float) -> None:
    """Write down files that are about to be written, before they are.

    Unless `take_into_use` is called before `until`, they are removed like any unused file.
    """
    with catalog.write() as connection:
        name_unused(connection, paths, until)


def prolong_reservation(catalog: Catalog, paths: Sequence[str], until: float) -> None:
    """Keep reserved files from being removed until another moment, earlier or later."""
    if paths:
        with catalog.write() as connection:
            connection.execute(_PROLONG, [{"unused_path": path, "until": until} for path in paths])


def take_into_use(connection: Connection, paths: Sequence[str], margin_s: float) -> bool:
    """Make files ones that rows name, in the caller's transaction.

    Returns False, and the caller must roll back, when a reservation ended or is about to.
    """
    limit = time.time() + margin_s
    taken = 0
    for first in range(0, len(paths), _PATHS_AT_ONCE):
        some = _unused.path.in_(paths[first : first + _PATHS_AT_ONCE])
        live = delete(schema.unused_files).where(some, _unused.since > limit)
        taken += connection.execute(live).rowcount
    return taken == len(paths)


def unused_files(catalog: Catalog, limit: int, after: str = "") -> list[str]:
    """Return some files that may be removed now, in the order of their names."""
    due = (
        select(_unused.path)
        .where(_unused.since <= time.time(), _unused.path > after)
        .order_by(_unused.path)
        .limit(limit)
    )
    with catalog.read() as connection:
        return list(connection.execute(due).scalars())


def all_unused_files(catalog: Catalog) -> set[str]:
    """Return every file written down, reserved ones too."""
    with catalog.read() as connection:
        return set(connection.execute(select(_unused.path)).scalars())
