"""Cut the node's power while it receives; count what was acknowledged and is gone.

Run ``python benchmarks/power_loss.py --help`` as root. The node keeps its data on a loop-mounted
ext4 image. Four associations send objects; then the node is killed and the image copied as it is,
without unmount or sync: the copy holds what had reached the "disk", not what the kernel still kept
in memory. The copy is mounted (ext4 replays its journal, as after a power cut), and archive and
catalogue in it are compared with the list of acknowledged objects.

A control shows that the method finds losses: beside the node, small files are written and renamed
without a sync, and counted likewise.

What it cannot show is a disk that reorders or loses what it has confirmed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from sqlalchemy import select

from cbmir_node.archive.header import read_header
from cbmir_node.archive.store import dataset_sha256
from cbmir_node.catalog import schema
from cbmir_node.config import Settings
from cbmir_node.errors import CatalogError, InvalidObjectError
from cbmir_node.stores import open_stores
from cbmir_node.verification import Verification

_IMAGE_BYTES = 2 << 30  # sparse
_START_TIMEOUT_S = 60.0
_UNMOUNT_ATTEMPTS = 50
_ROUND_TIMEOUT_S = 120.0
_CONTROL_PAUSE_S = 0.01


class Outcome(NamedTuple):
    """What one power cut left."""

    acknowledged: int
    without_row: int
    without_file: int
    left_over: int
    control_written: int
    control_lost: int


def run(*command: str | Path) -> None:
    """Run a program; show what it says when it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{command[0]} failed: {done.stderr.strip()}")


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mount an image for the block."""
    folder.mkdir()
    run("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        for attempt in range(_UNMOUNT_ATTEMPTS):  # killed processes may take a moment to let go
            done = subprocess.run(["umount", folder], capture_output=True, check=False)
            if done.returncode == 0 or attempt == _UNMOUNT_ATTEMPTS - 1:
                break
            time.sleep(0.1)
        folder.rmdir()


@contextmanager
def node(data_dir: Path, ports_file: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Run the node; yield its DICOM port and what kills it."""
    ports_file.unlink(missing_ok=True)
    code = "from cbmir_node.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--data-dir", str(data_dir)]
    command += ["--dicom-port", "0", "--http-port", "0", "--ports-file", str(ports_file)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "CBMIR_ARCHIVE__RESERVE_MIB": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ports_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException("the node does not start; run 'cbmir-node serve'")
            time.sleep(0.1)
        yield json.loads(ports_file.read_text())["dicom"], kill
    finally:
        kill()


def make_object(study: str, series: str, size: int) -> Dataset:
    """Return a CT slice of noise."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID, dataset.Modality = "POWER", "CT"
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    noise = np.random.default_rng().integers(0, 4096, (size, size), dtype=np.uint16)
    dataset.PixelData = noise.tobytes()
    return dataset


def send(port: int, size: int, acknowledged: list[str], stop: threading.Event) -> None:
    """Send objects over one association until it is gone; note each Success."""
    entity = AE("POWER")
    entity.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", port, ae_title="CBMIR")
    study, series = generate_uid(), generate_uid()
    while association.is_established and not stop.is_set():
        dataset = make_object(study, series, size)
        with contextlib.suppress(RuntimeError):  # the association ended meanwhile
            if association.send_c_store(dataset).get("Status") == 0:
                acknowledged.append(str(dataset.SOPInstanceUID))
    association.abort()


def write_unsynced(folder: Path, written: list[Path], stop: threading.Event) -> None:
    """Write small files the careless way until told to stop."""
    folder.mkdir()
    while not stop.wait(_CONTROL_PAUSE_S):
        partial = folder / "partial"
        partial.write_bytes(b"control" * 1000)
        written.append(partial.rename(folder / f"{len(written)}"))


def receive_until_cut(
    mount: Path, image: Path, copy: Path, objects: int, associations: int, size: int
) -> tuple[list[str], list[str]]:
    """Receive, kill, copy the image; return acknowledged UIDs and the control's file names."""
    acknowledged: list[str] = []
    written: list[Path] = []
    stop = threading.Event()
    with node(mount / "data", image.with_suffix(".ports")) as (port, kill):
        threads = [
            threading.Thread(target=send, args=(port, size, acknowledged, stop), daemon=True)
            for _ in range(associations)
        ]
        threads.append(
            threading.Thread(
                target=write_unsynced, args=(mount / "control", written, stop), daemon=True
            )
        )
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _ROUND_TIMEOUT_S
        while len(acknowledged) < objects and time.monotonic() < deadline:
            time.sleep(0.005)
        kill()
        # what is copied from here on was on the disk when, or shortly after, the node died
        run("cp", "--sparse=always", image, copy)
        stop.set()
        for thread in threads:
            thread.join(_ROUND_TIMEOUT_S)
    return acknowledged, [path.name for path in written]


def missing(data_dir: Path, acknowledged: list[str]) -> tuple[int, int, int]:
    """Return how many objects have no row, how many no intact file, how many files no row."""
    try:
        stores = open_stores(Settings(data_dir=data_dir), create=False)
    except CatalogError:
        return len(acknowledged), 0, 0  # the whole catalogue is gone
    try:
        columns = schema.instances.c
        query = select(columns.sop_instance_uid, columns.path, columns.content_sha256)
        with stores.catalog.read() as connection:
            rows = {row.sop_instance_uid: row for row in connection.execute(query)}
        damaged = 0
        for uid in acknowledged:
            if uid in rows:
                file = stores.archive.path(rows[uid].path)
                damaged += not _is_intact(file, rows[uid].content_sha256)
        left_over = Verification(stores).findings()
    finally:
        stores.close()
    without_row = sum(uid not in rows for uid in acknowledged)
    return without_row, damaged, sum(one.kind == "file without a row" for one in left_over)


def _is_intact(file: Path, sha256: str) -> bool:
    try:
        return dataset_sha256(file, read_header(file, []).dataset_offset) == sha256
    except (InvalidObjectError, OSError):
        return False


def cut_power(folder: Path, objects: int, associations: int, size: int) -> Outcome:
    """Run one round in an empty folder."""
    image, copy = folder / "disk.ext4", folder / "after.ext4"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    run("mkfs.ext4", "-q", "-F", image)
    with mounted(image, folder / "before") as mount:
        acknowledged, written = receive_until_cut(mount, image, copy, objects, associations, size)
    with mounted(copy, folder / "after") as mount:
        lost = missing(mount / "data", acknowledged)
        # a folder that was never synced may be gone itself
        kept = {file.name for file in mount.glob("control/*") if file.stat().st_size}
    return Outcome(len(acknowledged), *lost, len(written), len(set(written) - kept))


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5, type=click.IntRange(min=1), help="Power cuts.")
@click.option("--objects", default=100, type=click.IntRange(min=1), help="Acknowledged before one.")
@click.option("--associations", default=4, type=click.IntRange(min=1), help="Senders.")
@click.option("--size", default=256, type=click.IntRange(min=16), help="Rows and columns.")
@click.option(
    "--folder",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the disk images are made.",
)
def main(rounds: int, objects: int, associations: int, size: int, folder: Path) -> None:
    """Simulate power cuts; exit code 1 when an acknowledged object is gone."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        raise click.ClickException("needs root and loop devices to mount a disk image")
    for program in ("mkfs.ext4", "mount"):
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} not found: apt-get install e2fsprogs mount")
    click.echo("acknowledged  no row  no file  left over  control: written  lost")
    lost = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="power-loss-", dir=folder) as name:
            outcome = cut_power(Path(name), objects, associations, size)
        click.echo(
            f"{outcome.acknowledged:12} {outcome.without_row:7} {outcome.without_file:8} "
            f"{outcome.left_over:10} {outcome.control_written:17} {outcome.control_lost:5}"
        )
        lost += outcome.without_row + outcome.without_file
    if lost:
        raise click.ClickException(f"{lost} acknowledged objects are gone")


if __name__ == "__main__":
    main()
