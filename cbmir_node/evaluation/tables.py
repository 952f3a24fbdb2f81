"""The comparison of systems as rows of text: what is printed, and the tables of the report."""

from __future__ import annotations

from collections.abc import Iterable

from cbmir_node.evaluation.bootstrap import Interval
from cbmir_node.evaluation.model_tables import model_tables
from cbmir_node.evaluation.result import Evaluation, SystemResult
from cbmir_node.evaluation.scores import CUTOFFS
from cbmir_node.evaluation.systems import PLAIN
from cbmir_node.evaluation.text import NOTHING, Rows, TextTable, number, with_interval


def summary(evaluation: Evaluation) -> tuple[list[str], Rows]:
    """Return head and rows of the table that is printed."""
    columns = [
        ("coarse mAP", "U/coarse/image", "mAP"),
        ("finding mAP", "U/finding/image", "mAP"),
        ("vote@10", "U/finding/image", "vote@10"),
        ("study mAP", "U/coarse/study", "mAP"),
        ("P: coarse", "P/coarse/image", "mAP"),
        ("P: finding", "P/finding/image", "mAP"),
    ]
    columns = [column for column in columns if _anywhere(evaluation, column[1])]
    accuracy = {found.model: number(found.accuracy.value) for found in evaluation.classification}
    rows = [
        [
            system.name,
            *(
                with_interval(_metric(system, key, metric))
                if metric == "mAP" and key.startswith("U") and key.endswith("image")
                else _value(_metric(system, key, metric))
                for _, key, metric in columns
            ),
            *([accuracy.get(system.model, "") if system.system == PLAIN else ""] * bool(accuracy)),
        ]
        for system in evaluation.systems
    ]
    return ["system", *(name for name, _, _ in columns), *["accuracy"] * bool(accuracy)], rows


def text_tables(evaluation: Evaluation) -> list[TextTable]:
    """Return every table of the report, the most asked for first."""
    tables = [
        _main_table(evaluation),
        _difference_table(evaluation),
        *_cutoff_tables(evaluation),
        _study_table(evaluation),
        _earlier_table(evaluation),
        _feedback_table(evaluation),
        *model_tables(evaluation),
    ]
    return [table for table in tables if table is not None and table.rows]


def left_out_text(evaluation: Evaluation) -> str:
    """Return what was not measured, in one sentence; empty where everything was."""
    parts = [f"{count} {reason}" for reason, count in evaluation.data.get("left_out", {}).items()]
    coarse = next((s.tables["U/coarse/image"] for s in evaluation.systems if s.tables), None)
    if coarse is not None and coarse.unanswerable:
        parts.append(f"{coarse.unanswerable} queries without any image of their class elsewhere")
    return f"Left out: {', '.join(parts)}." if parts else ""


def _main_table(evaluation: Evaluation) -> TextTable:
    coarse = [("mAP", True), ("P@10", False), ("mAP@20", False), ("MRR", False)]
    columns = [("coarse", "U/coarse/image", metric, wide) for metric, wide in coarse]
    if _anywhere(evaluation, "U/finding/image"):
        columns += [
            ("finding", "U/finding/image", "mAP", True),
            ("finding", "U/finding/image", "vote@10", True),
            ("finding among all classes", "U/open finding/image", "mAP", False),
        ]
    return TextTable(
        "Images",
        "Images, protocol U: each test image asks all other test patients' images",
        ["system", *(f"{task} {metric}" for task, _, metric, _ in columns)],
        [
            [
                system.name,
                *(
                    (with_interval if wide else _value)(_metric(system, key, metric))
                    for _, key, metric, wide in columns
                ),
            ]
            for system in evaluation.systems
        ],
        "In brackets 95 % intervals over patients. On labelled pictures Modality and "
        "BodyPartExamined are the class: for coarse figures those tags are blank, and the filter "
        "passes all.",
    )


