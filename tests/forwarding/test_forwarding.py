"""Objects are sent on: to a peer that is down first, that refuses, that breaks off."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from sqlalchemy import select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.forwarding.overview import count_forwards
from cbmir_node.catalog.forwarding.queue import ForwardQueue
from cbmir_node.config import ForwardingRule, Settings
from cbmir_node.dicom.client.association import Peer
from cbmir_node.errors import CatalogError
from cbmir_node.forwarding import forwarder
from cbmir_node.forwarding.forwarder import Forwarder
from cbmir_node.forwarding.rules import ForwardingRules
from cbmir_node.node import open_intake
from cbmir_node.stores import Stores
from tests.conftest import free_port
from tests.dicom.peers import until
from tests.dicom.receivers import EXPLICIT, receiver, storescp
from tests.objects import make_object, write
from tests.small_node import open_small_stores

CT, MR = (str(CTImageStorage), EXPLICIT), (str(MRImageStorage), EXPLICIT)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "_POLL_S", 0.05)


@pytest.fixture
def open_node(tmp_path: Path) -> Iterator[Callable[..., Stores]]:
    """Open a data folder that sends everything from CT1 on to the given peers."""
    opened: list[Stores] = []

    def open_it(*peers: Peer, **forwarding: Any) -> Stores:
        rules = [{"to": peer.ae_title, "calling_ae_titles": ["CT1"]} for peer in peers]
        settings = Settings.model_validate(
            {
                "data_dir": tmp_path / "data",
                "peers": {p.ae_title: {"host": p.host, "port": p.port} for p in peers},
                "forwarding": {"rules": rules, "first_retry_s": 0.2, **forwarding},
                "dicom": {"idle_timeout_s": 5},
                "archive": {"duplicates": "replace"},
            }
        )
        opened.append(open_small_stores(settings))
        return opened[-1]

    yield open_it
    for stores in opened:
        stores.close()


def receive(stores: Stores, *datasets: Dataset, source: str = "CT1") -> list[str]:
    """Take objects in as if a modality had sent them; return their SOP Instance UIDs."""
    intake = open_intake(stores)
    try:
        for dataset in datasets:
            path = write(dataset, stores.settings.data_dir / "one.dcm")
            intake.accept_file(path, source=source)
    finally:
        intake.close()
    return [str(dataset.SOPInstanceUID) for dataset in datasets]


@contextmanager
def forwarding(stores: Stores) -> Iterator[Forwarder]:
    running = Forwarder(stores)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def queue(stores: Stores) -> dict[str, tuple[str, str, int]]:
    """Return state, reason and attempts by SOP Instance UID."""
    table, instances = schema.forwards.c, schema.instances.c
    query = select(instances.sop_instance_uid, table.state, table.reason, table.attempts)
    query = query.join(schema.instances, instances.id == table.instance)
    with stores.catalog.read() as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}


def resting(stores: Stores) -> dict[str, tuple[int, str]]:
    table = schema.resting_destinations.c
    with stores.catalog.read() as connection:
        rows = connection.execute(select(table.destination, table.attempts, table.reason))
        return {row[0]: (row[1], row[2]) for row in rows}


def all_have(stores: Stores, state: str) -> Callable[[], bool]:
    return lambda: {found[0] for found in queue(stores).values()} == {state}


def slices(number: int, **attributes: Any) -> list[Dataset]:
    study = generate_uid()
    return [make_object(StudyInstanceUID=study, **attributes) for _ in range(number)]


def uids(requests: Sequence[Any]) -> list[str]:
    return [str(request.AffectedSOPInstanceUID) for request in requests]


def test_rules() -> None:
    rules = ForwardingRules(
        [
            ForwardingRule(to="PACS"),
            ForwardingRule(to="CT_ARCHIVE", modalities=("CT", "pt")),
            ForwardingRule(to="VIEWER", calling_ae_titles=("CT1", "import"), modalities=("CT",)),
            ForwardingRule(to="PACS", modalities=("CT",)),
        ]
    )

    def found(source: str, modality: str, *, fetched: bool = False) -> list[str]:
        return list(rules.destinations(source, modality, fetched=fetched))

    assert found("CT1", "CT") == ["PACS", "CT_ARCHIVE", "VIEWER"]
    assert found("MR1", "MR") == ["PACS"]
    assert found("MR1", "PT") == ["PACS", "CT_ARCHIVE"]
    assert found("PACS", "CT") == ["CT_ARCHIVE"]  # not back
    assert found("import", "CT", fetched=True) == ["VIEWER"]
    assert found("PACS", "CT", fetched=True) == []


def test_only_what_is_new_is_queued(open_node: Callable[..., Stores]) -> None:
    stores = open_node(Peer("PACS", "127.0.0.1", free_port()))
    (dataset,) = slices(1)
    for source in ("CT1", "CT1", "CT2"):
        receive(stores, dataset, source=source)
    receive(stores, make_object(), source="CT2")
    assert queue(stores) == {dataset.SOPInstanceUID: ("pending", "", 0)}


def test_corrected_content_goes_on_also_to_who_waits_for_the_old_one(
    open_node: Callable[..., Stores],
) -> None:
    stores = open_node(Peer("PACS", "127.0.0.1", free_port()))
    (dataset,) = slices(1)
    waiting = {dataset.SOPInstanceUID: ("pending", "", 0)}
    receive(stores, dataset)
    dataset.PatientName = "Corrected"
    receive(stores, dataset, source="CT2")  # whose objects no rule passes
    assert queue(stores) == waiting
    with stores.catalog.write() as connection:
        connection.execute(update(schema.forwards).values(state="sent"))
    dataset.PatientName = "Corrected^Again"
    receive(stores, dataset)
    assert queue(stores) == waiting
    dataset.PatientName = "From^There"
    receive(stores, dataset, source="PACS")
    assert queue(stores) == {}


def test_rules_need_that_corrected_content_is_taken() -> None:
    peers = {"PACS": {"host": "127.0.0.1", "port": 104}}
    with pytest.raises(ValueError, match=r'need archive\.duplicates = "replace"'):
        Settings.model_validate({"peers": peers, "forwarding": {"rules": [{"to": "PACS"}]}})


def test_what_goes_wrong_here_is_not_the_destinations_fault(
    open_node: Callable[..., Stores],
) -> None:
    """More objects without a file, and with a lost one, than failures are put up with."""
    datasets = slices(9)
    with receiver([CT]) as scp:
        stores = open_node(scp.peer, first_retry_s=60)
        evicted, lost, fine = (receive(stores, *datasets[n : n + 3]) for n in (0, 3, 6))
        instances = schema.instances.c
        with stores.catalog.write() as connection:
            connection.execute(
                update(schema.instances)
                .where(instances.sop_instance_uid.in_(evicted))
                .values(path="")
            )
            query = select(instances.path).where(instances.sop_instance_uid.in_(lost))
            for path in connection.execute(query).scalars():
                stores.archive.path(path).unlink()
        with forwarding(stores):
            until(lambda: queue(stores)[fine[-1]][0] == "sent")
            until(lambda: {queue(stores)[uid][2] for uid in lost} == {1})
        found = queue(stores)
    assert {found[uid] for uid in evicted} == {("given_up", "its pixels are not kept here", 1)}
    assert {found[uid][0] for uid in lost} == {"pending"}
    assert resting(stores) == {}
    assert uids(scp.requests) == fine


def test_a_forwarder_whose_catalogue_fails_says_so_until_it_answers(
    open_node: Callable[..., Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_node(Peer("PACS", "127.0.0.1", free_port()))
    receive(stores, *slices(1))

    def fail(*_arguments: Any) -> Any:
        raise CatalogError("the database is read-only")

    with forwarding(stores) as running:
        assert running.problem == ""
        with monkeypatch.context() as broken:
            broken.setattr(ForwardQueue, "claim", fail)
            until(lambda: running.problem == "to PACS: the database is read-only")
            broken.setattr(ForwardQueue, "due_destinations", fail)
            until(lambda: running.problem.startswith("the database is read-only; to PACS"))
        until(lambda: running.problem == "")


def test_what_a_repair_took_in_is_sent_on_when_its_sender_tries_again(
    open_node: Callable[..., Stores],
) -> None:
    """Killed between file and row: the sender was told nothing."""
    stores = open_node(Peer("PACS", "127.0.0.1", free_port()))
    (dataset,) = slices(1)
    receive(stores, dataset, source="repair")
    assert queue(stores) == {}
    receive(stores, dataset)
    assert list(queue(stores)) == [dataset.SOPInstanceUID]


def test_a_peer_that_is_down_first_gets_everything(
    open_node: Callable[..., Stores], tmp_path: Path
) -> None:
    """Each round asks it once, however many objects wait."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
        stores = open_node(Peer("STORESCP", "127.0.0.1", port))
        sent = receive(stores, *slices(4), *slices(3))

        def hang_up() -> None:
            while len(connections) < 3:
                connections.append(closed.accept()[0].close())

        busy = threading.Thread(target=hang_up, daemon=True)
        busy.start()
        with forwarding(stores):
            until(lambda: resting(stores).get("STORESCP", (0, ""))[0] >= 2)
            assert len(connections) <= resting(stores)["STORESCP"][0] + 1
            assert "check host and port" in resting(stores)["STORESCP"][1]
            assert set(queue(stores).values()) == {("pending", "", 0)}
            busy.join(20)
    with storescp(tmp_path / "received", port=port) as peer, forwarding(stores) as running:
        assert peer.port == port
        until(all_have(stores, "sent"), 20)
    assert len(list((tmp_path / "received").iterdir())) == len(sent) == 7
    assert resting(stores) == {}
    assert running.counts() == {"STORESCP sent": 7}


