"""Another model takes over in a running node while it is asked over DICOM without a pause."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cbmir_node.answers.private_elements import MAXIMUM_RESULTS, RETRIEVAL_MODEL
from cbmir_node.cli import main
from cbmir_node.config import Settings
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from tests.dicom.peers import EXPLICIT, association, encoded, store_bytes, until
from tests.dicom.test_similar import private_value, request
from tests.end_to_end.conftest import PENDING, RECEIVED, RunningNode
from tests.models import build_model
from tests.objects import make_object
from tests.small_node import keep, open_small_stores

STUDIES = 40
ANSWERS = 5
PATIENCE_S = 120.0
Answer = tuple[int, set[str], set[str]]
"""Final status, models, studies."""


def ask(opened: object, study: str) -> Answer:
    """Ask for studies like one; the private class carries the model of every answer."""
    identifier = request(private={MAXIMUM_RESULTS: ANSWERS}, StudyInstanceUID=study)
    *pending, (status, _) = opened.send_c_find(identifier, SIMILARITY_FIND)  # type: ignore[attr-defined]
    models = {str(private_value(answer, RETRIEVAL_MODEL)) for _, answer in pending}
    return status.Status, models, {str(answer.StudyInstanceUID) for _, answer in pending}


@contextmanager
def asked_without_pause(port: int, study: str) -> Iterator[list[Answer]]:
    """Ask on one association until the block ends; yield the growing list of answers."""
    answers: list[Answer] = []
    stop = threading.Event()
    deadline = time.monotonic() + 2 * PATIENCE_S

    def loop() -> None:
        with association(port, (SIMILARITY_FIND, EXPLICIT), called="CBMIR_SIM") as opened:
            while not stop.is_set() and time.monotonic() < deadline:
                answers.append(ask(opened, study))

    asker = threading.Thread(target=loop, daemon=True)
    asker.start()
    try:
        yield answers
    finally:
        stop.set()
        asker.join(60)
    assert not asker.is_alive()


def send(port: int, dataset: Dataset) -> None:
    with association(port, (str(dataset.SOPClassUID), (ExplicitVRLittleEndian,))) as opened:
        response = store_bytes(
            opened, dataset.SOPClassUID, dataset.SOPInstanceUID, encoded(dataset)
        )
    assert response.Status == 0


@pytest.fixture
def node(
    start_node: Callable[..., RunningNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningNode:
    """Run a node with a tiny network and some studies; it embeds a few at a time."""
    monkeypatch.setenv("CBMIR_WORKER__CLAIM", "4")
    settings = Settings(data_dir=tmp_path / "data")
    stores = open_small_stores(settings)
    keep(stores, tmp_path, *(study(number) for number in range(STUDIES)))
    stores.close()
    running = start_node(settings.data_dir)
    until(lambda: running.metric(RECEIVED) == STUDIES and running.metric(PENDING) == 0, PATIENCE_S)
    return running


def study(number: int) -> Dataset:
    pixels = bytes((number * 7 + column * row) % 200 for row in range(16) for column in range(32))
    return make_object(StudyInstanceUID=f"1.2.{number}", PixelData=pixels)


def test_a_switch_there_and_back_costs_no_answer(node: RunningNode, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        done = CliRunner().invoke(main, ["model", *words, "--data-dir", str(node.data_dir)])
        assert done.exit_code == 0, done.output
        return done.output

    # its large pictures make the catching up last
    other = build_model(
        tmp_path / "other.onnx",
        name="other",
        size=1024,
        dimension=24,
        bits=64,
        layers={"fc6": 12},
    )
    late = study(STUDIES)
    with (
        asked_without_pause(node.dicom_port, "1.2.0") as answers,
        association(node.dicom_port, (SIMILARITY_FIND, EXPLICIT), called="CBMIR_SIM") as opened,
    ):

        def wait_for(model: str) -> None:
            until(lambda: bool(answers) and answers[-1][1] == {model}, PATIENCE_S)

        def asked_by_late() -> Answer:
            return ask(opened, late.StudyInstanceUID)

        wait_for("tiny:1")
        assert "model use other:1" in command("install", str(other))
        assert "takes over when" in command("use", "other")
        send(node.dicom_port, late)
        until(lambda: len(asked_by_late()[2]) == ANSWERS, PATIENCE_S)
        while_waiting = asked_by_late()
        wait_for("other:1")
        after = asked_by_late()
        assert "takes over in a moment" in command("use", "tiny")
        wait_for("tiny:1")
        back = asked_by_late()
    assert [next(iter(found[1])) for found in (while_waiting, after, back)] == [
        "tiny:1",
        "other:1",
        "tiny:1",
    ]
    assert all(len(studies) == ANSWERS for _, _, studies in (while_waiting, after, back))
    assert {status for status, _, _ in answers} == {0}
    assert {len(models) for _, models, _ in answers} == {1}
    assert {len(studies) for _, _, studies in answers} == {ANSWERS}
    turns = [
        model for model, _ in itertools.groupby(next(iter(models)) for _, models, _ in answers)
    ]
    assert turns == ["tiny:1", "other:1", "tiny:1"]
    assert "Traceback" not in node.log