def _difference_table(evaluation: Evaluation) -> TextTable:
    rows = []
    for system in evaluation.systems:
        cells = [system.name]
        for key in ("U/coarse/image", "U/finding/image"):
            table = system.tables.get(key)
            for difference in ("difference_to_reference", "difference_to_plain"):
                figures = {} if table is None else getattr(table, difference)
                cells.append(with_interval(figures.get("mAP"), sign=True))
        if set(cells[1:]) != {NOTHING}:
            rows.append(cells)
    return TextTable(
        "Differences",
        f"Paired differences of mAP, protocol U; the reference is {evaluation.reference}",
        [
            "system",
            "coarse, against the reference",
            "coarse, against the model's cosine",
            "finding, against the reference",
            "finding, against the model's cosine",
        ],
        rows,
        "Both systems see the same resampled patients: 0 outside the interval is a difference.",
    )


def _cutoff_tables(evaluation: Evaluation) -> Iterable[TextTable]:
    names = [f"{name}@{k}" for name in ("P", "hit", "recall", "F1") for k in CUTOFFS]
    for task in ("coarse", "finding"):
        key = f"U/{task}/image"
        rows = [
            [system.name, *(_value(_metric(system, key, name)) for name in names)]
            for system in evaluation.systems
            if key in system.tables
        ]
        yield TextTable(
            f"First k, {task}", f"First k answers, {task}, protocol U", ["system", *names], rows
        )


def _study_table(evaluation: Evaluation) -> TextTable:
    columns = [
        (f"{protocol}: {task} {metric}", f"{protocol}/{task}/study", metric)
        for protocol in ("U", "P")
        for task, metric in (
            ("coarse", "mAP"),
            ("coarse", "P@5"),
            ("finding", "mAP"),
            ("finding", "vote@10"),
        )
        if _anywhere(evaluation, f"{protocol}/{task}/study")
    ]
    return TextTable(
        "Studies",
        "Studies",
        ["system", *(name for name, _, _ in columns)],
        [
            [
                system.name,
                *(with_interval(_metric(system, key, metric)) for _, key, metric in columns),
            ]
            for system in evaluation.systems
        ],
        "Study against study, as a query ranks them. A study whose images have several findings "
        "has none here.",
    )


def _earlier_table(evaluation: Evaluation) -> TextTable | None:
    if not _anywhere(evaluation, "P/coarse/image"):
        return None
    columns = [("coarse", "mAP"), ("coarse", "P@10"), ("finding", "mAP"), ("finding", "vote@10")]
    columns = [c for c in columns if _anywhere(evaluation, f"P/{c[0]}/image")]
    return TextTable(
        "Protocol P",
        "Images, protocol P: test images ask what was trained on",
        ["system", *(f"{task} {metric}" for task, metric in columns)],
        [
            [
                system.name,
                *(with_interval(_metric(system, f"P/{t}/image", metric)) for t, metric in columns),
            ]
            for system in evaluation.systems
        ],
        "A network that has learned its training labels by heart looks better here than it is.",
    )


def _feedback_table(evaluation: Evaluation) -> TextTable:
    return TextTable(
        "Feedback",
        "Marked answers: finding P@10 of what is left, protocol U",
        ["system", "answers marked", "queries", "plain", "with the marks", "gain"],
        [
            [
                feedback.name,
                str(found.marked),
                str(found.queries),
                with_interval(found.plain),
                *(
                    [with_interval(found.refined), with_interval(found.gain, sign=True)]
                    if found.round
                    else [NOTHING, NOTHING]
                ),
            ]
            for feedback in evaluation.feedback
            for found in feedback.rounds
        ],
        "A simulated user marks the first 10 answers by their finding and asks again, twice. "
        "Marked images and their patients are in neither ranking.",
    )


def _anywhere(evaluation: Evaluation, key: str) -> bool:
    return any(key in system.tables for system in evaluation.systems)


def _metric(system: SystemResult, key: str, metric: str) -> Interval | None:
    table = system.tables.get(key)
    return None if table is None else table.metrics[metric]


def _value(figure: Interval | None) -> str:
    return NOTHING if figure is None else number(figure.value)
