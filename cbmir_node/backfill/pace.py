"""When and how fast another PACS may be asked for images."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

_LOOK_S = 60.0


@dataclass(frozen=True)
class Hours:
    """A time of day, local, that may span midnight; the end does not belong to it."""

    begin: time
    end: time

    def opens(self, now: datetime) -> datetime:
        """Return when it begins next, or `now` while it lasts."""
        time_of_day = now.time()
        if self.begin < self.end:
            lasts = self.begin <= time_of_day < self.end
        else:
            lasts = time_of_day >= self.begin or time_of_day < self.end
        if lasts:
            return now
        day = now.date() if time_of_day < self.begin else now.date() + timedelta(days=1)
        return datetime.combine(day, self.begin)


class Pace:
    """Waits where it must.

    Parameters
    ----------
    images_per_minute : float, optional
        On average; ``None`` for as fast as they come.
    hours : Hours, optional
        When images may be fetched; ``None`` for always.
    tell : callable
        Told why and how long it waits.
    now, monotonic, sleep : callable
        The clocks: the one on the wall for the hours, one that is never set for the rate.
    """

    def __init__(
        self,
        images_per_minute: float | None = None,
        hours: Hours | None = None,
        *,
        tell: Callable[[str], None] = lambda _: None,
        now: Callable[[], datetime] = datetime.now,
        monotonic: Callable[[], float] = clock.monotonic,
        sleep: Callable[[float], None] = clock.sleep,
    ) -> None:
        self._interval_s = 60 / images_per_minute if images_per_minute else 0.0
        self._hours = hours
        self._tell = tell
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = monotonic()

    def wait_for_hours(self) -> None:
        """Wait until images may be fetched."""
        if self._hours is None:
            return
        opens = self._hours.opens(self._now())
        if opens > self._now():
            self._tell(f"waiting until {opens:%Y-%m-%d %H:%M}")
        # looks at the clock now and then: it may be set, and a machine may sleep
        while (opens := self._hours.opens(self._now())) > (now := self._now()):
            self._sleep(min(_LOOK_S, (opens - now).total_seconds()))

    def count_image(self) -> None:
        """Note that an image came."""
        self._free_at = max(self._free_at, self._monotonic()) + self._interval_s

    def rest(self, longest_s: float | None = None) -> None:
        """Wait until the images that came are paid for, or for `longest_s` seconds."""
        left = self._free_at - self._monotonic()
        if left > 0:
            self._sleep(left if longest_s is None else min(left, longest_s))

    def pause(self, seconds: float, reason: str) -> None:
        """Wait, and say why."""
        self._tell(f"{reason}; waiting for {seconds:g} s")
        self._sleep(seconds)

    def wait_until(
        self, condition: Callable[[], bool], reason: str, *, look_s: float, longest_s: float
    ) -> bool:
        """Wait for a condition, and say why; return whether it came true in time."""
        self._tell(reason)
        deadline = self._monotonic() + longest_s
        while not condition():
            if self._monotonic() >= deadline:
                return False
            self._sleep(look_s)
        return True
