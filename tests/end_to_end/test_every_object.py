"""Every real file, by ``import`` and by C-STORE, ends in one documented outcome.

Stored and embedded, stored without pixels, stored and failed, known already, or refused; the table
is in ``docs/dicom.md``. Two nodes take the same files on the two ways and must agree.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cbmir_node.config import Settings
from tests.conftest import needs_program
from tests.dicom.peers import findscu
from tests.end_to_end.conftest import RunningNode
from tests.end_to_end.shared_objects import (
    NOT_SENDABLE,
    Answer,
    SharedObject,
    send_all,
    shared_objects,
)
from tests.small_node import open_small_stores

PEAK_MEMORY_MIB = {"node": 512, "worker": 2048, "decoder": 1024}
"""About five times what was seen; the worker's is for a machine on which it loads CUDA."""
WAYS = ("imported", "sent")


@dataclass
class Way:
    """A node that got every file on one way."""

    node: RunningNode
    folder: Path
    refusals: dict[Path, str] = field(default_factory=dict)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)

    def wait(self) -> None:
        """Wait until everything has an outcome and keep the outcomes."""
        self.node.wait_until_embedded(len(self.stored_uids()))
        done = self.node.cli("status", "--json", "--failures")
        assert done.returncode == 0, done.stderr
        self.status = json.loads(done.stdout)
        self.states = dict.fromkeys(self.stored_uids(), ("embedded", ""))
        for item in self.status["failures"]:
            self.states[item["sop_instance_uid"]] = (item["state"], item["reason"])

    def stored_uids(self) -> list[str]:
        """Return the SOP Instance UID of every file in the archive."""
        files = (self.node.data_dir / "archive").glob("[0-9a-f][0-9a-f]/*/*.dcm")
        return [file.name.rsplit(".", 2)[0] for file in files]


@pytest.fixture(scope="module")
def objects(shared: Path) -> list[SharedObject]:
    return shared_objects(shared / "dicom")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Way]]:
    """Start nodes that end with the module."""
    ways: list[Way] = []

    def start(name: str, *, shipped_model: bool) -> Way:
        folder = tmp_path_factory.mktemp(name)
        if not shipped_model:  # what becomes of an object is no matter of the network
            open_small_stores(Settings(data_dir=folder / "data")).close()
        ways.append(Way(RunningNode(folder / "data"), folder))
        return ways[-1]

    yield start
    for way in ways:
        way.node.kill()


@pytest.fixture(scope="module")
def imported(shared: Path, start: Callable[..., Way]) -> Way:
    """Import everything beside a running node."""
    way = start("imported", shipped_model=False)
    folders = [str(shared / "dicom" / part) for part in ("files", "studies")]
    done = way.node.cli("import", "--json", *folders)
    assert done.returncode == 1  # some are refused
    counts = json.loads(done.stdout)
    way.refusals = {Path(item["file"]): item["reason"] for item in counts.pop("refusals")}
    way.wait()
    way.status["import"] = counts
    return way


@pytest.fixture(scope="module")
def answers(
    objects: list[SharedObject], start: Callable[..., Way]
) -> tuple[Way, dict[Path, Answer]]:
    """Send everything, one association each; return the node and its answers."""
    way = start("sent", shipped_model=True)
    answers = {one.path: answer for one, answer in send_all(way.node.dicom_port, objects)}
    way.refusals = {path: answer.comment for path, answer in answers.items() if answer.status != 0}
    way.wait()
    return way, answers


@pytest.fixture(scope="module")
def sent(answers: tuple[Way, dict[Path, Answer]]) -> Way:
    return answers[0]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """Return each node in turn."""
    found: Way = request.getfixturevalue(request.param)
    return found


def by_uid(objects: list[SharedObject]) -> dict[str, list[SharedObject]]:
    """Group what is stored by SOP Instance UID, in the order in which it is sent."""
    groups = defaultdict(list)
    for one in objects:
        if not one.refusal:
            groups[one.uid].append(one)
    return groups


def test_the_manifest_covers_what_is_there(shared, objects):
    files = {path for part in ("files", "studies") for path in (shared / "dicom" / part).rglob("*")}
    assert {one.path for one in objects} == {path for path in files if path.is_file()}
    assert len(objects) == 466


def test_refused_are_exactly_the_defective_and_the_reason_is_said(objects, imported):
    refused = [one for one in objects if one.refusal and not one.is_media_directory]
    assert set(imported.refusals) == {one.path for one in refused}
    for one in refused:
        assert one.refusal in imported.refusals[one.path], one.source


