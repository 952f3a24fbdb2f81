"""What the decoder child runs: one job after the other, within limits of memory and time.

`decoder_process` starts it and asks it.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from cbmir_node.errors import CbmirError, DecoderDiedError
from cbmir_node.imaging.transcoding import transcode

Job = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of this room and its arguments."""

Answer = tuple[Exception | None, Any]
"""What it raised, or what it returned."""

PROGRESS: Final = None
"""Comes before the answer, as often as there is any."""

_ALARM_GRACE_S: Final = 2
_MIB: Final = 1 << 20


def serve(connection: Connection[Any, Any], memory_mib: int, timeout_s: float) -> None:
    """Answer jobs until the parent closes the pipe or dies.

    Parameters
    ----------
    connection : Connection
        Gets "ready" first, then brings a `Job` and gets its `Answer`, by turns.
    memory_mib : int
        What a job may take on top of what is mapped now.
    timeout_s : float
        Per job, and between two signs of progress.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)  # pydicom logs what ends up in the answer
    _limit_memory(memory_mib)

    def limit_time() -> None:
        # should the parent be killed meanwhile, nobody else ends a codec that never returns
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _ALARM_GRACE_S)

    def progress() -> None:
        limit_time()
        connection.send(PROGRESS)

    try:
        connection.send("ready")
        while True:
            job = connection.recv()
            limit_time()
            connection.send(_answer(job, memory_mib, progress))
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, ConnectionError):
        return


def _answer(job: Job, memory_mib: int, progress: Callable[[], None]) -> Answer:
    function, arguments = job
    if function is transcode:  # of all frames: it may take as long as it gets on
        arguments = (*arguments, progress)
    try:
        return None, function(*arguments)
    except (CbmirError, OSError) as error:
        return error, None
    except MemoryError:
        return DecoderDiedError(f"decoding needed more than {memory_mib} MiB"), None


def _limit_memory(memory_mib: int) -> None:
    """Limit the address space to what is mapped now plus the limit.

    Libraries and thread stacks map hundreds of MiB that decoding does not use, more on machines
    with many cores; counting them would make the setting mean something else on each.
    """
    mapped_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = mapped_pages * os.sysconf("SC_PAGE_SIZE") + memory_mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
