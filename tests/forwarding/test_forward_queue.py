"""The queue of objects to be sent on, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.forwarding.overview import (
    QueuedObjects,
    add_forwards,
    cancel_forwards,
    count_forwards,
    destination_queues,
    forwarded_studies,
    retry_forwards,
)
from cbmir_node.catalog.forwarding.queue import (
    Forward,
    ForwardOutcome,
    ForwardQueue,
    forwarding_owners,
    release_forwards,
)
from cbmir_node.catalog.forwarding.resting_destinations import rest_destination
from cbmir_node.config import ForwardingSettings
from cbmir_node.forwarding.delivery import pause_after
from tests.catalog.test_catalog import record, store

DAY_S = 86_400.0


def receive(catalog: Catalog, study: str, number: int = 1, to: tuple[str, ...] = ("PACS",)) -> None:
    objects = (record(StudyInstanceUID=study) for _ in range(number))
    store(catalog, *(replace(one, forward_to=to) for one in objects))


@pytest.fixture
def queue(catalog: Catalog) -> ForwardQueue:
    return ForwardQueue(catalog, "test/1", 60)


def outcome(forward: Forward, state: str, reason: str = "", due_at: float = 0) -> ForwardOutcome:
    return ForwardOutcome(forward.row, state, reason, forward.attempts + 1, due_at)  # type: ignore[arg-type]


def test_objects_are_claimed_by_destination_and_study(
    catalog: Catalog, queue: ForwardQueue
) -> None:
    receive(catalog, "1.1", 3, ("PACS", "VIEWER"))
    receive(catalog, "1.2", 2)
    assert queue.due_destinations() == ["PACS", "VIEWER"]
    assert [len(queue.claim("PACS", 100)) for _ in range(3)] == [3, 2, 0]
    assert queue.due_destinations() == ["VIEWER"]
    first, second = queue.claim("VIEWER", 2)
    queue.record([outcome(first, "pending", "busy", time.time() - 1)])
    queue.release([second])
    # what failed before comes last
    assert [one.attempts for one in queue.claim("VIEWER", 100)] == [0, 0, 1]


def test_several_senders_do_nothing_twice(catalog: Catalog) -> None:
    receive(catalog, "1.1", 40)

    def drain(number: int) -> list[int]:
        queue, rows = ForwardQueue(catalog, f"test/{number}", 60), []
        while claimed := queue.claim("PACS", 3):
            rows += [forward.row for forward in claimed]
        return rows

    with ThreadPoolExecutor(4) as pool:
        claimed = [row for rows in pool.map(drain, range(4)) for row in rows]
    assert len(claimed) == len(set(claimed)) == 40


def test_a_lost_claim_says_nothing_and_a_dead_sender_holds_nothing(catalog: Catalog) -> None:
    receive(catalog, "1.1")
    (lost,) = ForwardQueue(catalog, "slow/1", -1).claim("PACS", 10)
    (held,) = ForwardQueue(catalog, "quick/1", 60).claim("PACS", 10)
    ForwardQueue(catalog, "slow/1", 60).record([outcome(lost, "refused")])
    assert count_forwards(catalog)["pending"] == 1
    assert forwarding_owners(catalog) == ["quick/1"]
    release_forwards(catalog, ["quick/1"])
    assert ForwardQueue(catalog, "third/1", 60).claim("PACS", 10) == [held]


def test_the_pause_doubles_up_to_the_longest() -> None:
    settings = ForwardingSettings(first_retry_s=30, longest_retry_s=100)
    assert [pause_after(attempts, settings) for attempts in (1, 2, 3, 5000)] == [30, 60, 100, 100]


def test_a_destination_rests_longer_each_time_and_what_is_late_is_given_up(
    catalog: Catalog, queue: ForwardQueue
) -> None:
    receive(catalog, "1.1", 2)
    time.sleep(0.05)
    receive(catalog, "1.2", 2)
    (old,) = {study.requested_at for study in shown(catalog, "1.1")}

    def rest(give_up_s: float) -> float:
        return rest_destination(catalog, "PACS", "it is down", lambda n: 10.0 * n, give_up_s)

    assert [rest(DAY_S), rest(DAY_S)] == [10, 20]
    assert queue.due_destinations() == []
    assert [study.reason for study in shown(catalog)] == ["it is down"] * 2
    assert all(study.due_at and study.due_at > time.time() + 15 for study in shown(catalog))
    rest(time.time() - old - 0.03)
    assert [(s.study_instance_uid, s.state) for s in shown(catalog)] == [
        ("1.1", "given_up"),
        ("1.2", "pending"),
    ]
    # new objects do not wake it; an administrator does
    receive(catalog, "1.3")
    assert queue.due_destinations() == []
    assert retry_forwards(catalog, None, refused=False) == 5
    assert queue.due_destinations() == ["PACS"]


def test_a_study_is_queued_by_hand_also_once_more(catalog: Catalog, queue: ForwardQueue) -> None:
    receive(catalog, "1.1", 3)
    sent, refused, waiting = queue.claim("PACS", 10)
    queue.record([outcome(sent, "sent"), outcome(refused, "refused", "0xC000")])
    receive(catalog, "1.2")
    assert add_forwards(catalog, "PACS", "1.1") == QueuedObjects(new=2, waiting=1)
    assert add_forwards(catalog, "NEW", "1.1") == QueuedObjects(new=3, waiting=0)
    assert count_forwards(catalog) == {"pending": 7, "sent": 0, "refused": 0, "given_up": 0}
    # the one that is on its way is not taken from its sender
    assert {one.row for one in queue.claim("PACS", 10)}.isdisjoint({waiting.row})
    assert len(queue.claim("NEW", 10)) == 3
    assert add_forwards(catalog, "NEW", "1.9") == QueuedObjects(0, 0)


def shown(catalog: Catalog, study: str | None = None) -> list:  # type: ignore[type-arg]
    states = ("pending", "refused", "given_up")
    found = forwarded_studies(catalog, states, None, 100)
    return [one for one in found if study in (None, one.study_instance_uid)]


def test_the_queue_is_seen_retried_and_cancelled(catalog: Catalog, queue: ForwardQueue) -> None:
    receive(catalog, "1.1", 3, ("PACS", "VIEWER"))
    receive(catalog, "1.2", 1)
    first, second, third = queue.claim("PACS", 10)
    later = time.time() + 900
    queue.record(
        [
            outcome(first, "sent"),
            outcome(second, "refused", "0xC000"),
            outcome(third, "pending", "0xA700", later),
        ]
    )
    lines = {
        (one.destination, one.study_instance_uid, one.state): (one.objects, one.reason, one.due_at)
        for one in shown(catalog)
    }
    assert lines["PACS", "1.1", "refused"] == (1, "0xC000", None)
    assert lines["PACS", "1.1", "pending"] == (1, "0xA700", pytest.approx(later))
    assert lines["VIEWER", "1.1", "pending"][0] == 3
    assert len(lines) == 4
    assert len(forwarded_studies(catalog, ("sent",), "PACS", 100)) == 1
    pacs, viewer = destination_queues(catalog)
    assert (pacs.destination, pacs.reason) == ("PACS", "0xA700")
    assert pacs.states == {"pending": 2, "sent": 1, "refused": 1, "given_up": 0}
    waiting = [one for one in shown(catalog) if (one.destination, one.state) == ("PACS", "pending")]
    assert pacs.oldest_pending == min(one.requested_at for one in waiting)
    assert (viewer.destination, viewer.states["pending"], viewer.reason) == ("VIEWER", 3, "")
    assert retry_forwards(catalog, "PACS", refused=True) == 3
    assert sorted(len(queue.claim("PACS", 10)) for _ in range(2)) == [1, 2]
    assert cancel_forwards(catalog, "PACS", ("pending",), "1.2") == 1
    assert cancel_forwards(catalog, "VIEWER", ("refused",)) == 0
    assert cancel_forwards(catalog, "VIEWER", ("pending",)) == 3
    assert count_forwards(catalog) == {"pending": 2, "sent": 1, "refused": 0, "given_up": 0}
    queue.forget_sent(time.time() + 1)
    assert count_forwards(catalog)["sent"] == 0
