"""What was acknowledged is kept, whatever dies: archive, catalogue and index, each once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import CTImageStorage, generate_uid
from sqlalchemy import Connection, func, select

from cbmir_node.archive.store import Archive
from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.catalog.statistics import count_states
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.config import Settings
from cbmir_node.dicom.server import DicomServer
from cbmir_node.errors import CatalogError
from cbmir_node.intake import Intake
from cbmir_node.node import open_search
from cbmir_node.stores import Stores
from cbmir_node.verification import Verification
from tests.dicom.peers import EXPLICIT, association, until
from tests.end_to_end.conftest import RunningNode, run_cli
from tests.objects import make_object, write
from tests.small_node import open_small_stores, states, vectors_of_each

ASSOCIATIONS = 4
ROUNDS = 2
EMBED_TIMEOUT_S = 120.0
END_TIMEOUT_S = 30.0

StartNode = Callable[..., RunningNode]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open a data folder with a tiny network, beside the node that is to run on it."""
    opened = open_small_stores(Settings(data_dir=tmp_path / "data"))
    yield opened
    opened.close()


class Sender(threading.Thread):
    """An association that sends new objects until the node is gone or it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.study = generate_uid()
        self.acknowledged: list[str] = []
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with association(self.port, (CTImageStorage, EXPLICIT), release=False) as opened:
            while not self.enough.is_set() and opened.is_established:
                dataset = make_object(StudyInstanceUID=self.study, size=64)
                with contextlib.suppress(RuntimeError):  # the association ended meanwhile
                    if opened.send_c_store(dataset).get("Status") == 0:
                        self.acknowledged.append(str(dataset.SOPInstanceUID))


def acknowledged_by(senders: list[Sender]) -> list[str]:
    return [uid for sender in senders for uid in list(sender.acknowledged)]


def wait_until_embedded(stores: Stores) -> None:
    model = stores.registry.active().row
    until(lambda: count_states(stores.catalog, model)["pending"] == 0, EMBED_TIMEOUT_S)


def assert_kept_once(stores: Stores, acknowledged: list[str]) -> None:
    """Check archive, catalogue and index against what was acknowledged and against each other."""
    columns = schema.instances.c
    query = select(columns.id, columns.sop_instance_uid, columns.path, columns.content_sha256)
    with stores.catalog.read() as connection:
        rows = connection.execute(query).all()
    assert set(Counter(row.sop_instance_uid for row in rows).values()) == {1}
    assert set(acknowledged) <= {row.sop_instance_uid for row in rows}
    assert sorted(row.path for row in rows) == sorted(stores.archive.files())
    for row in rows:
        assert stores.archive.content_sha256(row.path) == row.content_sha256
    assert set(vectors_of_each(stores).values()) == {1}
    cache = open_search(stores, writable=False).active_cache()
    cache.catch_up()
    places = VectorLookup(stores.catalog, stores.registry.active().row, "embedding").in_groups(
        "instance", [row.id for row in rows]
    )
    assert sorted(places.instance) == sorted(row.id for row in rows)
    assert len(cache) == len(rows)
    assert np.isfinite(cache.vectors(places.vector)).all()
    assert cache.disagreements() == []


def temporary_files(stores: Stores) -> list[Path]:
    return list((stores.archive.root / "incoming").iterdir())


def test_kill_9_amid_four_associations_loses_nothing_acknowledged(
    stores: Stores, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that there is a snapshot with a tail after the restart
    monkeypatch.setenv("CBMIR_INDEX__SNAPSHOT_ROWS", "20")
    folder = stores.settings.data_dir
    acknowledged: list[str] = []
    for number in range(ROUNDS):
        node = start_node(folder)
        senders = [Sender(node.dicom_port) for _ in range(ASSOCIATIONS)]
        wanted = 30 + 25 * number

        def enough(senders: list[Sender] = senders, wanted: int = wanted) -> bool:
            served = all(sender.acknowledged for sender in senders)
            return served and len(acknowledged_by(senders)) >= wanted

        until(enough, 60)
        node.kill()
        for sender in senders:
            sender.join(60)
        acknowledged += acknowledged_by(senders)
    assert len(acknowledged) == len(set(acknowledged))
    left_over = Verification(stores).findings(deep=True)
    assert {finding.kind for finding in left_over} <= {"file without a row"}
    for uid in acknowledged:
        assert not [finding for finding in left_over if uid in finding.subject]
    mended = run_cli(folder, "verify", "--repair")
    assert mended.returncode == 0, mended.stdout
    assert Verification(stores).findings() == []
    start_node(folder)
    wait_until_embedded(stores)
    assert temporary_files(stores) == []
    assert set(states(stores, acknowledged)) == {"embedded"}
    assert_kept_once(stores, acknowledged)


def send_some(node: RunningNode, number: int) -> list[str]:
    """Send objects over one association; return the UIDs acknowledged."""
    sender = Sender(node.dicom_port)
    until(lambda: len(sender.acknowledged) >= number, 60)
    sender.enough.set()
    sender.join(60)
    return sender.acknowledged


def processes_of(node: RunningNode) -> dict[int, str]:
    """Return number and command line of every living process the node started, itself included."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == node.process.pid and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def worker_of(node: RunningNode) -> int:
    """Return the process number of the node's worker."""
    for pid, command in processes_of(node).items():
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        if int(parent) == node.process.pid and "spawn_main" in command:
            return pid
    raise AssertionError(f"no worker: {processes_of(node)}")


