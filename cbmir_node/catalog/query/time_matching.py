"""Dates, times and date-times as SQL conditions: single values and ranges (PS3.4 C.2.2.2.5).

Values match by their meaning: one that ends after the minute means that whole minute, in the key as
in the catalogue, and what may be the same matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_

from cbmir_node.catalog.keys import Key
from cbmir_node.catalog.query.moments import moments
from cbmir_node.errors import QueryError

_DATE = r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"
# "-0500" is an offset from UTC and no year: none lies before 1201
_DATE_TIME = r"\d{4}(\d\d(\d\d(\d\d(\d\d(\d\d(\.\d{1,6})?)?)?)?)?)?"
_OFFSET = r"(\+(0\d|1[0-4])[0-5]\d|-((0\d|1[01])[0-5]\d|1200))?"
_ONE = {"DA": _DATE, "TM": _TIME, "DT": _DATE_TIME + _OFFSET}
_FORMAT = {"DA": "date YYYYMMDD", "TM": "time HHMMSS", "DT": "date-time YYYYMMDDHHMMSS"}
_COMPONENT_ENDS = (2, 4, 6)
_AFTER_DIGITS = ":"  # in ASCII; nothing that begins with a digit comes after it
_AFTER_ALL = "~"


@dataclass(frozen=True)
class TimeRange:
    """What a key asks for, both ends included; an empty one is open."""

    low: str
    high: str
    is_range: bool


def read_range(key: Key, value: str) -> TimeRange:
    """Read the value of a key of VR DA, TM or DT.

    Raises
    ------
    QueryError
        It is neither one value nor a range.
    """
    plain = value.replace(" ", "")
    if key.vr == "TM":  # as before version 3.0 of DICOM
        plain = plain.replace(":", "")
    if key.vr == "DA":
        plain = re.sub(r"(\d{4})\.(\d\d)\.(\d\d)", r"\1\2\3", plain)
    one = _ONE[key.vr]
    if re.fullmatch(one, plain):
        return TimeRange(plain, plain, is_range=False)
    found = re.fullmatch(f"(?P<low>{one})?-(?P<high>{one})?", plain)
    if found is None or plain == "-":
        raise QueryError(f"{key.keyword}: {value!r} is no {_FORMAT[key.vr]} and no range of them")
    return TimeRange(found["low"] or "", found["high"] or "", is_range=True)


def time_condition(columns: Any, key: Key, value: str) -> ColumnElement[bool]:
    """Match a key of VR DA, TM or DT.

    Parameters
    ----------
    columns : ColumnCollection
        Of the table that has the key.

    Raises
    ------
    QueryError
        The value does not fit the VR.
    """
    asked = read_range(key, value)
    if key.vr == "DT":
        first, last = (columns[form] for form in key.forms)
        return _moments_condition(first, last, key, asked)
    column: ColumnElement[str] = columns[key.column]
    if key.vr == "DA" and not asked.is_range:
        return column == asked.low
    return and_(_since(column, asked.low), _until(column, asked.high))


def combined_condition(
    date: ColumnElement[str], time: ColumnElement[str], dates: TimeRange, times: TimeRange
) -> ColumnElement[bool]:
    """Match a date and a time of day as one point in time (PS3.4 C.2.2.2.5.4).

    An unknown time may be any of its day.
    """
    # the plain range of dates lets an index serve it
    limits = [_since(date, dates.low), _until(date, dates.high)]
    if dates.low:
        limits.append(or_(date > dates.low, _since(time, times.low), time == ""))
    if dates.high:
        limits.append(or_(date < dates.high, _until(time, times.high)))
    return and_(*limits)


def can_be_combined(dates: TimeRange, times: TimeRange) -> bool:
    """Tell whether both are ranges of the same form."""
    return (
        dates.is_range
        and times.is_range
        and (bool(dates.low), bool(dates.high)) == (bool(times.low), bool(times.high))
    )


def _since(column: ColumnElement[str], low: str) -> ColumnElement[bool]:
    coarser = list(_coarser(low))
    later = column >= (low or "0")  # an unknown value is in no range
    return or_(later, column.in_(coarser)) if coarser else later


def _until(column: ColumnElement[str], high: str) -> ColumnElement[bool]:
    return column < (high + _AFTER_ALL if high else _AFTER_DIGITS)


def _coarser(time: str) -> Iterator[str]:
    """Yield a time of day as it may be written with less precision; a date has one precision."""
    whole, _, fraction = time.partition(".")
    if len(whole) > len("HHMMSS"):
        return
    yield from (whole[:end] for end in _COMPONENT_ENDS if end < len(whole))
    if fraction:
        yield whole
        yield from (f"{whole}.{fraction[:digits]}" for digits in range(1, len(fraction)))


def _moments_condition(
    first: ColumnElement[str], last: ColumnElement[str], key: Key, asked: TimeRange
) -> ColumnElement[bool]:
    limits = [first != ""]
    try:
        if asked.low:
            limits.append(last >= moments(asked.low)[0])
        if asked.high:
            limits.append(first <= moments(asked.high)[1])
    except ValueError as error:
        raise QueryError(f"{key.keyword}: {error}") from error
    return and_(*limits)