def test_a_refusal_is_for_good_and_an_overload_is_not(open_node: Callable[..., Stores]) -> None:
    datasets = slices(4)
    busy, unwanted, fine, warned = [str(dataset.SOPInstanceUID) for dataset in datasets]
    answers = {busy: [0xA700, 0x0000], unwanted: [0xC000], warned: [0xB007]}

    def answer(event: Any, _number: int) -> int:
        return answers.get(str(event.request.AffectedSOPInstanceUID), [0x0000]).pop(0)

    answers[fine] = [0x0000]
    with receiver([CT], answer) as scp:
        stores = open_node(scp.peer)
        receive(stores, *datasets)
        with forwarding(stores) as running:
            until(lambda: queue(stores)[busy][0] == "sent", 20)
        found = queue(stores)
    assert Counter(uids(scp.requests)) == {busy: 2, unwanted: 1, fine: 1, warned: 1}
    assert [found[uid][0] for uid in (unwanted, fine, warned)] == ["refused", "sent", "sent"]
    assert "0xC000" in found[unwanted][1]
    assert found[busy][2] == 2
    assert running.counts() == {
        "RECEIVER sent": 2,
        "RECEIVER refused": 1,
        "RECEIVER warning": 1,
        "RECEIVER failed": 1,
    }


def test_one_that_ends_every_association_does_not_hold_up_its_neighbours(
    open_node: Callable[..., Stores],
) -> None:
    datasets = slices(5)
    bad = str(datasets[0].SOPInstanceUID)

    def answer(event: Any, _number: int) -> int:
        if event.request.AffectedSOPInstanceUID == bad:
            event.assoc.abort()
        return 0x0000

    with receiver([CT], answer) as scp:
        stores = open_node(scp.peer, first_retry_s=0.05)
        others = receive(stores, *datasets)[1:]
        with forwarding(stores):
            until(lambda: {queue(stores)[uid][0] for uid in others} == {"sent"}, 20)
            until(lambda: queue(stores)[bad][2] > 1, 20)
            with stores.catalog.write() as connection:  # it has waited for years
                connection.execute(update(schema.forwards).values(requested_at=0.0))
            until(lambda: queue(stores)[bad][0] == "given_up", 20)
            assert resting(stores) == {}
            late = receive(stores, *slices(1))
            until(lambda: queue(stores)[late[0]][0] == "sent")
    assert all(uids(scp.requests).count(uid) == 1 for uid in others)


