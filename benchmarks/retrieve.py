"""Images retrieved per second, beside what a plain sender and another archive do in the same run.

Run ``python benchmarks/retrieve.py --help``. A study of synthetic CT slices is sent to the node and
to Orthanc; then DCMTK's ``movescu`` has it sent to a ``storescp`` (which neither syncs nor
indexes), and ``getscu`` fetches it over its own association. The floor is ``storescu`` sending the
same files from disk to the same ``storescp``. All take turns in every round; the figures are
medians over the rounds. Compare the ratios, absolute figures belong to the machine.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from pydicom import dcmread
from servers import (
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

_TIMEOUT_S = 300.0
_RECEIVER = "BENCH"
_FLOOR = "storescu, from disk"

Key = tuple[str, str, bool]


def run(command: Sequence[str], nodelay: bool) -> float:
    """Run a client of DCMTK; return the time it took, seconds."""
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command, env=environment(nodelay), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise click.ClickException(f"{command[0]} needs more than {_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed: {done.stderr.decode()}")
    return time.perf_counter() - begin


def retrieve(server: Server, called: str, way: str, study: str, folder: Path) -> list[str]:
    """Return the command that retrieves a study by C-MOVE to the receiver or by C-GET."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    address = ["-aec", called, "-S", *keys, "127.0.0.1", str(server.port)]
    if way == "C-MOVE":
        return ["movescu", "-aem", _RECEIVER, *address]
    folder.mkdir()
    return ["getscu", "+B", "-od", str(folder), *address]


class Comparison:
    """Measures every server in every way, in turns.

    Parameters
    ----------
    folder : Path
        On the disk to measure.
    images, size : int
        Slices of the study, and their rows and columns.
    """

    def __init__(self, folder: Path, images: int, size: int) -> None:
        self._folder = folder
        self._images = images
        self._slices = folder / "slices"
        self._slices.mkdir()
        for number, content in enumerate(make_slices(folder, images, size)):
            (self._slices / f"{number:05}.dcm").write_bytes(content)
        self._study = str(dcmread(self._slices / "00000.dcm").StudyInstanceUID)
        self.found: dict[Key, list[Measurement]] = defaultdict(list)

    def round(self, servers: dict[str, tuple[str, Callable[..., object]]], nodelay: bool) -> None:
        """Measure everything once."""
        received = self._folder / "received"
        received.mkdir()
        with storescp(received, nodelay) as receiver:
            self._note(_FLOOR, "C-STORE", nodelay, self._store("STORESCP", receiver, nodelay), 0)
            for name, (called, start) in servers.items():
                home = self._folder / "server"
                home.mkdir()
                with start(home, nodelay, peers={_RECEIVER: receiver.port}) as server:  # type: ignore[attr-defined]
                    self._store(called, server, nodelay)
                    for way in ("C-MOVE", "C-GET"):
                        self._retrieve(name, called, way, server, nodelay)
                shutil.rmtree(home)
        shutil.rmtree(received)

    def _store(self, called: str, server: Server, nodelay: bool) -> float:
        address = ["-aec", called, "+sd", "127.0.0.1", str(server.port)]
        return run(["storescu", *address, str(self._slices)], nodelay)

    def _retrieve(self, name: str, called: str, way: str, server: Server, nodelay: bool) -> None:
        fetched = self._folder / "fetched"
        before = cpu_s(server.process.pid)
        taken = run(retrieve(server, called, way, self._study, fetched), nodelay)
        cpu = cpu_s(server.process.pid) - before
        if way == "C-GET":
            number = len(list(fetched.iterdir()))
            shutil.rmtree(fetched)
            if number != self._images:
                raise click.ClickException(f"{name} gave {number} of {self._images} images")
        self._note(name, way, nodelay, taken, cpu)

    def _note(self, name: str, way: str, nodelay: bool, taken: float, cpu: float) -> None:
        self.found[name, way, nodelay].append(
            Measurement(self._images / taken, 1e3 * cpu / self._images)
        )


def summary(found: dict[Key, list[Measurement]]) -> list[dict[str, object]]:
    """Return one row per way of measuring: medians, range and ratio to the floor."""
    floors = {
        nodelay: statistics.median(one.rate for one in taken)
        for (name, _, nodelay), taken in found.items()
        if name == _FLOOR
    }
    rows: list[dict[str, object]] = []
    for (name, way, nodelay), taken in sorted(found.items(), key=lambda item: item[0][1:]):
        rows.append(
            {
                "server": name,
                "way": way,
                "nodelay": nodelay,
                **figures(taken, floors[nodelay]),
            }
        )
    return rows


@click.command(context_settings={"show_default": True})
@click.option("--images", default=200, type=click.IntRange(min=4), help="Slices of the study.")
@click.option("--size", default=512, type=click.IntRange(min=16), help="Rows and columns.")
@click.option("--rounds", default=3, type=click.IntRange(min=1), help="Repetitions.")
@click.option(
    "--folder",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder on the disk to measure.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: int, size: int, rounds: int, folder: Path, as_json: bool) -> None:
    """Measure how fast the node gives studies back."""
    for program in ("storescu", "storescp", "movescu", "getscu"):
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} not found: apt-get install dcmtk")
    servers: dict[str, tuple[str, Callable[..., object]]] = {"cbmir-node": ("CBMIR", node)}
    if shutil.which("Orthanc"):
        servers["Orthanc"] = ("ORTHANC", orthanc)
    with tempfile.TemporaryDirectory(prefix="retrieve-", dir=folder) as name:
        comparison = Comparison(Path(name), images, size)
        for _ in range(rounds):
            for nodelay in (False, True):
                comparison.round(servers, nodelay)
    rows = summary(comparison.found)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{images} slices of {size} × {size}, {rounds} rounds")
    click.echo(f"{'':22} {'':8} {'NODELAY':>8} {'images/s':>18} {'floor':>6} {'CPU ms':>7}")
    for row in rows:
        spread = f"{row['images_per_s']:.0f} ({row['lowest']:.0f}-{row['highest']:.0f})"
        click.echo(
            f"{row['server']:22} {row['way']:8} {row['nodelay']!s:>8} {spread:>18} "
            f"{row['of_floor']:6.2f} {row['server_cpu_ms']:7.1f}"
        )


if __name__ == "__main__":
    main()
