"""Orthanc as a PACS beside the node: it sends, asks for similar studies and opens an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_program
from tests.end_to_end.conftest import RunningNode
from tests.end_to_end.peers import Orthanc, find_similar, running_orthanc, study_uids
from tests.end_to_end.test_command_line import KINDS, study
from tests.objects import write

STUDIES_PER_KIND = 4


@dataclass
class Hospital:
    """A node and an Orthanc that has sent it all its studies."""

    node: RunningNode
    orthanc: Orthanc
    stored: dict[str, Any]
    folder: Path

    def similar(self, uid: str) -> tuple[str, list[dict[str, Any]]]:
        """Ask the node through Orthanc's remote query; return the query and its answers."""
        keys = {"StudyInstanceUID": uid, "PatientID": "", "StudyDescription": ""}
        query = self.orthanc.post("/modalities/similar/query", {"Level": "Study", "Query": keys})
        return query["ID"], self.orthanc.answers(query["ID"])


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """Give studies of three kinds of picture to Orthanc and have it store them to the node."""
    needs_program("Orthanc", package="orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    node = RunningNode(folder / "data")
    try:
        with running_orthanc(folder, node.dicom_port) as orthanc:
            for kind in KINDS:
                for number in range(1, STUDIES_PER_KIND + 1):
                    file = write(study(kind, number), folder / "object.dcm")
                    orthanc.post("/instances", file.read_bytes())
            stored = orthanc.post("/modalities/cbmir/store", orthanc.get("/studies"))
            node.wait_until_embedded(len(KINDS) * STUDIES_PER_KIND)
            yield Hospital(node, orthanc, stored, folder)
    finally:
        node.kill()


def test_orthanc_stores_to_the_node(hospital):
    assert hospital.stored["FailedInstancesCount"] == 0
    found = hospital.node.status()
    assert found["received"] == found["embedded"] == len(KINDS) * STUDIES_PER_KIND
    assert found["studies"] == len(hospital.orthanc.get("/studies"))


@pytest.mark.parametrize("kind", KINDS)
def test_remote_query_shows_the_similar_studies(hospital, kind):
    uid = study(kind, 1).StudyInstanceUID
    _, answers = hospital.similar(uid)
    others = STUDIES_PER_KIND - 1
    assert [answer["StudyDescription"] for answer in answers[:others]] == [kind] * others
    assert len(answers) == len(KINDS) * STUDIES_PER_KIND - 1
    assert uid not in {answer["StudyInstanceUID"] for answer in answers}


def test_remote_query_gives_the_order_of_findscu(hospital):
    needs_program("findscu", package="dcmtk")
    uid = study("disc", 2).StudyInstanceUID
    _, answers = hospital.similar(uid)
    asked = find_similar(
        hospital.node.dicom_port, hospital.folder / "findscu", f"StudyInstanceUID={uid}"
    )
    assert [answer["StudyInstanceUID"] for answer in answers] == study_uids(asked)


def test_an_answer_can_be_opened(hospital):
    """Orthanc repeats an answer's UIDs, level by level."""
    query, answers = hospital.similar(study("dots", 1).StudyInstanceUID)
    wanted = {"Query": {"SeriesInstanceUID": "", "SOPInstanceUID": ""}}
    series_query = hospital.orthanc.post(f"/queries/{query}/answers/0/query-series", wanted)["ID"]
    series = hospital.orthanc.answers(series_query)
    assert [one["StudyInstanceUID"] for one in series] == [answers[0]["StudyInstanceUID"]]
    opened = hospital.orthanc.post(f"/queries/{series_query}/answers/0/query-instances", wanted)
    images = hospital.orthanc.answers(opened["ID"])
    stored = hospital.orthanc.post(
        "/tools/find",
        {
            "Level": "Instance",
            "Expand": True,
            "Query": {"StudyInstanceUID": answers[0]["StudyInstanceUID"]},
        },
    )
    assert [one["SOPInstanceUID"] for one in images] == [
        one["MainDicomTags"]["SOPInstanceUID"] for one in stored
    ]
    assert images[0]["SeriesInstanceUID"] == series[0]["SeriesInstanceUID"]
