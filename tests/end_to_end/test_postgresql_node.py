"""A node on PostgreSQL: the same way from C-STORE to similar studies."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from cbmir_node.config import Settings
from tests.dicom.peers import EXPLICIT, association
from tests.end_to_end.conftest import COMMAND, RunningNode, run_cli
from tests.objects import make_object, write
from tests.small_node import open_small_stores, vectors_of_each

STUDIES, IMAGES = 5, 3


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """Create an empty database and return its URL."""
    import psycopg

    name = f"node_{os.urandom(6).hex()}"
    address = postgresql_url.replace("+psycopg", "") + "/postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgresql_url}/{name}"


def studies(number: int) -> list[list[Dataset]]:
    made = []
    for _ in range(number):
        first = make_object()
        same = {key: first[key].value for key in ("StudyInstanceUID", "PatientID")}
        made.append([first, *(make_object(**same) for _ in range(IMAGES - 1))])
    return made


def send(node: RunningNode, datasets: list[Dataset]) -> None:
    with association(node.dicom_port, (CTImageStorage, EXPLICIT)) as opened:
        for dataset in datasets:
            assert opened.send_c_store(dataset).Status == 0


def similar(node: RunningNode, study: str) -> list[str]:
    """Ask for studies like `study` over DICOM."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study
    model = StudyRootQueryRetrieveInformationModelFind
    proposal = (model, (ExplicitVRLittleEndian,))
    with association(node.dicom_port, proposal, called="CBMIR_SIM") as opened:
        answers = list(opened.send_c_find(identifier, model))
    assert answers[-1][0].Status == 0
    return [answer.StudyInstanceUID for _, answer in answers[:-1]]


def test_a_node_on_postgresql(
    request: pytest.FixtureRequest,
    start_node: Callable[..., RunningNode],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "data"
    settings = Settings.model_validate({"data_dir": folder, "catalog": {"url": database_url}})
    stores = open_small_stores(settings)
    request.addfinalizer(stores.close)
    configuration = tmp_path / "node.toml"
    configuration.write_text(f'[catalog]\nurl = "{database_url}"\n')
    node = start_node(folder, "--config", str(configuration))
    sent = studies(STUDIES)
    imported = studies(STUDIES)
    files = tmp_path / "files"
    files.mkdir()
    for number, dataset in enumerate(image for study in imported for image in study):
        write(dataset, files / f"{number}.dcm")

    monkeypatch.setenv("CBMIR_CATALOG__URL", database_url)  # the commands' way to the database
    importing = subprocess.Popen(
        [*COMMAND, "import", "--json", "--data-dir", str(folder), str(files)],
        stdout=subprocess.PIPE,
    )
    for study in sent:
        send(node, study)
    said, _ = importing.communicate(timeout=120)
    assert importing.returncode == 0
    assert json.loads(said)["stored"] == STUDIES * IMAGES

    instances = 2 * STUDIES * IMAGES
    status = node.wait_until_embedded(instances)
    assert (status["running"], status["received"], status["embedded"]) == (
        *(True, instances, instances),
    )
    uids = [str(study[0].StudyInstanceUID) for study in (*sent, *imported)]
    found = similar(node, uids[0])
    assert sorted(found) == sorted(uids[1:])

    node.kill()
    node = start_node(folder, "--config", str(configuration))
    send(node, sent[0])  # known already
    assert similar(node, uids[0]) == found
    assert set(vectors_of_each(stores).values()) == {1}
    assert node.status()["received"] == instances
    checked = run_cli(folder, "verify", "--deep", "--config", str(configuration))
    assert checked.returncode == 0
    assert checked.stdout.endswith("0 disagreements, 0 mended\n")
    assert node.stop() == 0
    assert not (folder / "catalog.sqlite").exists()
    monkeypatch.delenv("CBMIR_CATALOG__URL")
    assert run_cli(folder, "status").returncode == 1
    asked = run_cli(folder, "status", "--json", "--config", str(configuration))
    assert json.loads(asked.stdout)["running"] is False
