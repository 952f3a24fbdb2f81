"""An Orthanc that is the PACS: C-FIND, C-GET, C-MOVE, and DICOMweb where the plug-in is there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from tests.conftest import free_port

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "secret"
_START_TIMEOUT_S = 60


class OrthancPacs:
    """A running Orthanc.

    Parameters
    ----------
    folder : Path
        For its files.
    node_port : int
        Where C-MOVE to ``CBMIR`` sends.
    find_limit : int
        Answers to one C-FIND at most; 0 for no limit.
    """

    def __init__(self, folder: Path, node_port: int, find_limit: int = 0) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True)
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomPort": self.dicom_port,
            "DicomAet": "PACS",
            "DicomModalities": {"cbmir": ["CBMIR", "127.0.0.1", node_port]},
            "LimitFindResults": find_limit,
            "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
        }
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        self._log_file = folder / "log"
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

    @property
    def address(self) -> str:
        """What `pull` is given for DIMSE."""
        return f"PACS@127.0.0.1:{self.dicom_port}"

    @property
    def url(self) -> str:
        """What `pull` is given for DICOMweb; the test is skipped without the plug-in."""
        if not DICOMWEB_PLUGIN.exists():
            pytest.skip(f"{DICOMWEB_PLUGIN.name} not found: apt-get install orthanc-dicomweb")
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log_file.read_text(errors="replace")

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self._ask("/system")
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert self._process.poll() is None, f"Orthanc ended:\n{self.log}"
                assert time.monotonic() < deadline, f"Orthanc does not answer:\n{self.log}"
                time.sleep(0.1)
            else:
                return

    def add(self, *datasets: Dataset) -> None:
        """Put objects into it."""
        for dataset in datasets:
            buffer = io.BytesIO()
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(buffer, enforce_file_format=True)
            self._ask("/instances", buffer.getvalue())

    def _ask(self, path: str, body: bytes | None = None) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body)
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        passwords.add_password(None, request.full_url, USER, PASSWORD, is_authenticated=True)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
        opener.open(request, timeout=60).close()

    def stop(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)


@contextlib.contextmanager
def running_pacs(folder: Path, node_port: int, find_limit: int = 0) -> Iterator[OrthancPacs]:
    """Run an Orthanc that ends with the block."""
    pacs = OrthancPacs(folder, node_port, find_limit)
    try:
        yield pacs
    finally:
        pacs.stop()
