"""The worker: hostile objects, leases, several workers, another model, a broken-off reindex."""

from __future__ import annotations

import multiprocessing.spawn
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.statistics import count_states
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.config import Settings
from cbmir_node.errors import DecoderUnavailableError, ModelError
from cbmir_node.node import open_search
from cbmir_node.search.query import Example, SimilarityAnswer, SimilarityQuery
from cbmir_node.stores import Stores, open_stores, process_identity
from cbmir_node.worker import TRIES, Worker
from tests.models import build_model
from tests.objects import make_object
from tests.small_node import (
    archive_file,
    drain,
    keep,
    open_small_stores,
    states,
    vectors_of_each,
    work,
)

ABSURD_SIDE = 11000  # 242 MB of pixels: more than 512 MiB once they are floats


@pytest.fixture
def open_node(tmp_path: Path) -> Iterator[Callable[..., Stores]]:
    """Open a data folder with a tiny network; keyword arguments are sections of `Settings`."""
    opened: list[Stores] = []

    def open_it(**sections: dict[str, object]) -> Stores:
        settings = Settings.model_validate({"data_dir": tmp_path / "data", **sections})
        opened.append(open_small_stores(settings))
        return opened[-1]

    yield open_it
    for stores in opened:
        stores.close()


def embed_all(stores: Stores) -> None:
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())


def make_endless(path: Path) -> None:
    """Put a pipe that nobody writes to in a file's place: reading it never ends."""
    path.unlink()
    os.mkfifo(path)


