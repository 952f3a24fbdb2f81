"""The outcome of an evaluation: what the table, the JSON file and the report are made from.

`Evaluation` is written to ``evaluation.json`` as it is; docs/evaluation.md explains the keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from cbmir_node.evaluation.bootstrap import Interval

FORMAT_VERSION = 1
"""Of ``evaluation.json``: raised when a key changes its meaning or goes."""

Metrics = dict[str, Interval]


@dataclass(frozen=True)
class Table:
    """One system's metrics under one protocol, task and level.

    Attributes
    ----------
    queries, unanswerable : int
        Queries that count, and those left out because nothing relevant was to be found.
    metrics : dict of str to Interval
        Macro averages over the classes, with 95 % intervals over patients.
    classes : dict of str to dict
        The same metrics of each class's queries, without intervals.
    precision : list of float
        Interpolated precision at recall 0, .01 … 1, macro average; images of protocol U only.
    difference_to_reference, difference_to_plain : dict of str to Interval
        This system minus the reference, and minus the plain cosine ranking of the same model, in
        paired intervals; empty for these themselves.
    """

    queries: int
    unanswerable: int
    metrics: Metrics
    classes: dict[str, dict[str, float]]
    precision: list[float]
    difference_to_reference: Metrics = field(default_factory=dict)
    difference_to_plain: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class SystemResult:
    """One row of the comparison; tables by ``protocol/task/level``, as ``U/coarse/image``."""

    name: str
    model: str
    system: str
    tables: dict[str, Table]


@dataclass(frozen=True)
class Classification:
    """How well a model's most probable class fits, over images whose class it knows.

    Attributes
    ----------
    accuracy, balanced_accuracy : Interval
        Over images, and macro over classes.
    accuracy_at_64_px : Interval or None
    labels, confusion : list
        Rows are true classes, columns predicted ones.
    """

    model: str
    images: int
    accuracy: Interval
    balanced_accuracy: Interval
    accuracy_at_64_px: Interval | None
    labels: list[str]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Unseen:
    """Classes of the data that a model does not know.

    Attributes
    ----------
    model : str
        The model that does not know them.
    labels : list of str
    among_themselves, against_all : dict of str to Interval
        Coarse mAP, macro over these classes, of every model's plain ranking; the database is the
        other patients' images of these classes, or of all classes.
    gain_among_themselves, gain_against_all : dict of str to Interval
        This model minus every other one, paired.
    probability_known, probability_unseen : list of float
        Highest class probability of each query image.
    auroc : float or None
        How well a low probability tells an unknown class; ``None`` where all classes are unknown.
    """

    model: str
    labels: list[str]
    among_themselves: Metrics
    against_all: Metrics
    gain_among_themselves: Metrics
    gain_against_all: Metrics
    probability_known: list[float]
    probability_unseen: list[float]
    auroc: float | None


@dataclass(frozen=True)
class RadiusCurve:
    """What lies within a Hamming radius, macro over classes, for radius 0, 1 … bits.

    Attributes
    ----------
    name : str
    recall : list of float
        Share of the relevant images.
    share : list of float
        Share of the whole database that is looked at.
    """

    name: str
    recall: list[float]
    share: list[float]


@dataclass(frozen=True)
class DeletionCurve:
    """What is left when a growing share of the picture is deleted.

    Attributes
    ----------
    mask : str
        What is deleted first.
    average_precision, probability : list of float
        At each share of `Saliency.shares`; mAP of the query, and probability of its class where
        the model has classes.
    area : Interval
        Mean of `average_precision` over the shares: lower means that what went first mattered.
    saliency_minus_this : Interval or None
        Paired difference of areas; below 0 the saliency map is the better guide.
    """

    mask: str
    average_precision: list[float]
    probability: list[float]
    area: Interval
    saliency_minus_this: Interval | None


@dataclass(frozen=True)
class Saliency:
    """Deletion test of a model's saliency map."""

    model: str
    pictures: int
    shares: list[float]
    curves: list[DeletionCurve]


@dataclass(frozen=True)
class WindowRow:
    """Queries shown through another display window, against the pictures as they are."""

    model: str
    window: str
    cosine_mean: float
    cosine_first_percentile: float
    cosine_lowest: float
    coarse_map: float


@dataclass(frozen=True)
class FeedbackRound:
    """Plain and refined ranking of what is left after some answers were marked.

    Attributes
    ----------
    round : int
        0 before any mark.
    marked : int
        Answers that were marked so far, of each query.
    queries : int
        Those that still have something relevant to find.
    plain, refined, gain : Interval
        P@10 of findings, macro over classes, of both rankings, and their paired difference.
    """

    round: int
    marked: int
    queries: int
    plain: Interval
    refined: Interval
    gain: Interval


@dataclass(frozen=True)
class Feedback:
    """What marking answers brings to one system, round by round."""

    name: str
    rounds: list[FeedbackRound]


@dataclass(frozen=True)
class ModelEntry:
    """A model that took part."""

    name: str
    version: str
    sha256: str
    training_data: str
    role: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured.

    Attributes
    ----------
    data : dict
        What was measured on: source, split, images, patients, classes, what was left out.
    judged : list of str
        Classes whose findings are judged.
    reference : str
        System that differences are taken to.
    """

    program: str
    data: dict[str, Any]
    judged: list[str]
    reference: str
    models: list[ModelEntry]
    systems: list[SystemResult]
    classification: list[Classification]
    unseen: list[Unseen]
    radius: list[RadiusCurve]
    saliency: list[Saliency]
    windows: list[WindowRow]
    feedback: list[Feedback]

    def to_json(self) -> str:
        """Return the content of ``evaluation.json``; figures that do not exist are null."""
        tree = {"version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(_plain(tree), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Round to six places, and make what is no number null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
