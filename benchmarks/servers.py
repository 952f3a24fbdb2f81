"""The servers that benchmarks compare, and what they are fed."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

RUN_DIGITS = 6

_START_TIMEOUT_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Measurement(NamedTuple):
    """Images per second, and the server's CPU time per image in milliseconds."""

    rate: float
    cpu_ms: float


def figures(taken: Sequence[Measurement], floor: float) -> dict[str, float]:
    """Return median, range and ratio to the floor of some measurements."""
    rates = [one.rate for one in taken]
    return {
        "images_per_s": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "of_floor": statistics.median(rates) / floor,
        "server_cpu_ms": statistics.median(one.cpu_ms for one in taken),
    }


class Server(NamedTuple):
    """A server under test: its process and where it listens; only our node has an HTTP port."""

    process: subprocess.Popen[bytes]
    port: int
    http_port: int = 0


def make_slices(folder: Path, count: int, size: int) -> list[bytes]:
    """Return encoded CT slices; ``RUN000`` in each SOP Instance UID's place is filled in later."""
    generator = np.random.default_rng(2026)
    noise = generator.integers(0, 4096, (size, size), dtype=np.uint16)  # 12 bits stored
    study, series = generate_uid(), generate_uid()
    slices = []
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.9.7433.{'9' * RUN_DIGITS}.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientID, dataset.Modality, dataset.InstanceNumber = "BENCH", "CT", number + 1
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.roll(noise, number, 0).tobytes()
        path = folder / "template.dcm"
        dataset.save_as(path, enforce_file_format=True)
        slices.append(path.read_bytes())
    return slices


def environment(nodelay: bool) -> dict[str, str]:
    """Return the environment of client and server; DCMTK reads ``TCP_NODELAY``."""
    variables = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    return {**variables, "TCP_NODELAY": "1"} if nodelay else variables


def free_port() -> int:
    """Return a TCP port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    """Wait for a server to be ready."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException(f"{name} does not start; run it by hand to see why")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def started(
    command: list[str], nodelay: bool, name: str, ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the block, in a process group that ends with it."""
    process = subprocess.Popen(
        command,
        env=environment(nodelay),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(ready, process, name)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def node(
    folder: Path, nodelay: bool, *, embedding: bool = False, peers: Mapping[str, int] | None = None
) -> Iterator[Server]:
    """Run cbmir-node, its worker paused unless it is to embed at the same time.

    `peers` are AE titles and ports on this machine that it may send to.
    """
    ports = folder / "ports.json"
    code = "from cbmir_node.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--data-dir", str(folder / "data")]
    command += ["--dicom-port", "0", "--http-port", "0", "--ports-file", str(ports)]
    configuration = folder / "node.toml"
    configuration.write_text(
        "".join(
            f'[peers.{title}]\nhost = "127.0.0.1"\nport = {port}\n'
            for title, port in (peers or {}).items()
        )
    )
    command += ["--config", str(configuration)]
    with started(command, nodelay, "cbmir-node", ports.exists) as process:
        # an idle worker on an empty catalogue holds no lock that the receiver could wait for
        time.sleep(3)
        if not embedding:
            for worker in _workers(process.pid):
                os.kill(worker, signal.SIGSTOP)
        found = json.loads(ports.read_text())
        yield Server(process, found["dicom"], found["http"])


def _workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    children += [
        child
        for task in Path(f"/proc/{parent}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [
        int(child)
        for child in sorted(set(children))
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@contextmanager
def storescp(folder: Path, nodelay: bool) -> Iterator[Server]:
    """Run DCMTK's receiver, a process per association."""
    port = free_port()
    command = ["storescp", "--fork", "--output-directory", str(folder), str(port)]
    with started(command, nodelay, "storescp", lambda: _listens(port)) as process:
        yield Server(process, port)


@contextmanager
def orthanc(
    folder: Path, nodelay: bool, peers: Mapping[str, int] | None = None
) -> Iterator[Server]:
    """Run Orthanc, writing through to the disk as it does by default."""
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": port,
        "HttpServerEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            title: [title, "127.0.0.1", port] for title, port in (peers or {}).items()
        },
        "Plugins": [],
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings))
    with started(["Orthanc", str(file)], nodelay, "Orthanc", lambda: _listens(port)) as process:
        yield Server(process, port)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of its children that ended, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
