"""The other side of a running node: DCMTK's senders and askers, and Orthanc's REST API."""

from __future__ import annotations

import io
import json
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from cbmir_node.answers.private_elements import PRIVATE_CREATOR, SIMILARITY
from tests.dicom.peers import findscu

STORE_TIMEOUT_S = 300
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


@dataclass(frozen=True)
class Orthanc:
    """The REST API of an Orthanc on loopback."""

    http_port: int

    def get(self, path: str) -> Any:
        """Return what a GET answers."""
        return json.loads(self._ask(path, None))

    def post(self, path: str, body: object) -> Any:
        """Return what a POST of JSON answers."""
        return json.loads(self._ask(path, json.dumps(body).encode()))

    def _ask(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body)
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())

    def answers(self, query: str) -> list[dict[str, Any]]:
        """Return the answers of a remote query, in their order."""
        found: list[dict[str, Any]] = self.get(f"/queries/{query}/answers?expand&simplify")
        return found

    def files_of(self, study_instance_uid: str) -> list[Dataset]:
        """Return the objects that it has of a study."""
        wanted = {"Level": "Instance", "Query": {"StudyInstanceUID": study_instance_uid}}
        return [
            dcmread(io.BytesIO(self._ask(f"/instances/{one}/file", None)))
            for one in self.post("/tools/find", wanted)
        ]
