"""Turns pending instances into vectors: claim → decode → embed → write.

A worker is a process of its own beside the node. Decoding happens in yet another process, which
may die of what it is fed; the worker knows which object that was.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import (
    Claim,
    WorkQueue,
    WorkState,
    lease_owners,
    release_leases,
)
from cbmir_node.catalog.work.series_cap import drop_displaced, skip_surplus
from cbmir_node.config import Settings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import DecoderDiedError, ModelError, NoPixelsError, PixelError
from cbmir_node.imaging.decoder_process import DecoderProcess
from cbmir_node.imaging.network_frames import NetworkInputFrame
from cbmir_node.logs import TroubleSender, configure_logging
from cbmir_node.stores import Stores, is_alive_here, open_stores, process_identity
from cbmir_node.vectorizing import frame_vectors

TRIES = 2
"""How often an object may end its decoder before it is marked as failed."""

_log = logging.getLogger(__name__)


class EventLike(Protocol):
    """An event of threads or of processes."""

    def is_set(self) -> bool:
        """Tell whether it has happened."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it."""


@dataclass(frozen=True)
class _Decoded:
    """A claim with its frames, or with the reason why it has none."""

    claim: Claim
    frames: list[NetworkInputFrame]
    state: WorkState = "pending"
    reason: str = ""
    attempts: int = 0