def test_a_silent_destination_does_not_hold_up_the_others(
    open_node: Callable[..., Stores],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, receiver([CT]) as scp:
        nobody = Peer("SILENT", "127.0.0.1", silent.getsockname()[1])
        stores = open_node(nobody, scp.peer)
        receive(stores, *slices(2), *slices(2))
        with forwarding(stores):
            until(lambda: count_forwards(stores.catalog)["sent"] == 4)
            assert resting(stores) == {}  # it is still being asked
            assert count_forwards(stores.catalog)["pending"] == 4


def test_what_a_destination_does_not_know_is_refused_and_the_rest_is_sent(
    open_node: Callable[..., Stores],
) -> None:
    datasets = [*slices(2), *slices(1, SOPClassUID=MRImageStorage, Modality="MR")]
    datasets[2].StudyInstanceUID = datasets[0].StudyInstanceUID
    with receiver([CT]) as scp:
        stores = open_node(scp.peer)
        *images, unknown = receive(stores, *datasets)
        with forwarding(stores):
            until(lambda: count_forwards(stores.catalog)["pending"] == 0)
    assert uids(scp.requests) == images
    assert len(scp.associations) == 1
    assert queue(stores)[unknown][:2] == ("refused", "the peer accepts nothing that it can become")


def test_a_destination_that_left_the_configuration_says_so(
    open_node: Callable[..., Stores],
) -> None:
    receive(open_node(Peer("PACS", "127.0.0.1", free_port())), *slices(2))
    stores = open_node()
    with forwarding(stores):
        until(lambda: "PACS" in resting(stores))
    assert "there is no [peers.PACS]" in resting(stores)["PACS"][1]
    assert set(queue(stores).values()) == {("pending", "", 0)}
