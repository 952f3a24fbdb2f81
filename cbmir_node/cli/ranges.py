"""Ranges as a user writes them: ``FROM-TO``, either end open."""

from __future__ import annotations

import re
from datetime import datetime

import click

_YEARS = re.compile(r"\d+(\.\d+)?")

AgeRange = tuple[float | None, float | None]
"""Minimum and maximum age in years, both included; ``None`` where the range is open."""


def ages(_context: click.Context, _parameter: click.Parameter, text: str | None) -> AgeRange:
    """Read a range of ages; one number is a range of its own.

    Raises
    ------
    click.BadParameter
        It is no range, or ends before it begins.
    """
    if text is None:
        return None, None
    first, last = _ends(text)
    if not all(end == "" or _YEARS.fullmatch(end) for end in (first, last)):
        raise click.BadParameter(f"{text!r} is not a range of years such as 40-60")
    minimum, maximum = (float(end) if end else None for end in (first, last))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise click.BadParameter(f"{text!r} ends before it begins")
    return minimum, maximum


def dates(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Read a date or a range of dates as matching takes them (PS3.4 C.2.2.2.5).

    Raises
    ------
    click.BadParameter
        It is no range of dates YYYYMMDD, or ends before it begins.
    """
    if text is None:
        return None
    first, last = _ends(text)
    if not all(end == "" or _is_date(end) for end in (first, last)):
        raise click.BadParameter(f"{text!r} is not a range of dates such as 20200101-20201231")
    if first and last and first > last:
        raise click.BadParameter(f"{text!r} ends before it begins")
    return text


def _ends(text: str) -> tuple[str, str]:
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not (first or last):
        raise click.BadParameter(f"{text!r} names neither end of a range")
    return first, last if dash else first


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{8}", text):
        return False
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True