class Worker:
    """Embeds pending instances with every model in use; a context manager.

    Parameters
    ----------
    stores : Stores
        Opened by the caller.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._settings = stores.settings
        self._queue = WorkQueue(stores.catalog, process_identity(), self._settings.worker.lease_s)
        self._decoder = DecoderProcess(self._settings.imaging)
        self._prefetch = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._models: dict[str, EmbeddingModel] = {}
        self._problems: dict[str, str] = {}
        # a lease in this process' own name was taken by an earlier one: containers reuse numbers
        dead = [
            owner
            for owner in lease_owners(stores.catalog)
            if owner == process_identity() or is_alive_here(owner) is False
        ]
        release_leases(stores.catalog, dead)

    def __enter__(self) -> Worker:
        self._decoder.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._prefetch.shutdown()
        self._decoder.__exit__(None, None, None)
        self._queue.release()

    def run(self, stop: EventLike) -> None:
        """Work until told to stop."""
        while not stop.is_set():
            if not self.work_round():
                stop.wait(self._settings.worker.poll_s)

    def work_round(self) -> int:
        """Work once for every model in use, forget the others, and return how much was done."""
        models = self._stores.registry.in_use()
        used = {model.sha256 for model in models}
        self._models = {key: network for key, network in self._models.items() if key in used}
        return sum(self._work_or_tell(model) for model in models)

    def _work_or_tell(self, model: InstalledModel) -> int:
        """Work for a model; one that cannot run must not keep the others from it."""
        try:
            return self.work_once(model)
        except ModelError as error:
            self._queue.release()
            if str(error) != self._problems.get(model.sha256):
                _log.error("model %s:%s: %s", model.name, model.version, error)
            self._problems[model.sha256] = str(error)
            return 0

    def work_once(self, model: InstalledModel) -> int:
        """Claim some instances of `model`, embed them and return how many were finished.

        Those that a long series does not need are finished without.
        """
        claims = self._queue.claim(model.row, self._settings.worker.claim)
        if not claims:
            return 0
        most = self._settings.embedding.images_per_series
        wanted = skip_surplus(self._stores.catalog, claims, most)
        if wanted:
            network = self._network(model)
            decoded = self._decoded(wanted, network)
            for group in _groups(decoded, self._settings.embedding.batch_size):
                self._finish(group, network)
        return len(claims)

    def _network(self, model: InstalledModel) -> EmbeddingModel:
        if model.sha256 not in self._models:
            path = self._stores.models.path(model.sha256)
            network = EmbeddingModel.load(path, self._settings.embedding)
            _log.info("model %s:%s on %s", model.name, model.version, network.provider)
            self._models[model.sha256] = network
        return self._models[model.sha256]

    def _decoded(self, claims: list[Claim], network: EmbeddingModel) -> Iterator[_Decoded]:
        """Decode claims in order, one ahead of the network; keep their leases alive."""
        renewed = time.monotonic()
        ahead = self._prefetch.submit(self._decode, claims[0], network)
        for number in range(len(claims)):
            decoded = ahead.result()
            if number + 1 < len(claims):
                ahead = self._prefetch.submit(self._decode, claims[number + 1], network)
            if time.monotonic() - renewed > self._settings.worker.lease_s / 4:
                self._queue.renew(claims[number:])
                renewed = time.monotonic()
            yield decoded

    def _decode(self, claim: Claim, network: EmbeddingModel) -> _Decoded:
        path = self._stores.archive.path(claim.path)
        attempts = claim.attempts
        while True:
            attempts += 1
            try:
                frames = self._decoder.decode(
                    path, network.description.preprocessing, thumbnails=True
                )
            except DecoderDiedError as error:
                _log.warning("%s: %s", claim.sop_instance_uid, error)
                if attempts < TRIES:
                    continue
                return _Decoded(claim, [], "failed", f"{error} ({attempts} tries)", attempts)
            except NoPixelsError as error:
                return _Decoded(claim, [], "no_pixels", str(error), attempts)
            except PixelError as error:
                return _Decoded(claim, [], "failed", str(error), attempts)
            return _Decoded(claim, frames)

    def _finish(self, group: list[_Decoded], network: EmbeddingModel) -> None:
        """Embed a group of decoded instances together and record every outcome."""
        for decoded in group:
            if decoded.state != "pending":
                self._queue.finish(decoded.claim, decoded.state, decoded.reason, decoded.attempts)
        ready = [decoded for decoded in group if decoded.frames]
        if not ready:
            return
        try:
            results = _embed(ready, network)
        except ModelError as error:
            if len(ready) > 1:  # one picture must not fail its neighbours
                for decoded in ready:
                    self._finish([decoded], network)
                return
            _must_run(network)
            self._queue.finish(ready[0].claim, "failed", str(error), 1)
            return
        write_vectors(self._stores.catalog, results, _thumbnails(ready))
        drop_displaced(
            *(self._stores.catalog, ready[0].claim.model),
            [decoded.claim.instance for decoded in ready],
            self._settings.embedding.images_per_series,
        )


def _groups(decoded: Iterator[_Decoded], frames: int) -> Iterator[list[_Decoded]]:
    """Gather instances until they fill a batch of the network."""
    group: list[_Decoded] = []
    count = 0
    for one in decoded:
        group.append(one)
        count += max(1, len(one.frames))
        if count >= frames:
            yield group
            group, count = [], 0
    if group:
        yield group


def _embed(
    ready: list[_Decoded], network: EmbeddingModel
) -> list[tuple[Claim, list[FrameVectors]]]:
    """Embed the frames of several instances in one go and hand each its own."""
    vectors = iter(frame_vectors([f for decoded in ready for f in decoded.frames], network))
    return [(decoded.claim, [next(vectors) for _ in decoded.frames]) for decoded in ready]


def _thumbnails(ready: list[_Decoded]) -> dict[int, dict[int, bytes]]:
    return {
        decoded.claim.instance: {frame.frame_number: frame.thumbnail for frame in decoded.frames}
        for decoded in ready
    }


def _must_run(network: EmbeddingModel) -> None:
    """Raise `ModelError` when the network fails on a black picture too: it is no object's fault."""
    wanted = network.description.preprocessing
    network.embed(np.zeros((1, wanted.channels, wanted.height, wanted.width), dtype=np.float32))


def worker_process(settings: Settings, stop: EventLike, troubles: Connection) -> None:
    """Run a worker as the child process of a node, until told to stop or the node is gone.

    Signals that go to the whole process group are the node's to handle. Its warnings and errors
    go to `troubles` too.
    """
    configure_logging(settings.log_level, "worker")
    logging.getLogger().addHandler(TroubleSender(troubles))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    stores = open_stores(settings, create=False)
    try:
        with Worker(stores) as worker:
            worker.run(stop)
    finally:
        stores.close()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when the node has ended, however that came about."""
    parent.join()
    os._exit(0)
