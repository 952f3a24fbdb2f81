"""Plots of the report, as SVG in data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cbmir_node.evaluation.result import (
    Classification,
    Evaluation,
    RadiusCurve,
    Saliency,
    SystemResult,
    Unseen,
)
from cbmir_node.evaluation.scores import RECALL_LEVELS
from cbmir_node.evaluation.systems import PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE_STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Plot:
    """A picture for the report.

    Attributes
    ----------
    title, note : str
    uri : str
        ``data:`` URI.
    """

    title: str
    uri: str
    note: str = ""


def plots(evaluation: Evaluation) -> Iterator[Plot]:
    """Draw everything that there are figures for."""
    for task, note in (
        ("coarse", ""),
        ("finding", "Within the class; mean over the classes whose findings are judged."),
    ):
        systems = [s for s in _drawn(evaluation) if f"U/{task}/image" in s.tables]
        if systems:
            yield Plot(
                f"Precision and recall, {task}, protocol U", _precision_recall(systems, task), note
            )
    for found in evaluation.classification:
        if found.model in {entry.name for entry in evaluation.models}:
            yield Plot(f"Confusion matrix: {found.model}", _confusion(found), _errors(found))
    if evaluation.radius:
        yield Plot(
            "What lies within a Hamming radius",
            _radius(evaluation.radius),
            "Share of the relevant images found (thick), and of the whole database (thin).",
        )
    for unseen in evaluation.unseen:
        if unseen.probability_known:
            yield Plot(f"Class probability: {unseen.model}", _probabilities(unseen))
    for saliency in evaluation.saliency:
        yield Plot(f"Deletion test: {saliency.model}", _deletion(saliency))


def _drawn(evaluation: Evaluation) -> list[SystemResult]:
    """Return the plain ranking of everything, and all systems where there is one model only."""
    models = [entry.name for entry in evaluation.models if entry.role == "model"]
    return [
        system
        for system in evaluation.systems
        if system.system == PLAIN
        or (len(models) == 1 and system.model in models and "tags" not in system.system)
    ]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # not pyplot, which keeps global state and looks for a display
    from matplotlib.figure import Figure  # noqa: PLC0415  (optional package)

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _uri(figure: Figure) -> str:
    import matplotlib as mpl  # noqa: PLC0415  (optional package)

    content = io.BytesIO()
    # fixed identifiers and no date: the same figures make the same file
    with mpl.rc_context({"svg.hashsalt": "cbmir", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=7, frameon=False)
    axes.grid(alpha=0.3)


def _precision_recall(systems: Sequence[SystemResult], task: str) -> str:
    figure, axes = _figure(6, 4 + 0.17 * len(systems))
    for position, system in enumerate(systems):
        table = system.tables[f"U/{task}/image"]
        axes.plot(
            RECALL_LEVELS,
            table.precision,
            _LINE_STYLES[position // 10 % len(_LINE_STYLES)],
            label=f"{system.name} ({table.metrics['mAP'].value:.3f})",
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    _legend(axes)
    return _uri(figure)


def _confusion(found: Classification) -> str:
    counts = np.array(found.confusion, dtype=np.float64)
    side = 2.2 + 0.24 * len(found.labels)
    figure, axes = _figure(side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(found.labels))
    axes.set_xticks(places, found.labels, rotation=90, fontsize=6)
    axes.set_yticks(places, found.labels, fontsize=6)
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column,
            row,
            f"{counts[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=5.5,
            color="white" if shares[row, column] > 0.5 else "#b00020",
        )
    axes.set(xlabel="taken for", ylabel="is")
    return _uri(figure)


def _errors(found: Classification) -> str:
    counts = np.array(found.confusion)
    wrong = [
        f"{found.labels[row]} taken for {found.labels[column]} ({counts[row, column]})"
        for row, column in sorted(np.argwhere(counts > 0), key=lambda at: -counts[tuple(at)])
        if row != column
    ]
    return f"Errors: {', '.join(wrong[:8])}." if wrong else "No errors."


def _radius(curves: Sequence[RadiusCurve]) -> str:
    figure, axes = _figure(6, 4 + 0.17 * len(curves))
    for position, curve in enumerate(curves):
        colour = f"C{position % 10}"
        radius = np.arange(len(curve.recall))
        axes.plot(radius, curve.recall, color=colour, linewidth=2, label=curve.name)
        axes.plot(radius, curve.share, color=colour, linewidth=0.8)
    axes.set(xlabel="Hamming radius, bits", ylabel="share", ylim=(0, 1.01))
    axes.set_xlim(0, max(len(curve.recall) for curve in curves) - 1)
    _legend(axes)
    return _uri(figure)


def _probabilities(unseen: Unseen) -> str:
    figure, axes = _figure(6, 3.6)
    bins = np.linspace(0, 1, 26).tolist()
    for name, values in (
        ("known classes", unseen.probability_known),
        ("unknown classes", unseen.probability_unseen),
    ):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=bins, weights=weights, alpha=0.6, label=name)
    axes.set(xlabel="highest class probability", ylabel="share of images", xlim=(0, 1))
    _legend(axes)
    return _uri(figure)


def _deletion(saliency: Saliency) -> str:
    figure, axes = _figure(6, 4)
    for position, curve in enumerate(saliency.curves):
        colour = f"C{position}"
        axes.plot(saliency.shares, curve.average_precision, color=colour, label=curve.mask)
        if curve.probability:
            axes.plot(saliency.shares, curve.probability, ":", color=colour)
    axes.set(xlabel="share of the picture deleted", ylim=(0, 1.01))
    axes.set_ylabel("coarse mAP; dotted: class probability")
    _legend(axes)
    return _uri(figure)
