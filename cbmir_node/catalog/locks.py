"""Transactions that must not overlap, on PostgreSQL; SQLite has one writer at a time anyway."""

from __future__ import annotations

import enum

from sqlalchemy import Connection, text

_NAMESPACE = 0x43424D49  # "CBMI": advisory locks are numbers that all programs share


class Lock(enum.IntEnum):
    """What a transaction can hold until its end."""

    VECTOR_ROWS = 1
    """Adding and removing vector rows. Row numbers are given when a row is inserted, not when it is
    committed: without this an index could see row 8, remember it, and miss row 7 that is committed
    a moment later."""
    MODELS_IN_USE = 2
    """Which models new instances are queued for. Receivers share it: without it an instance that is
    entered while a model is put to use could be queued for the others only."""
    HIERARCHY = 3
    """Which patients, studies and series there are, and which objects were deleted. Receivers share
    it, who deletes or moves holds it alone: without it a series could go as empty while an object
    is entered in it. Taken before the other two."""


def hold(connection: Connection, lock: Lock, *, shared: bool = False) -> None:
    """Wait for a lock and hold it until this transaction ends."""
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.execute(
            text(f"SELECT {function}(:namespace, :lock)"),
            {"namespace": _NAMESPACE, "lock": int(lock)},
        )