def make_absurd(path: Path) -> None:
    """Make a file's picture so large that decoding breaks the memory limit; a sparse file."""
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = ABSURD_SIDE
    dataset.save_as(path)
    length = ABSURD_SIDE * ABSURD_SIDE * 2
    position = dcmread(path)["PixelData"].file_tell or 0
    with path.open("r+b") as file:
        file.seek(position - 4)
        file.write(length.to_bytes(4, "little"))
        file.truncate(position + length)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (make_endless, "decoding took longer than 1 s (2 tries)"),
        (make_absurd, "decoding needed more than 512 MiB (2 tries)"),
    ],
)
def test_a_file_that_ends_its_decoder_fails_alone(
    open_node: Callable[..., Stores],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    timeout_s = 1 if spoil is make_endless else 60
    stores = open_node(imaging={"decode_timeout_s": timeout_s, "decode_memory_mib": 512})
    uids = keep(stores, tmp_path, *(make_object() for _ in range(5)))
    spoil(archive_file(stores, uids[2]))
    embed_all(stores)
    assert states(stores, uids) == ["embedded", "embedded", "failed", "embedded", "embedded"]
    assert work(stores)[uids[2]] == ("failed", reason, TRIES)
    assert vectors_of_each(stores) == {uid: int(uid != uids[2]) for uid in uids}


def test_every_object_without_a_vector_says_why(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    stores = open_node()
    good, report, missing, damaged, truncated = keep(
        stores,
        tmp_path,
        make_object(),
        make_object(Rows=None, Columns=None, PixelData=None, Modality="SR"),
        *(make_object() for _ in range(3)),
    )
    archive_file(stores, missing).unlink()
    archive_file(stores, damaged).write_bytes(b"no DICOM at all" * 100)
    whole = archive_file(stores, truncated)
    os.truncate(whole, whole.stat().st_size - 100)
    embed_all(stores)
    found = work(stores)
    assert found[good][:2] == ("embedded", "")
    assert found[report][0] == "no_pixels"
    assert found[report][1]
    for uid, reason in {
        missing: "FileNotFoundError",
        damaged: "DICOM",
        truncated: "Pixel Data has 412 bytes, 512 are needed",
    }.items():
        assert found[uid][0] == "failed"
        assert reason in found[uid][1]
    assert vectors_of_each(stores) == {uid: int(uid == good) for uid in found}


def test_a_decoder_that_cannot_start_is_no_fault_of_the_objects(
    open_node: Callable[..., Stores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_node()
    uids = keep(stores, tmp_path, *(make_object() for _ in range(4)))
    resource_tracker.ensure_running()  # is spawned by the same executable
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    with pytest.raises(DecoderUnavailableError, match="exit code 1"):
        embed_all(stores)
    assert set(work(stores).values()) == {("pending", "", 0)}
    monkeypatch.undo()
    embed_all(stores)
    assert states(stores, uids) == ["embedded"] * 4


def dead_process() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(60)
    return process.pid


@pytest.mark.parametrize("owner", ["dead", "own number used again"])
def test_leases_of_dead_workers_of_this_host_are_taken_over_at_once(
    open_node: Callable[..., Stores], tmp_path: Path, owner: str
) -> None:
    # in a container every worker has the same process number
    identity = f"{socket.gethostname()}/{dead_process()}" if owner == "dead" else process_identity()
    stores = open_node()
    uids = keep(stores, tmp_path, make_object(), make_object())
    model = stores.registry.active()
    assert len(WorkQueue(stores.catalog, identity, 3600).claim(model.row, 10)) == 2
    embed_all(stores)
    assert states(stores, uids) == ["embedded", "embedded"]


def test_leases_of_the_living_and_of_other_hosts_are_respected(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    stores = open_node()
    uids = keep(stores, tmp_path, *(make_object() for _ in range(3)))
    model = stores.registry.active()
    for identity in (f"{socket.gethostname()}/{os.getppid()}", "another-host/1"):
        assert len(WorkQueue(stores.catalog, identity, 3600).claim(model.row, 1)) == 1
    embed_all(stores)
    assert states(stores, uids) == ["pending", "pending", "embedded"]


def test_two_workers_share_the_queue_and_do_nothing_twice(
    open_node: Callable[..., Stores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_node(worker={"claim": 2})
    uids = keep(stores, tmp_path, *(make_object() for _ in range(24)))
    model = stores.registry.active()
    done: list[int] = []
    ready = threading.Barrier(2)

    def run(worker: Worker) -> None:
        ready.wait(60)
        done.append(drain(worker, model))

    with Worker(stores) as one:
        monkeypatch.setattr("cbmir_node.worker.process_identity", lambda: "another-host/1")
        with Worker(stores) as other:
            threads = [threading.Thread(target=run, args=(worker,)) for worker in (one, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
    assert sum(done) == len(uids)
    assert min(done) > 0
    assert vectors_of_each(stores) == dict.fromkeys(uids, 1)
    assert rows_ever_written(stores) == len(uids)


def rows_ever_written(stores: Stores) -> int:
    """Return the highest vector row number: SQLite never gives one twice."""
    with stores.catalog.read() as connection:
        return int(connection.execute(select(func.max(schema.vectors.c.id))).scalar_one())


def test_a_new_model_takes_over_when_it_has_caught_up(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    stores = open_node(worker={"claim": 4})
    datasets = [make_object() for _ in range(8)]
    uids = keep(stores, tmp_path, *datasets)
    embed_all(stores)
    first = stores.registry.active()
    search = open_search(stores, writable=False)

    def ask() -> SimilarityAnswer:
        study = Example("STUDY", str(datasets[0].StudyInstanceUID))
        return search.answer(SimilarityQuery([study]))

    assert ask().model == "tiny:1"
    second = stores.install(build_model(tmp_path / "second.onnx", name="second", seed=1))
    assert stores.use(second) == "next"
    with Worker(stores) as worker:
        assert worker.work_once(second) == 4
        assert stores.registry.switch_if_ready() is None
        assert ask().model == "tiny:1"
        late = keep(stores, tmp_path, make_object())  # is needed by both
        drain(worker, second)
        assert count_states(stores.catalog, first.row)["pending"] == 1
        answer = ask()
        assert (answer.model, len(answer.matches)) == ("tiny:1", 7)
        drain(worker, first)
    assert stores.registry.switch_if_ready() == stores.registry.find("second")
    answer = ask()
    assert (answer.model, len(answer.matches)) == ("second:1", 8)
    assert vectors_of_each(stores) == dict.fromkeys([*uids, *late], 1)


def test_of_a_long_series_a_few_images_are_embedded(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    stores = open_node(embedding={"images_per_series": 4}, worker={"claim": 5})
    series = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "PatientID": "P"}
    images = [make_object(**series, InstanceNumber=number) for number in range(1, 17)]
    uids = keep(stores, tmp_path, *images[:8])
    embed_all(stores)
    assert states(stores, uids) == ["skipped", "embedded"] * 4
    uids += keep(stores, tmp_path, *images[8:])
    embed_all(stores)
    expected = ["embedded" if number % 4 == 0 else "skipped" for number in range(1, 17)]
    assert states(stores, uids) == expected
    assert [vectors_of_each(stores)[uid] for uid in uids] == [
        int(s == "embedded") for s in expected
    ]


def test_an_interrupted_reindex_goes_on_where_it_stopped(
    open_node: Callable[..., Stores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_node()
    datasets = [make_object() for _ in range(12)]
    uids = keep(stores, tmp_path, *datasets)
    embed_all(stores)
    model = stores.registry.active()
    obstacle = archive_file(stores, uids[6])
    content = obstacle.read_bytes()
    make_endless(obstacle)
    monkeypatch.setenv("CBMIR_WORKER__CLAIM", "3")
    monkeypatch.setenv("CBMIR_EMBEDDING__BATCH_SIZE", "1")
    command = [sys.executable, "-c", "from cbmir_node.cli import main; main()", "reindex"]
    command += ["--data-dir", str(stores.settings.data_dir)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while (left := count_states(stores.catalog, model.row)["pending"]) != 6:
        assert time.monotonic() < deadline, f"{left} pending"
        assert process.poll() is None
        time.sleep(0.1)
    study = Example("STUDY", str(datasets[8].StudyInstanceUID))  # not embedded again yet
    answer = open_search(stores, writable=False).answer(SimilarityQuery([study]))
    assert len(answer.matches) == 11
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    obstacle.unlink()
    obstacle.write_bytes(content)
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "resuming: 6 instances wait" in again.stdout
    assert count_states(stores.catalog, model.row)["embedded"] == 12
    assert vectors_of_each(stores) == dict.fromkeys(uids, 1)
    assert rows_ever_written(stores) == 24  # each instance twice: before, and once by a reindex


def test_a_network_that_does_not_run_fails_no_object(
    open_node: Callable[..., Stores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU out of memory is no object's fault: the queue waits until the network runs again."""
    stores = open_node()
    uids = keep(stores, tmp_path, *(make_object() for _ in range(3)))

    def out_of_memory(*_: object, **__: object) -> None:
        raise ModelError("CUDA out of memory")

    stop = threading.Event()
    with monkeypatch.context() as broken, Worker(stores) as worker:
        broken.setattr("cbmir_node.embedding.session.EmbeddingModel.embed", out_of_memory)
        running = threading.Thread(target=worker.run, args=(stop,))
        running.start()
        time.sleep(2)
        assert running.is_alive()
        stop.set()
        running.join(60)
        assert {state for state, _, _ in work(stores).values()} == {"pending"}
    embed_all(stores)
    assert {uid: work(stores)[uid][0] for uid in uids} == dict.fromkeys(uids, "embedded")


def test_the_network_of_a_model_that_rests_is_freed(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    stores = open_node()
    keep(stores, tmp_path, make_object())
    first = stores.registry.active()
    with Worker(stores) as worker:
        assert worker.work_round() == 1
        second = stores.install(build_model(tmp_path / "second.onnx", name="second", seed=1))
        stores.use(second)
        assert worker.work_round() == 1
        assert set(worker._models) == {first.sha256, second.sha256}
        assert stores.registry.switch_if_ready() is not None
        assert worker.work_round() == 0
        assert set(worker._models) == {second.sha256}


def test_what_an_older_node_did_not_keep_of_a_model_is_read_from_its_file(
    open_node: Callable[..., Stores],
) -> None:
    stores = open_node()
    described = stores.registry.active()
    assert (described.code_bits, len(described.labels or ())) == (16, 4)
    with stores.catalog.write() as connection:
        connection.execute(schema.models.update().values(labels=None, code_bits=0))
    open_stores(stores.settings, create=True).close()
    assert stores.registry.active() == described
