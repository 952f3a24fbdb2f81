"""Reading elements that may be missing, multi-valued or garbage without failing on them."""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from typing import Any

from pydicom.dataset import Dataset


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """Return an element's values as a list; empty when it is absent, empty or not readable."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom converts on access, and a broken value raises almost any class
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MutableSequence) else [value]


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return an element's finite numbers, in order; what is no number is left out."""
    found = []
    for value in values(dataset, keyword):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):
            found.append(number)
    return found


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an element's first finite number."""
    return next(iter(numbers(dataset, keyword)), None)


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as text, upper case, without padding."""
    return next((str(value).strip().upper() for value in values(dataset, keyword)), "")


def item(dataset: Dataset, keyword: str, index: int = 0) -> Dataset | None:
    """Return one item of a sequence, or None."""
    items = values(dataset, keyword)
    if not index < len(items):
        return None
    return items[index] if isinstance(items[index], Dataset) else None


def frame_macro(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return a functional group macro of one frame of an enhanced object (PS3.3 C.7.6.16).

    Parameters
    ----------
    dataset : Dataset
    frame : int
        From 0.
    keyword : str
        Of the macro's sequence, such as ``FrameVOILUTSequence``.

    Returns
    -------
    Dataset or None
        The frame's own item, or else the one shared by all frames.
    """
    for groups in (
        item(dataset, "PerFrameFunctionalGroupsSequence", frame),
        item(dataset, "SharedFunctionalGroupsSequence"),
    ):
        if groups is not None and (macro := item(groups, keyword)) is not None:
            return macro
    return None
