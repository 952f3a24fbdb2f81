"""Keeping the memory of big tensors between steps."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GIBIBYTE = 1 << 30


def keep_freed_memory() -> None:
    """Ask glibc not to give freed memory back to the kernel; does nothing with another C library.

    glibc maps every block above some megabytes anew and unmaps it when freed, so that each
    activation of each step is paid for with page faults: with one thread a fifth to a third of a
    step of the deeper networks. The process keeps its peak memory until it ends, which training
    can afford.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2 * _GIBIBYTE - 1)
    mallopt(_M_TOP_PAD, _GIBIBYTE // 4)
