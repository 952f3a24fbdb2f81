"""Decoder processes for several threads."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cbmir_node.config import ImagingSettings
from cbmir_node.errors import DecoderUnavailableError
from cbmir_node.imaging.decoder_process import DecoderProcess

_POLL_S: Final = 0.2


class DecoderPool:
    """Lends decoder processes; use it as a context manager, or close it.

    A child is started when it is first lent, and kept: starting its interpreter takes longer
    than most images.

    Parameters
    ----------
    settings : ImagingSettings
        Of each decoder: each may take all the memory that one is allowed.
    number : int, optional
        Of decoders; one per CPU when absent.
    most_waiting : int, optional
        Threads that may wait for a decoder; any number when absent.
    """

    def __init__(
        self,
        settings: ImagingSettings,
        number: int | None = None,
        most_waiting: int | None = None,
    ) -> None:
        # the one last used is lent first: no more are ever started than work at a time
        self._idle: queue.LifoQueue[DecoderProcess] = queue.LifoQueue()
        self._is_closed = False
        self._turns = None if most_waiting is None else threading.Semaphore(most_waiting)
        for _ in range(number or os.cpu_count() or 1):
            self._idle.put(DecoderProcess(settings))

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children; one that is lent ends when it is given back."""
        self._is_closed = True
        ended = []
        with suppress(queue.Empty):
            while True:
                decoder = self._idle.get_nowait()
                decoder.close()
                ended.append(decoder)
        for decoder in ended:
            self._idle.put(decoder)

    @contextmanager
    def lend(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[DecoderProcess]:
        """Wait for a decoder and lend it.

        Raises
        ------
        DecoderUnavailableError
            All are lent, and `give_up` became True or too many wait already.
        """
        decoder = self._wait(give_up)
        try:
            yield decoder
        finally:
            if self._is_closed:
                decoder.close()
            self._idle.put(decoder)

    def _wait(self, give_up: Callable[[], bool]) -> DecoderProcess:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        if self._turns is None:
            return self._wait_long(give_up)
        if not self._turns.acquire(blocking=False):
            raise DecoderUnavailableError("all decoders are busy, and many wait; try again soon")
        try:
            return self._wait_long(give_up)
        finally:
            self._turns.release()

    def _wait_long(self, give_up: Callable[[], bool]) -> DecoderProcess:
        while True:
            try:
                return self._idle.get(timeout=_POLL_S)
            except queue.Empty:
                if give_up():
                    raise DecoderUnavailableError(
                        "all decoders are busy, and nobody waits any more"
                    ) from None