def test_a_killed_worker_is_started_again_and_loses_nothing(
    stores: Stores, start_node: StartNode
) -> None:
    node = start_node(stores.settings.data_dir)
    model = stores.registry.active().row
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_some, node, 60)
        until(lambda: count_states(stores.catalog, model)["embedded"] > 0, EMBED_TIMEOUT_S)
        os.kill(worker_of(node), signal.SIGKILL)
        acknowledged = sending.result(120)
    acknowledged += send_some(node, 5)
    wait_until_embedded(stores)
    assert "the worker ended with code -9; a new one starts" in node.log
    assert "cbmir_worker_restarts_total 1" in node.get("/metrics")[1]
    assert_kept_once(stores, acknowledged)
    assert len(vectors_of_each(stores)) == len(acknowledged)
    assert run_cli(stores.settings.data_dir, "verify").returncode == 0


def test_sigterm_to_the_whole_group_ends_in_order(stores: Stores, start_node: StartNode) -> None:
    """As a service manager does it; the node, not the signal, ends its children."""
    node = start_node(stores.settings.data_dir)
    acknowledged = send_some(node, 20)
    os.killpg(node.process.pid, signal.SIGTERM)
    assert node.process.wait(END_TIMEOUT_S) == 0
    until(lambda: not processes_of(node), END_TIMEOUT_S)
    assert "Traceback" not in node.log
    assert set(states(stores, acknowledged)) <= {"embedded", "pending"}
    start_node(stores.settings.data_dir)
    wait_until_embedded(stores)
    assert_kept_once(stores, acknowledged)


def test_a_killed_node_leaves_no_process_behind(stores: Stores, start_node: StartNode) -> None:
    node = start_node(stores.settings.data_dir)
    send_some(node, 10)
    until(lambda: len(processes_of(node)) >= 3, 60)  # node, worker, decoder
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait(END_TIMEOUT_S)
    until(lambda: not processes_of(node), END_TIMEOUT_S)


def test_a_second_node_on_the_same_folder_is_refused(stores: Stores, start_node: StartNode) -> None:
    node = start_node(stores.settings.data_dir)
    ports = ("--dicom-port", "0", "--http-port", "0")
    second = run_cli(stores.settings.data_dir, "serve", *ports)
    assert second.returncode == 1
    assert f"another node already runs on {stores.settings.data_dir}" in second.stderr
    assert "Traceback" not in second.stderr
    assert node.get("/healthz")[0] == 200
    assert node.stop() == 0


