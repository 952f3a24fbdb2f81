"""Finishes what the catalogue has decided: objects with a tombstone go, and files of no use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.retention.removal import Removed, remove_buried
from cbmir_node.catalog.retention.unused_files import forget_unused, unused_files

AT_ONCE = 200
"""Objects per transaction: receivers wait for it."""

Wait = Callable[[float], bool]
"""Waits for some seconds and tells whether to stop: ``threading.Event.wait``."""


def remove_buried_objects(
    catalog: Catalog, archive: Archive, wait: Wait | None = None
) -> Iterator[Removed]:
    """Remove everything that has a tombstone, batch by batch; yield what each batch was.

    Works beside receivers, and beside others that do the same. Broken off at any point, it goes on
    where it was when it is called again.

    Parameters
    ----------
    catalog : Catalog
    archive : Archive
    wait : callable, optional
        How to wait, and whether to stop before all is done.
    """
    pause = wait or threading.Event().wait
    while True:
        begin = time.monotonic()
        removed = remove_buried(catalog, AT_ONCE)
        if not removed.instances:
            return
        discard(catalog, archive, removed.paths)
        yield removed
        # the others have their turn: SQLite lets nobody queue for its one writer
        if pause(time.monotonic() - begin):
            return


def discard(catalog: Catalog, archive: Archive, paths: Sequence[str]) -> None:
    """Remove files whose names a committed transaction has written down as unused."""
    archive.remove_for_good(paths)
    forget_unused(catalog, paths)


def remove_unused_files(catalog: Catalog, archive: Archive) -> int:
    """Remove the files that were written down as unused and are still there or may be.

    Returns
    -------
    int
        How many were written down.
    """
    total, last = 0, ""
    while paths := unused_files(catalog, AT_ONCE, last):
        discard(catalog, archive, paths)
        total, last = total + len(paths), paths[-1]
    return total


def finish_removals(catalog: Catalog, archive: Archive, wait: Wait | None = None) -> int:
    """Do what an interrupted deletion left to do; return how many objects were removed."""
    removed = sum(batch.instances for batch in remove_buried_objects(catalog, archive, wait))
    remove_unused_files(catalog, archive)
    return removed
