"""Keeps the embedding worker running beside the node."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from cbmir_node.config import Settings
from cbmir_node.logs import RecentTroubles, received_troubles
from cbmir_node.worker import worker_process

_LONGEST_PAUSE_S = 30.0
_STOP_TIMEOUT_S = 15.0

_log = logging.getLogger(__name__)


class WorkerSupervisor:
    """Starts the worker process and starts it again when it dies.

    Parameters
    ----------
    settings : Settings
        Handed to the worker.
    troubles : RecentTroubles
        Gets the worker's warnings and errors too.
    """

    def __init__(self, settings: Settings, troubles: RecentTroubles) -> None:
        self._settings = settings
        self._troubles = troubles
        self._stop = threading.Event()
        self._process: SpawnProcess | None = None
        self._thread = threading.Thread(target=self._run, name="worker-supervisor", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Start the worker in the background."""
        self._thread.start()

    def is_running(self) -> bool:
        """Tell whether the worker process is alive."""
        return self._process is not None and self._process.is_alive()

    def stop(self) -> None:
        """End the worker; what it holds is given back or taken over after a restart."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        context = multiprocessing.get_context("spawn")
        pause = 1.0
        while not self._stop.is_set():
            stop_worker = context.Event()
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(
                target=worker_process,
                args=(self._settings, stop_worker, writer),
                name="cbmir-worker",
            )
            started = time.monotonic()
            process.start()
            writer.close()  # the worker's end alone: when it dies, reading ends
            self._process = process
            while process.is_alive() and not self._stop.wait(0.2):
                self._take_troubles(reader)
            if self._stop.is_set():
                stop_worker.set()
                reader.close()
                _end(process)
                return
            self._take_troubles(reader)
            reader.close()
            self.restarts += 1
            if time.monotonic() - started > _LONGEST_PAUSE_S:
                pause = 1.0  # it had worked for a while: this is a new trouble
            _log.error("the worker ended with code %s; a new one starts", process.exitcode)
            self._stop.wait(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _take_troubles(self, reader: Connection) -> None:
        for trouble in received_troubles(reader):
            self._troubles.add(trouble)


def _end(process: SpawnProcess) -> None:
    """Wait for a process that was asked to end; kill it when it does not."""
    process.join(_STOP_TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()
