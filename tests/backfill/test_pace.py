"""Images are fetched at the hours and the rate that were asked for."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest

from cbmir_node.backfill.pace import Hours, Pace

NIGHT = Hours(time(19), time(6))
LUNCH = Hours(time(12), time(13, 30))


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


def paced(clock: Clock, rate: float | None = None, hours: Hours | None = None) -> tuple[Pace, list]:
    told: list[str] = []
    pace = Pace(
        rate,
        hours,
        tell=told.append,
        now=lambda: clock.now,
        monotonic=lambda: clock.seconds,
        sleep=clock.sleep,
    )
    return pace, told


@pytest.mark.parametrize(
    ("hours", "now", "begins"),
    [
        (NIGHT, "2024-01-01 18:59:59", "2024-01-01 19:00:00"),
        (NIGHT, "2024-01-01 19:00:00", None),
        (NIGHT, "2024-01-01 23:59:59", None),
        (NIGHT, "2024-01-02 00:00:00", None),
        (NIGHT, "2024-01-02 05:59:59", None),
        (NIGHT, "2024-01-02 06:00:00", "2024-01-02 19:00:00"),
        (LUNCH, "2024-12-31 11:00:00", "2024-12-31 12:00:00"),
        (LUNCH, "2024-12-31 13:29:59", None),
        (LUNCH, "2024-12-31 13:30:00", "2025-01-01 12:00:00"),
    ],
)
def test_it_waits_until_the_hours_begin(hours, now, begins):
    clock = Clock(datetime.fromisoformat(now))
    pace, told = paced(clock, hours=hours)
    pace.wait_for_hours()
    assert str(clock.now) == (begins or now)
    assert told == ([f"waiting until {begins[:16]}"] if begins else [])


def test_the_rate_holds_on_average_and_a_peer_never_waits_long():
    clock = Clock(datetime(2024, 1, 1))
    pace, _ = paced(clock, rate=6)
    for _ in range(10):
        before = clock.seconds
        pace.count_image()
        pace.rest(longest_s=5)
        assert clock.seconds - before <= 5
    pace.rest()
    assert clock.seconds == pytest.approx(100)


def test_a_slow_pacs_gets_no_credit():
    clock = Clock(datetime(2024, 1, 1))
    pace, _ = paced(clock, rate=60)
    clock.sleep(1000)
    for _ in range(5):
        pace.count_image()
    pace.rest()
    assert clock.seconds == pytest.approx(1005)
