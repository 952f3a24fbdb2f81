"""``forward``: the queue of objects that are sent on, seen and changed."""

from __future__ import annotations

import json
from dataclasses import replace

from cbmir_node.catalog.forwarding.queue import ForwardOutcome, ForwardQueue
from cbmir_node.config import Settings
from cbmir_node.stores import Stores
from tests.cli.conftest import Command
from tests.forwarding.test_forwarding import receive
from tests.objects import make_object


def test_the_queue_from_outside(stores: Stores, command: Command) -> None:
    assert command("forward", "list").stdout == "nothing is queued\n"
    settings = {
        "data_dir": stores.settings.data_dir,
        "peers": {"PACS": {"host": "127.0.0.1", "port": 104}},
        "archive": {"duplicates": "replace"},
        "forwarding": {"rules": [{"to": "PACS", "calling_ae_titles": ["CT1"]}]},
    }
    dataset = make_object()
    receive(replace(stores, settings=Settings.model_validate(settings)), dataset)
    (forward,) = ForwardQueue(stores.catalog, "t/1", 60).claim("PACS", 10)
    ForwardQueue(stores.catalog, "t/1", 60).record(
        [ForwardOutcome(forward.row, "refused", "0xA900: no such class", 1, 0)]
    )
    lines = command("forward", "list").stdout.splitlines()
    assert lines[0].split()[:3] == ["to", "state", "objects"]
    assert lines[1].startswith("PACS  refused  1")
    assert lines[1].endswith(f"{dataset.StudyInstanceUID}  0xA900: no such class")
    assert json.loads(command("status", "--json").stdout)["not_sent_on"] == 1
    assert command("forward", "list", "--state", "pending").stdout == "nothing is queued\n"
    assert command("forward", "retry").stdout == "0 objects are due now\n"
    assert command("forward", "retry", "--refused").stdout == "1 objects are due now\n"
    (found,) = json.loads(command("forward", "list", "--json").stdout)
    assert (found["state"], found["objects"], found["reason"]) == ("pending", 1, "")
    for arguments in (("list",), ("retry",), ("cancel",)):
        unknown = command("forward", *arguments, "--destination", "PASC")
        assert (unknown.exit_code, "there are PACS" in unknown.stderr) == (1, True)
    added = command("forward", "add", "--destination", "PACS", "--study", dataset.StudyInstanceUID)
    assert added.stdout == "0 objects are to be sent to PACS; 1 more were queued before\n"
    missing = command("forward", "add", "--destination", "PACS", "--study", "1.2")
    assert (missing.exit_code, "no pixels of 1.2" in missing.stderr) == (1, True)
    cancelled = command("forward", "cancel", "--destination", "PACS")
    assert cancelled.stdout == "1 objects are not sent to PACS any more\n"
    assert command("forward", "list").stdout == "nothing is queued\n"
