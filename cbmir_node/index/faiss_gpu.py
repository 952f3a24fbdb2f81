"""Exact search with a copy of the base on a GPU.

FAISS GPU indexes allow neither two searches at a time nor removals, and the classic build ignores
selectors (facebookresearch/faiss, wiki "Faiss on the GPU"). So one thread owns the copy and
answers waiting queries together, hidden rows are fetched in excess and dropped, and whatever does
not fit this (narrow filters, the tail) is computed on the CPU, whose vectors are the truth.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

import numpy as np

from cbmir_node.errors import ConfigurationError
from cbmir_node.index.faiss_cpu import FlatIndex
from cbmir_node.index.protocol import BoolArray, Float32Array, FloatMetric, Int64Array
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import load_faiss

Device = Literal["auto", "gpu", "cpu"]

_LARGEST_FETCH = 2048
"""Largest k of FAISS GPU indexes."""

_TF32_ERROR = 2.0**-10
"""Relative error of products whose factors a GPU may round to TF32 (10 bits of mantissa)."""

_log = logging.getLogger(__name__)


def flat_index(
    dimension: int, metric: FloatMetric, device: Device, base: Rows | None = None
) -> FlatIndex:
    """Build the exact index on the device that is wanted and there.

    Raises
    ------
    ConfigurationError
        ``gpu`` is wanted, but FAISS sees none or cannot place the vectors on it.
    MissingPackageError
        FAISS is not installed.
    """
    if device == "cpu" or (device == "auto" and not gpu_count()):
        return FlatIndex(dimension, metric, base)
    if not gpu_count():
        raise ConfigurationError(
            "index.device is 'gpu', but FAISS sees no GPU: check the NVIDIA driver and that "
            "'cbmir-node[gpu]' is installed and 'cbmir-node[cpu]' is not, or set it to 'auto'"
        )
    try:
        return GpuFlatIndex(dimension, metric, base)
    except RuntimeError as error:  # what FAISS raises for every CUDA failure
        if device == "gpu":
            raise ConfigurationError(
                f"the GPU cannot hold the index ({error}): free its memory or set index.device "
                "to 'auto' or 'cpu'"
            ) from error
        _log.warning("the GPU cannot hold the index, searching on the CPU: %s", error)
        return FlatIndex(dimension, metric, base)


def gpu_count() -> int:
    """Return how many GPUs FAISS can use: 0 with the CPU build or without a driver."""
    return int(load_faiss().get_num_gpus())


class GpuFlatIndex(FlatIndex):
    """Exact `VectorIndex` whose base is scanned on GPU 0; see `FlatIndex` for the rest.

    Vectors added later are searched on the CPU until a new index is built with them as its base.
    """

    def __init__(self, dimension: int, metric: FloatMetric, base: Rows | None = None) -> None:
        super().__init__(dimension, metric, base)
        vectors = self.parts[0].vectors
        self._on_gpu = vectors
        self._scan_error += _TF32_ERROR
        self._scanner = _Scanner(_copy_to_gpu(vectors, metric))
        weakref.finalize(self, self._scanner.stop)

    def _scan(
        self,
        vectors: Float32Array,
        chosen: BoolArray | None,
        queries: Float32Array,
        fetch: int,
    ) -> tuple[Float32Array, Int64Array]:
        hidden = 0 if chosen is None else len(chosen) - int(np.count_nonzero(chosen))
        if vectors is not self._on_gpu or fetch + hidden > _LARGEST_FETCH:
            return super()._scan(vectors, chosen, queries, fetch)
        values, positions = self._scanner.search(queries, fetch + hidden)
        if chosen is None:
            return values, positions
        visible_first = np.argsort(~chosen[positions], axis=1, kind="stable")[:, :fetch]
        return (
            np.take_along_axis(values, visible_first, axis=1),
            np.take_along_axis(positions, visible_first, axis=1),
        )


def _copy_to_gpu(vectors: Float32Array, metric: FloatMetric) -> Any:
    """Return a FAISS index on GPU 0 that holds `vectors`."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    kind = faiss.GpuIndexFlatIP if metric == "cosine" else faiss.GpuIndexFlatL2
    index = kind(resources, vectors.shape[1])
    if len(vectors):
        index.add(vectors)
    return index


class _Request(NamedTuple):
    queries: Float32Array
    fetch: int
    answer: Future[tuple[Float32Array, Int64Array]]


class _Scanner:
    """The one thread that talks to a GPU index; requests that wait are answered together."""

    def __init__(self, index: Any) -> None:
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        threading.Thread(
            target=_serve, args=(index, self._requests), name="gpu-index", daemon=True
        ).start()

    def search(self, queries: Float32Array, fetch: int) -> tuple[Float32Array, Int64Array]:
        """Return scores and positions [M, fetch]; callable from any thread."""
        answer: Future[tuple[Float32Array, Int64Array]] = Future()
        self._requests.put(_Request(queries, fetch, answer))
        return answer.result()

    def stop(self) -> None:
        """End the thread after the requests made so far and free the GPU copy."""
        self._requests.put(None)


def _serve(index: Any, requests: queue.SimpleQueue[_Request | None]) -> None:
    running = True
    while running:
        waiting = [requests.get()]
        while not requests.empty():  # no other thread takes requests out
            waiting.append(requests.get())
        running = None not in waiting
        batch = [request for request in waiting if request is not None]
        if batch:
            _answer(index, batch)


def _answer(index: Any, batch: list[_Request]) -> None:
    queries = np.concatenate([request.queries for request in batch])
    try:
        values, positions = index.search(queries, max(request.fetch for request in batch))
    except Exception as error:  # whatever it is, the threads that wait must hear of it
        for request in batch:
            request.answer.set_exception(error)
        return
    start = 0
    for request in batch:
        end = start + len(request.queries)
        request.answer.set_result(
            (values[start:end, : request.fetch], positions[start:end, : request.fetch])
        )
        start = end
