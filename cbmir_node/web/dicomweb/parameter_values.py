"""Values of query parameters, and the problem of one that cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cbmir_node.web.problems import Problem

Parameters = Mapping[str, Sequence[str]]
"""Values by name, as they were sent."""


def only_value(parameters: Parameters, name: str) -> str | None:
    """Return the value of a parameter that is named once at most; None where it is not.

    Raises
    ------
    Problem
        400: it is named more often.
    """
    values = parameters.get(name, ())
    if len(values) > 1:
        raise wrong_value(name, "name it once")
    return values[0] if values else None


def wrong_value(name: str, wanted: str) -> Problem:
    """Return the problem of a parameter; `wanted` says what to send instead."""
    return Problem(400, f"{name}: {wanted}", field=name)
