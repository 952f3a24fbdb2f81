"""Images received per second, beside what the disk and other servers do in the same run.

Run ``python benchmarks/receive.py --help``. DCMTK's ``storescu`` sends synthetic CT slices over
loopback, as shipped and with ``TCP_NODELAY=1`` in the environment of both sides. The floor is what
durability costs on this disk: write, fdatasync, rename, fsync of the folder, once an image. The
servers take turns in every round; the figures are medians over the rounds. Compare the ratios,
absolute figures belong to the machine. ``storescp`` neither syncs nor indexes.

The node's embedding worker is paused (SIGSTOP) while it receives, unless ``--embedding`` is given.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from servers import (
    RUN_DIGITS,
    Measurement,
    Server,
    cpu_s,
    environment,
    figures,
    make_slices,
    node,
    orthanc,
    storescp,
)

_SEND_TIMEOUT_S = 180.0

Key = tuple[str, int, bool]


def write_parts(folder: Path, slices: Sequence[bytes], parts: int, run: int) -> list[Path]:
    """Write the slices to `parts` folders under UIDs that no other run has."""
    placeholder = b"." + b"9" * RUN_DIGITS + b"."
    replacement = b".%06d." % (100_000 + run)
    shutil.rmtree(folder, ignore_errors=True)
    folders = [folder / str(part) for part in range(parts)]
    for part in folders:
        part.mkdir(parents=True)
    for number, content in enumerate(slices):
        head = content[:2048].replace(placeholder, replacement)
        (folders[number % parts] / f"{number:05}.dcm").write_bytes(head + content[2048:])
    os.sync()  # or the servers' syncs would wait for these files too
    return folders


def send(server: Server, called: str, folders: Sequence[Path], nodelay: bool) -> float:
    """Send each folder over an association of its own; return the time it took, seconds."""
    begin = time.perf_counter()
    clients = [
        subprocess.Popen(
            ["storescu", "-aec", called, "+sd", "127.0.0.1", str(server.port), str(folder)],
            env=environment(nodelay),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for folder in folders
    ]
    for client in clients:
        try:
            _, said = client.communicate(timeout=_SEND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            client.kill()
            raise click.ClickException(f"storescu needs more than {_SEND_TIMEOUT_S:g} s") from None
        if client.returncode:
            raise click.ClickException(f"storescu to {called} failed: {said.decode()}")
    return time.perf_counter() - begin


def floor(folder: Path, slices: Sequence[bytes], threads: int) -> float:
    """Return how many slices a second this disk takes durably, from `threads` threads."""
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)

    def keep(number: int) -> None:
        partial = folder / f"{number}.part"
        with partial.open("wb") as file:
            file.write(slices[number])
            file.flush()
            os.fdatasync(file.fileno())
        partial.rename(folder / f"{number}.dcm")
        os.fsync(handle)

    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(keep, range(len(slices))))
    taken = time.perf_counter() - begin
    os.close(handle)
    shutil.rmtree(folder)
    return len(slices) / taken


Servers = dict[str, tuple[str, Callable[[Path, bool], object]]]


def measure(
    folder: Path, slices: Sequence[bytes], servers: Servers, rounds: int, associations: list[int]
) -> dict[Key, list[Measurement]]:
    """Take turns: every round measures the floor and every server in every way."""
    found: dict[Key, list[Measurement]] = defaultdict(list)
    run = 0
    for _ in range(rounds):
        for parts in associations:
            rate = floor(folder / "floor", slices, parts)
            found["write + fdatasync + rename + fsync(dir)", parts, False].append(
                Measurement(rate, 0)
            )
        for nodelay in (False, True):
            for name, (called, start) in servers.items():
                home = folder / "server"
                home.mkdir()
                with start(home, nodelay) as server:  # type: ignore[attr-defined]
                    for parts in associations:
                        run += 1
                        folders = write_parts(folder / "send", slices, parts, run)
                        before = cpu_s(server.process.pid)
                        taken = send(server, called, folders, nodelay)
                        cpu = cpu_s(server.process.pid) - before
                        found[name, parts, nodelay].append(
                            Measurement(len(slices) / taken, 1e3 * cpu / len(slices))
                        )
                shutil.rmtree(home)
    return found


def summary(found: dict[Key, list[Measurement]]) -> list[dict[str, object]]:
    """Return one row per way of measuring: medians, range and ratio to the floor."""
    floors = {
        parts: statistics.median(one.rate for one in taken)
        for (name, parts, _), taken in found.items()
        if name.startswith("write")
    }
    rows: list[dict[str, object]] = []
    for (name, parts, nodelay), taken in sorted(found.items(), key=lambda item: item[0][1:]):
        rows.append(
            {
                "server": name,
                "associations": parts,
                "nodelay": nodelay,
                **figures(taken, floors[parts]),
            }
        )
    return rows


@click.command(context_settings={"show_default": True})
@click.option("--images", default=100, type=click.IntRange(min=4), help="Slices per measurement.")
@click.option("--size", default=512, type=click.IntRange(min=16), help="Rows and columns.")
@click.option("--rounds", default=3, type=click.IntRange(min=1), help="Repetitions.")
@click.option(
    "--associations", default=[1, 4], multiple=True, type=click.IntRange(min=1), help="At a time."
)
@click.option("--embedding", is_flag=True, help="Let the node embed while it receives.")
@click.option(
    "--folder",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder on the disk to measure.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    images: int,
    size: int,
    rounds: int,
    associations: tuple[int, ...],
    embedding: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Measure how fast the node receives."""
    if shutil.which("storescu") is None:
        raise click.ClickException("storescu not found: apt-get install dcmtk")
    servers: Servers = {
        "cbmir-node, embedding" if embedding else "cbmir-node": (
            "CBMIR",
            lambda home, nodelay: node(home, nodelay, embedding=embedding),
        )
    }
    if shutil.which("storescp"):
        servers["DCMTK storescp --fork"] = ("STORESCP", storescp)
    if shutil.which("Orthanc"):
        servers["Orthanc"] = ("ORTHANC", orthanc)
    with tempfile.TemporaryDirectory(prefix="receive-", dir=folder) as name:
        slices = make_slices(Path(name), images, size)
        rows = summary(measure(Path(name), slices, servers, rounds, list(associations)))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{images} slices of {len(slices[0]) >> 10} KiB, {rounds} rounds")
    click.echo(f"{'':42} {'assoc.':>6} {'NODELAY':>8} {'images/s':>18} {'floor':>6} {'CPU ms':>7}")
    for row in rows:
        spread = f"{row['images_per_s']:.0f} ({row['lowest']:.0f}-{row['highest']:.0f})"
        click.echo(
            f"{row['server']:42} {row['associations']:6} {row['nodelay']!s:>8} {spread:>18} "
            f"{row['of_floor']:6.2f} {row['server_cpu_ms']:7.1f}"
        )


if __name__ == "__main__":
    main()
