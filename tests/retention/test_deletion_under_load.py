"""Senders store into the same and other studies over DICOM while deletions run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, generate_uid

from cbmir_node.catalog.reception import group_commit
from cbmir_node.catalog.reception.registration import register
from cbmir_node.errors import SelectionError
from cbmir_node.node import open_search
from cbmir_node.retention import removal
from cbmir_node.stores import Stores
from cbmir_node.worker import Worker
from tests.dicom.peers import EXPLICIT, association, until
from tests.objects import make_object
from tests.retention.conftest import apply_retention, assert_sound, buried, embed, study_of, uids
from tests.retention.test_deletion import bury_study, delete_study
from tests.small_node import keep, vectors_of_each

ROUNDS = 4


class Sender(threading.Thread):
    """Sends new objects into the studies in turn, and each a second time, until told to stop."""

    def __init__(self, port: int, studies: list[dict[str, str]]) -> None:
        super().__init__(daemon=True)
        self.port, self.studies = port, studies
        self.acknowledged: list[Dataset] = []
        self.refused: list[Any] = []
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with association(self.port, (CTImageStorage, EXPLICIT)) as opened:
            number = 0
            while not self.enough.is_set():
                dataset = make_object(**self.studies[number % len(self.studies)])
                for again in (dataset, *self.acknowledged[-1:]):
                    status = opened.send_c_store(again)
                    (self.acknowledged if status.Status == 0 else self.refused).append(again)
                number += 1


def wait_for_more(senders: list[Sender]) -> None:
    def number() -> int:
        return sum(len(sender.acknowledged) for sender in senders)

    enough = number() + 16
    until(lambda: number() >= enough, 60)


def test_deletion_under_load_loses_nothing_else(
    stores: Stores, start_server: Callable[[Stores], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "AT_ONCE", 4)
    port = start_server(stores)
    contested, quiet = (
        {
            "PatientID": name,
            "StudyInstanceUID": generate_uid(),
            "SeriesInstanceUID": generate_uid(),
        }
        for name in ("contested", "quiet")
    )
    senders = [Sender(port, [contested, quiet]) for _ in range(2)]
    stop = threading.Event()

    def work() -> None:
        with Worker(stores) as worker:
            while not stop.wait(0.05):
                worker.work_round()

    worker = threading.Thread(target=work)
    worker.start()
    named = make_object(**contested)
    try:
        for round_number in range(ROUNDS):
            wait_for_more(senders)
            with contextlib.suppress(SelectionError):  # nothing has come since the last time
                # by the command, or left to the duty
                (delete_study if round_number % 2 else bury_study)(stores, named)
            apply_retention(stores)
    finally:
        for sender in senders:
            sender.enough.set()
        for sender in senders:
            sender.join(30)
        stop.set()
        worker.join(60)
    assert [sender.refused for sender in senders] == [[], []]
    acknowledged = {d.SOPInstanceUID for sender in senders for d in sender.acknowledged}
    of_quiet = {
        dataset.SOPInstanceUID
        for sender in senders
        for dataset in sender.acknowledged
        if dataset.PatientID == "quiet"
    }
    gone = set(buried(stores))
    # each is here or was deleted, none is both, and deletion kept to its study
    assert uids(stores) | gone == acknowledged
    assert not uids(stores) & gone
    assert gone
    assert of_quiet <= uids(stores)
    embed(stores)
    assert_sound(stores)
    assert vectors_of_each(stores) == dict.fromkeys(uids(stores), 1)
    index = open_search(stores, writable=True).active_cache()
    assert len(index) == len(uids(stores))


def test_a_series_is_not_empty_while_an_object_is_entered_in_it(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = study_of(1, StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3"), make_object()
    keep(stores, tmp_path, *old)
    new.StudyInstanceUID, new.SeriesInstanceUID = "1.2", old[0].SeriesInstanceUID
    bury_study(stores, old[0])
    entered, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> Any:
        registered = register(*arguments)
        entered.set()
        go_on.wait(10)
        return registered

    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "register", slowly)
        receiving = threading.Thread(target=keep, args=(stores, tmp_path, new))
        receiving.start()
        assert entered.wait(10)
        deleting = threading.Thread(target=apply_retention, args=(stores,))
        deleting.start()
        deleting.join(0.5)  # as far as it gets beside the receiver
        go_on.set()
        receiving.join(30)
        deleting.join(30)
    assert uids(stores) == {new.SOPInstanceUID}
    embed(stores)
    assert_sound(stores)
