"""Date-times (VR DT, PS3.5 6.2) as the moments they can mean, in UTC.

A DT may end after any of its components and may name an offset from UTC, so its text does not
compare. One without an offset counts as UTC, as in the example of PS3.4 C.2.2.2.1.3.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_PARTS = ("year", "month", "day", "hour", "minute", "second")
_DATE_TIME = re.compile(
    r"(?P<year>\d{4})((?P<month>\d\d)((?P<day>\d\d)((?P<hour>\d\d)((?P<minute>\d\d)"
    r"((?P<second>\d\d)(\.(?P<fraction>\d{1,6}))?)?)?)?)?)?"
    r"((?P<sign>[+-])(?P<hours>\d\d)(?P<minutes>[0-5]\d))?"
)
_MICROSECOND = timedelta(microseconds=1)


def moments(text: str) -> tuple[str, str]:
    """Return the first and the last microsecond that a date-time can mean.

    Parameters
    ----------
    text : str
        One value of VR DT.

    Returns
    -------
    tuple of str
        Two times in UTC, ``YYYYMMDDHHMMSS`` and six digits of microseconds: text that compares.

    Raises
    ------
    ValueError
        It is no date-time, or not of this calendar.
    """
    found = _DATE_TIME.fullmatch(text.strip(" "))
    if found is None:
        raise ValueError(f"{text!r} is not a date-time YYYYMMDDHHMMSS.FFFFFF&ZZXX")
    try:
        first, unit = _written(found)
        offset = _offset(found)
        return _compared(first - offset), _compared(first - offset + unit - _MICROSECOND)
    except OverflowError as error:  # year 0001 or 9999
        raise ValueError(f"{text!r} is beyond the calendar") from error


def _written(found: re.Match[str]) -> tuple[datetime, timedelta]:
    """Return the beginning of a date-time as written, and how long the named unit lasts."""
    numbers = [int(found[part]) for part in _PARTS if found[part] is not None]
    year, month, day, hour, minute, second = (*numbers, *(0, 1, 1, 0, 0, 0)[len(numbers) :])
    first = datetime(year, month, day, hour, minute, min(second, 59))  # 60 is a leap second
    if found["fraction"] is not None:
        digits = found["fraction"]
        unit = timedelta(microseconds=10 ** (6 - len(digits)))
        return first + int(digits) * unit, unit
    match len(numbers):
        case 1:
            return first, datetime(year, 12, 31) - first + timedelta(days=1)
        case 2:
            next_month = (first + timedelta(days=31)).replace(day=1)
            return first, next_month - first
    units = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
    return first, units[len(numbers) - 3]


def _offset(found: re.Match[str]) -> timedelta:
    if found["sign"] is None:
        return timedelta()
    size = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
    return -size if found["sign"] == "-" else size


def _compared(moment: datetime) -> str:
    return f"{moment.year:04d}{moment:%m%d%H%M%S%f}"
