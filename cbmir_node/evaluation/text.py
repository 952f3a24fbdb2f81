"""How figures are written."""

from __future__ import annotations

from dataclasses import dataclass

from cbmir_node.evaluation.bootstrap import Interval

Rows = list[list[str]]
NOTHING = "–"


@dataclass(frozen=True)
class TextTable:
    """A table; its name for lists of contents, its title, and what must be known to read it."""

    name: str
    title: str
    head: list[str]
    rows: Rows
    note: str = ""


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure without the zero before its point, as the documentation writes it."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    if not float(text):
        text = text.replace("-", "")
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def with_interval(figure: Interval | None, *, sign: bool = False) -> str:
    """Return a figure and its interval; `sign` shows the sign of gains too."""
    if figure is None:
        return NOTHING
    value = number(figure.value)
    plus = "+" if sign and float(value) > 0 else ""
    return f"{plus}{value} ({number(figure.low)} to {number(figure.high)})"
