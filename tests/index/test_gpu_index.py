"""Choice of the device, and the thread that owns the GPU copy (with a CPU index in its place)."""

from __future__ import annotations

import gc
import logging
import threading
import time

import faiss
import numpy as np
import pytest

from cbmir_node.errors import ConfigurationError
from cbmir_node.index import FlatIndex, GpuFlatIndex, faiss_gpu, flat_index, gpu_count
from cbmir_node.index.rows import Rows

without_gpu = pytest.mark.skipif(gpu_count() > 0, reason="needs a machine without a GPU")


@without_gpu
def test_auto_takes_the_cpu_and_gpu_is_an_error():
    assert type(flat_index(4, "cosine", "auto")) is FlatIndex
    with pytest.raises(ConfigurationError, match=r"index\.device"):
        flat_index(4, "cosine", "gpu")


@pytest.mark.skipif(gpu_count() == 0, reason="FAISS sees no GPU")
def test_auto_takes_the_gpu():
    assert type(flat_index(4, "cosine", "auto")) is GpuFlatIndex


def test_a_full_gpu_falls_back_only_when_the_device_was_left_open(monkeypatch, caplog):
    def full(vectors, metric):
        raise RuntimeError("Error in GpuMemoryReservation: out of memory")

    monkeypatch.setattr(faiss_gpu, "gpu_count", lambda: 1)
    monkeypatch.setattr(faiss_gpu, "_copy_to_gpu", full)
    with caplog.at_level(logging.WARNING):
        assert type(flat_index(4, "cosine", "auto")) is FlatIndex
    assert "out of memory" in caplog.text
    with pytest.raises(ConfigurationError, match="out of memory"):
        flat_index(4, "cosine", "gpu")


class _Gated:
    """A FAISS index that waits before it answers and notes how many queries came together."""

    def __init__(self, vectors):
        self.index = faiss.IndexFlatL2(vectors.shape[1])
        self.index.add(vectors)
        self.started, self.gate = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def search(self, queries, k):
        self.batches.append(len(queries))
        self.started.set()
        assert self.gate.wait(30)
        return self.index.search(queries, k)


def test_waiting_queries_are_answered_together():
    vectors = np.arange(60, dtype=np.float32).reshape(20, 3)
    device = _Gated(vectors)
    scanner = faiss_gpu._Scanner(device)
    answers: dict[int, np.ndarray] = {}

    def ask(number: int) -> None:
        answers[number] = scanner.search(vectors[number : number + 1], number + 1)[1]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    threads[0].start()
    assert device.started.wait(30)
    for thread in threads[1:]:
        thread.start()
    deadline = time.monotonic() + 30
    while scanner._requests.qsize() < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    device.gate.set()
    for thread in threads:
        thread.join(30)
    scanner.stop()
    assert device.batches == [1, 4]
    for number in range(5):
        assert answers[number].shape == (1, number + 1)
        assert answers[number][0, 0] == number


def test_a_failing_gpu_fails_its_queries_and_not_the_thread():
    class Broken:
        calls = 0

        def search(self, queries, k):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("CUDA error 700")
            return np.zeros((1, k), np.float32), np.zeros((1, k), np.int64)

    scanner = faiss_gpu._Scanner(Broken())
    with pytest.raises(RuntimeError, match="700"):
        scanner.search(np.zeros((1, 2), np.float32), 1)
    assert scanner.search(np.zeros((1, 2), np.float32), 1)[1].tolist() == [[0]]
    scanner.stop()


def test_the_thread_ends_with_its_index(monkeypatch):
    monkeypatch.setattr(faiss_gpu, "_copy_to_gpu", lambda vectors, metric: faiss.IndexFlatL2(2))
    before = set(threading.enumerate())
    index = GpuFlatIndex(2, "euclidean", Rows.room(0, 2, np.float32))
    (thread,) = set(threading.enumerate()) - before
    del index
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