# --- the order on the way in, and what may go wrong in between ---


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", create=True)
    yield opened
    opened.close()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record, in order, what makes an object durable."""
    recorded: list[str] = []

    def name_of(descriptor: int) -> str:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return "temporary file" if path.suffix == ".part" else path.name

    def recording(name: str, original: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            original(descriptor)
            recorded.append(f"{name} {name_of(descriptor)}")

        return call

    rename, write_transaction = Path.rename, Catalog.write

    def renaming(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if path.suffix == ".part":
            recorded.append("rename")
        return renamed

    @contextmanager
    def committing(catalog: Catalog) -> Iterator[Connection]:
        with write_transaction(catalog) as connection:
            yield connection
        recorded.append("commit")

    monkeypatch.setattr(os, "fdatasync", recording("fdatasync", os.fdatasync))
    monkeypatch.setattr(os, "fsync", recording("fsync", os.fsync))
    monkeypatch.setattr(Path, "rename", renaming)
    monkeypatch.setattr(Catalog, "write", committing)
    return recorded


def test_an_object_is_durable_before_it_is_acknowledged(
    tmp_path: Path, catalog: Catalog, steps: list[str]
) -> None:
    with catalog.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    intake = Intake(Archive(tmp_path / "archive"), catalog)
    server = DicomServer(Settings(dicom={"port": 0}), intake, catalog, None)  # type: ignore[arg-type]
    server.start()
    study = generate_uid()
    try:
        with association(server.port, (CTImageStorage, EXPLICIT)) as opened:
            steps.clear()
            for _ in range(2):
                status = opened.send_c_store(make_object(StudyInstanceUID=study))
                assert status.Status == 0
                steps.append("acknowledged")
    finally:
        server.stop()
        intake.close()
    (folder,) = (tmp_path / "archive").glob(f"*/{study}")
    new_study = [f"fsync {folder.parent.name}"]
    tail = ["rename", f"fsync {study}", "commit", "acknowledged"]
    synced = ["fdatasync temporary file"]
    assert steps == [*synced, *new_study, *tail, *synced, *tail]


@contextmanager
def refusing(_catalog: Catalog) -> Iterator[Connection]:
    raise CatalogError("the database is full")
    yield  # pragma: no cover


def test_a_refused_commit_leaves_acknowledged_files_alone(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again, it must not take the first one's file with it; a left-over is `verify`'s."""
    intake = Intake(Archive(tmp_path / "archive"), catalog)
    file = write(make_object(), tmp_path / "one.dcm")
    intake.accept_file(file)
    kept = list(intake.archive.files())
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "write", refusing)
        with pytest.raises(CatalogError, match="full"):
            intake.accept_file(file)
    assert set(kept) <= set(intake.archive.files())
    assert intake.accept_file(file).outcome is StoreOutcome.DUPLICATE
    intake.close()


def accept_in_time(intake: Intake, file: Path) -> None:
    """Take a file in; fail instead of waiting for ever where nobody answers."""
    answer: Future[None] = Future()

    def accept() -> None:
        try:
            intake.accept_file(file)
        except CatalogError as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=accept, daemon=True).start()
    answer.result(END_TIMEOUT_S)


def test_an_unexpected_error_fails_its_object_and_nothing_else(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbmir_node.catalog.reception import group_commit

    intake = Intake(Archive(tmp_path / "archive"), catalog)
    good, bad = make_object(), make_object()
    original = group_commit.register

    def register(connection: Connection, record: object, *rules: object) -> object:
        if record.sop_instance_uid == bad.SOPInstanceUID:  # type: ignore[attr-defined]
            raise ValueError("nobody thought of this")
        return original(connection, record, *rules)  # type: ignore[arg-type]

    monkeypatch.setattr(group_commit, "register", register)
    with pytest.raises(CatalogError, match="nobody thought of this"):
        accept_in_time(intake, write(bad, tmp_path / "bad.dcm"))
    accept_in_time(intake, write(good, tmp_path / "good.dcm"))
    with catalog.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.instances)).scalar() == 1
    intake.close()


def test_a_starting_node_leaves_alone_what_another_process_receives(tmp_path: Path) -> None:
    """``import`` may be at work when a node starts and sweeps."""
    code = (
        "import pathlib, sys, time; from cbmir_node.archive.store import Archive\n"
        "with Archive(pathlib.Path(sys.argv[1])).receive(): print(flush=True); time.sleep(60)"
    )
    folder = tmp_path / "archive"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        archive = Archive(folder)
        swept = archive.sweep()
        process.kill()
    assert swept == 0
    assert archive.sweep() == 1
