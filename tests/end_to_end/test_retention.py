"""Retention in a running node, and the commands beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbmir_node.catalog.retention.selection import study_named
from cbmir_node.catalog.retention.tombstones import bury_studies
from cbmir_node.config import Settings
from cbmir_node.verification import Verification
from tests.dicom.peers import until
from tests.end_to_end.conftest import RunningNode
from tests.retention.conftest import assert_sound, embed, study_of, uids
from tests.small_node import keep, open_small_stores

RULES = """
[peers.PACS]
host = "127.0.0.1"
port = 4242

[retention]
retain = "none"
retrieve_from = "PACS"
"""


def command(node: RunningNode, *arguments: str) -> str:
    done = node.cli(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_node_does_at_its_start_what_was_left_and_commands_work_beside_it(
    start_node: Callable[..., RunningNode], tmp_path: Path
) -> None:
    stores = open_small_stores(Settings(data_dir=tmp_path / "data"))
    buried, other, third = study_of(3), study_of(2, PatientID="P1"), study_of(2)
    keep(stores, tmp_path, *buried, *other, *third)
    embed(stores)
    study = study_named(stores.catalog, buried[0].StudyInstanceUID)
    bury_studies(stores.catalog, [study.row], "killed after this")
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    node = start_node(stores.settings.data_dir, "--config", str(rules))

    def status() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(command(node, "status", "--json"))
        return answer

    until(lambda: status()["not_kept"] == 4, 60)
    shown = status()
    assert {key: shown[key] for key in ("received", "kept", "deleted", "to_be_removed")} == {
        "received": 4,
        "kept": 0,
        "deleted": 3,
        "to_be_removed": 0,
    }
    command(node, "modify", "--patient", "P1", "--set", "PatientID=P2", "--yes")
    command(node, "delete", "--study", third[0].StudyInstanceUID, "--yes")
    assert "0 objects with their pixels, 2 without; 5 deleted" in command(node, "verify")
    assert 'cbmir_retention_total{kind="evicted"} 4' in node.get("/metrics")[1]
    assert node.get("/readyz")[0] == 200
    assert node.stop() == 0
    assert uids(stores) == {dataset.SOPInstanceUID for dataset in other}
    assert Verification(stores).findings() == []
    assert_sound(stores)
    stores.close()
