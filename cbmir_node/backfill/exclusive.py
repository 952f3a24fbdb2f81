"""One pull from a PACS at a time: those of cron must not add up."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from cbmir_node.errors import ConfigurationError


@contextlib.contextmanager
def only_pull(data_dir: Path, source: str) -> Iterator[None]:
    """Hold a PACS for this process; the operating system frees it when the process ends.

    Parameters
    ----------
    data_dir : Path
        Exists.
    source : str
        AE title or URL of the PACS.

    Raises
    ------
    ConfigurationError
        Another process holds it.
    """
    # a URL is no file name
    path = data_dir / f"pull-{hashlib.sha256(source.encode()).hexdigest()[:16]}.lock"
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise ConfigurationError(
                f"a pull from {source} already runs (pid {handle.read().strip()}); let it end, or "
                "name single studies by --study"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