def test_c_store_answers_as_documented(objects, answers):
    wrong = []
    for one in objects:
        answer = answers[1][one.path]
        if answer.status != (None if one.not_sendable else one.status):
            wrong.append(f"{one.source}: {answer}, not {one.status:04X} {one.refusal}")
    assert not wrong, "\n".join(wrong)
    assert sum(one.not_sendable for one in objects) == len(NOT_SENDABLE)


def test_both_ways_refuse_for_the_same_reason(objects, imported, sent):
    directories = {one.path for one in objects if one.is_media_directory}
    assert set(imported.refusals) == set(sent.refusals) - directories
    for one in objects:
        if one.refusal and not one.not_sendable:
            # the meta information differs in length, so do positions in the file
            reason, comment = (
                re.sub(r"\d+", "#", text[one.path]) for text in (imported.refusals, sent.refusals)
            )
            assert reason.startswith(comment.removesuffix("...")), one.source


def test_each_sop_instance_uid_is_stored_once(objects, way):
    assert sorted(way.stored_uids()) == sorted(by_uid(objects))
    assert way.status["received"] == len(by_uid(objects))


def test_import_counts_what_it_knew_already(objects, imported):
    groups = by_uid(objects)
    counts = imported.status["import"]
    assert counts["stored"] == len(groups)
    assert counts["duplicate"] + counts["conflict"] == sum(map(len, groups.values())) - len(groups)
    assert counts["conflict"] > 50  # the same image in several transfer syntaxes, mostly
    assert counts["skipped"] == sum(one.is_media_directory for one in objects) == 2
    assert counts["refused"] + counts["skipped"] == sum(bool(one.refusal) for one in objects)
    assert counts["replaced"] == 0


def test_the_first_of_a_uid_decides_its_state(objects, sent):
    wrong = []
    for uid, group in by_uid(objects).items():
        state, reason = sent.states[uid]
        if state != group[0].state or group[0].reason not in reason:
            wrong.append(f"{group[0].source}: {state} ({reason}), not {group[0].state}")
    assert not wrong, "\n".join(wrong)
    counts = Counter(state for state, _ in sent.states.values())
    print(f"outcomes of {len(objects)} files: {dict(counts)}")
    assert counts == {name: sent.status[name] for name in ("embedded", "no_pixels", "failed")}


def test_import_keeps_one_of_each_uid(objects, imported):
    """Its threads overtake each other, so any of a UID's files may be first."""
    for uid, group in by_uid(objects).items():
        state, reason = imported.states[uid]
        assert any(state == one.state and one.reason in reason for one in group), group


def test_both_ways_end_in_the_same_states(objects, imported, sent):
    for uid, group in by_uid(objects).items():
        if len(group) == 1:
            assert imported.states[uid] == sent.states[uid], group


def test_everything_stored_is_found(objects, way):
    needs_program("findscu", package="dcmtk")
    keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "NumberOfStudyRelatedInstances")
    found = findscu(way.node.dicom_port, way.folder / "findscu", *keys)
    counts = {str(one.StudyInstanceUID): int(one.NumberOfStudyRelatedInstances) for one in found}
    assert sum(counts.values()) == len(by_uid(objects))
    assert set(counts) <= {one.uids["StudyInstanceUID"] for one in objects if not one.refusal}


def test_the_node_is_well_afterwards(way):
    assert way.node.get("/readyz") == (200, '{"status":"ready","problems":[]}')
    assert way.node.metric("cbmir_worker_restarts_total") == 0
    for sign in ("decoder process ended", "decoding took", "decoding needed", "Traceback"):
        assert sign not in way.node.log
    assert list((way.node.data_dir / "archive" / "incoming").iterdir()) == []
    done = way.node.cli("verify", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr


def test_memory_stays_bounded(way):
    peaks = peak_memory_mib(way.node.process.pid)
    print(f"peak memory, MiB: {peaks}")
    for name, limit in PEAK_MEMORY_MIB.items():
        assert peaks[name] < limit, peaks


def peak_memory_mib(node: int) -> dict[str, int]:
    """Return the largest resident set of the node, its worker and the worker's decoder."""
    peaks = {"node": _peak_mib(node), "worker": 0, "decoder": 0}
    for worker in _children(node):
        peaks["worker"] = max(peaks["worker"], _peak_mib(worker))
        for decoder in _children(worker):
            peaks["decoder"] = max(peaks["decoder"], _peak_mib(decoder))
    assert all(peaks.values()), peaks
    return peaks


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) >> 10 if found else 0
