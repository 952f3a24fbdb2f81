"""A real node in a process of its own, driven from outside like any user would."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cbmir_node.cli import main

START_TIMEOUT_S = 60.0
EMBED_TIMEOUT_S = 300.0
RECEIVED = 'cbmir_objects{kind="instances"}'
PENDING = 'cbmir_embedding_state{kind="pending"}'
COMMAND = [sys.executable, "-c", "from cbmir_node.cli import main; main()"]


class RunningNode:
    """``cbmir-node serve`` on free ports of loopback."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self._ports_file = data_dir.with_name(f"{data_dir.name}-ports.json")
        self._ports_file.unlink(missing_ok=True)
        self.log_file = data_dir.with_name(f"{data_dir.name}.log")
        ports = ["--dicom-port", "0", "--http-port", "0", "--ports-file", str(self._ports_file)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--data-dir", str(data_dir), *ports, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_for(self._ports_file.exists, START_TIMEOUT_S, "start")
        found = json.loads(self._ports_file.read_text())
        self.dicom_port, self.http_port = found["dicom"], found["http"]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def _wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.poll()}:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {timeout_s} s:\n{self.log}")
            time.sleep(0.1)

    def get(self, path: str) -> tuple[int, str]:
        return get(self.http_port, path)

    def metric(self, name: str) -> float:
        return metric(self.http_port, name)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_cli(self.data_dir, *arguments)

    def status(self) -> dict[str, Any]:
        return status(self.data_dir)

    def wait_until_embedded(self, instances: int) -> dict[str, Any]:
        """Wait until this many instances have an outcome; return the status."""

        def done() -> bool:  # a command at every look would take the time of the worker
            received = self.metric(RECEIVED)
            return received >= instances and self.metric(PENDING) == 0

        self._wait_for(done, EMBED_TIMEOUT_S, "end of embedding")
        return self.status()

    def stop(self) -> int:
        """Stop as a service manager does; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """End the node and everything it started at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def get(http_port: int, path: str) -> tuple[int, str]:
    """Return status and body of what a node's HTTP port answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}{path}", timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(http_port: int, name: str) -> float:
    """Return a value of the metrics page by its name with its labels."""
    values = dict(line.rsplit(" ", 1) for line in get(http_port, "/metrics")[1].splitlines())
    return float(values[name])


def run_cli(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a cbmir-node command on a data folder, in this process: starting one takes seconds."""
    words = list(arguments)
    if arguments[0] != "--help":
        words += ["--data-dir", str(data_dir)]
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    try:
        done = CliRunner().invoke(main, words, prog_name="cbmir-node", catch_exceptions=False)
    finally:
        logging.captureWarnings(capture=False)
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def status(data_dir: Path) -> dict[str, Any]:
    """Return what ``status --json`` prints."""
    done = run_cli(data_dir, "status", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., RunningNode]]:
    """Start nodes that end with the test."""
    nodes = []

    def start(data_dir: Path | None = None, *options: str) -> RunningNode:
        nodes.append(RunningNode(data_dir or tmp_path / "data", *options))
        return nodes[-1]

    yield start
    for node in nodes:
        node.kill()
