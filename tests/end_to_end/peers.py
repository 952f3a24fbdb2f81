"""The other side of a running node: DCMTK's senders and askers, and an Orthanc."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset

from cbmir_node.dicom.private import PRIVATE_CREATOR, SIMILARITY
from tests.conftest import free_port
from tests.dicom.peers import findscu

STORE_TIMEOUT_S = 300
ORTHANC_START_TIMEOUT_S = 60
# DCMTK does not know our elements by name
SIMILARITY_KEYS = (
    f"({SIMILARITY.tag >> 16:04x},0010)={PRIVATE_CREATOR}",
    f"({SIMILARITY.tag >> 16:04x},{SIMILARITY.tag & 0xFFFF:04x})",
)


def storescu(port: int, *folders: Path) -> None:
    """Send whole folders with DCMTK's storescu.

    It proposes one compressed transfer syntax at most; ``-xw`` is JPEG 2000, which one of the real
    studies has, beside the uncompressed ones.
    """
    names = [str(folder) for folder in folders]
    command = ["storescu", "-xw", "-aec", "CBMIR", "127.0.0.1", str(port), "+sd", "+r", *names]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=STORE_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr


def find_similar(port: int, folder: Path, *keys: str) -> list[Dataset]:
    """Ask the similarity view at STUDY level with findscu; return the answers in their order."""
    return findscu(port, folder, "QueryRetrieveLevel=STUDY", *keys, called="CBMIR_SIM")


def study_uids(answers: list[Dataset]) -> list[str]:
    """Return the Study Instance UIDs of answers."""
    return [str(answer.StudyInstanceUID) for answer in answers]


def similarities(answers: list[Dataset]) -> list[float]:
    """Return the private similarity of answers."""
    return [float(answer[SIMILARITY.tag].value) for answer in answers]


class Orthanc:
    """An Orthanc of our own on free ports of loopback that knows the node as two modalities.

    Parameters
    ----------
    folder : Path
        For its configuration, its storage and its log.
    node_port : int
        DICOM port of the node.
    """

    def __init__(self, folder: Path, node_port: int) -> None:
        self.http_port = free_port()
        self._log_file = folder / "orthanc.log"
        settings = {
            "Name": "viewer",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "DicomPort": free_port(),
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": False,
            "DicomModalities": {
                "similar": ["CBMIR_SIM", "127.0.0.1", node_port],
                "cbmir": ["CBMIR", "127.0.0.1", node_port],
            },
            "Plugins": [],
        }
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(configuration)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + ORTHANC_START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                self.get("/system")
                return
            log = self._log_file.read_text(errors="replace")
            assert self._process.poll() is None, f"Orthanc ended:\n{log}"
            assert time.monotonic() < deadline, f"Orthanc does not answer:\n{log}"
            time.sleep(0.1)

    def get(self, path: str) -> Any:
        """Return what a GET of the REST API answers."""
        return self._ask(path, None)

    def post(self, path: str, body: object) -> Any:
        """Return what a POST of the REST API answers; bytes are sent as they are."""
        return self._ask(path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def answers(self, query: str) -> list[dict[str, Any]]:
        """Return the answers of a remote query, in their order."""
        numbers = self.get(f"/queries/{query}/answers")
        return [
            self.get(f"/queries/{query}/answers/{number}/content?simplify") for number in numbers
        ]

    def stop(self) -> None:
        """End Orthanc and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)


@contextlib.contextmanager
def running_orthanc(folder: Path, node_port: int) -> Iterator[Orthanc]:
    """Run an Orthanc that ends with the block."""
    orthanc = Orthanc(folder, node_port)
    try:
        yield orthanc
    finally:
        orthanc.stop()
