"""Orthanc as a DICOMweb client of the node: it finds a study and fetches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.backfill.orthanc import PASSWORD, USER, running_pacs
from tests.conftest import needs_program
from tests.web.conftest import WebNode


def test_orthanc_finds_a_study_and_fetches_it(web: WebNode, tmp_path: Path) -> None:
    needs_program("Orthanc", package="orthanc")
    study = str(web.objects[0].StudyInstanceUID)
    with (
        running_pacs(tmp_path / "pacs", web.node.dicom.port) as pacs,
        httpx.Client(
            base_url=pacs.url, auth=(USER, PASSWORD), trust_env=False, timeout=30
        ) as orthanc,
    ):

        def ask(path: str, body: Any) -> Any:
            return orthanc.post(path, content=json.dumps(body)).raise_for_status().json()

        orthanc.put("/servers/node", content=json.dumps({"Url": f"{web.url}/dicom-web/"}))
        query = {"Uri": "/studies", "Arguments": {"AccessionNumber": "A1", "PatientID": "P1"}}
        (found,) = ask("/servers/node/qido", query)
        assert study in json.dumps(found)
        fetched = ask("/servers/node/retrieve", {"Resources": [{"Study": study}]})
        assert int(fetched["ReceivedInstancesCount"]) == 4, fetched
        names = httpx.get(
            f"{pacs.url.removesuffix('/dicom-web')}/instances",
            auth=(USER, PASSWORD),
            trust_env=False,
        )
        assert len(names.json()) == 4
