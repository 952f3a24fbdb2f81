"""Who runs on a data folder: one node at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cbmir_node.errors import ConfigurationError

_LOCK_PATIENCE_S = 1.0
_LOCK_FILE = "node.lock"


def make_data_folder(data_dir: Path) -> None:
    """Make the data folder, if it is not there, for this user only: it holds patients' data.

    Raises
    ------
    ConfigurationError
        It cannot be made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"data_dir: cannot create {data_dir}: {error.strerror}; "
            "name another folder with --data-dir"
        ) from error


def is_node_running(data_dir: Path) -> bool:
    """Tell whether a node holds the data folder."""
    path = data_dir / _LOCK_FILE
    if not path.exists():
        return False
    with path.open("rb") as handle:
        return not _lock(handle, fcntl.LOCK_SH)


@contextlib.contextmanager
def only_node(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this node; the operating system frees it when the process ends."""
    path = data_dir / _LOCK_FILE
    with path.open("a+") as handle:
        deadline = time.monotonic() + _LOCK_PATIENCE_S  # somebody may be asking `is_node_running`
        while not _lock(handle, fcntl.LOCK_EX):
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise ConfigurationError(
                f"data_dir: another node already runs on {data_dir}; stop it or choose another"
            )
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def _lock(handle: IO[str] | IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
