"""What is measured of single models, as rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cbmir_node.evaluation.result import Evaluation, SystemResult, Table
from cbmir_node.evaluation.systems import PLAIN
from cbmir_node.evaluation.text import TextTable, number, with_interval


def model_tables(evaluation: Evaluation) -> Iterator[TextTable]:
    """Yield the tables of each model; those without rows too."""
    yield _classification_table(evaluation)
    yield from _unseen_tables(evaluation)
    yield from _saliency_tables(evaluation)
    yield _window_table(evaluation)
    yield from _class_tables(evaluation)


def _classification_table(evaluation: Evaluation) -> TextTable:
    return TextTable(
        "Classification",
        "Classification by the most probable class",
        ["model", "images", "accuracy", "mean over classes", "accuracy at 64 px"],
        [
            [
                found.model,
                str(found.images),
                with_interval(found.accuracy),
                with_interval(found.balanced_accuracy),
                with_interval(found.accuracy_at_64_px),
            ]
            for found in evaluation.classification
        ],
    )


def _unseen_tables(evaluation: Evaluation) -> Iterator[TextTable]:
    for unseen in evaluation.unseen:
        known, strange = unseen.probability_known, unseen.probability_unseen
        yield TextTable(
            "Unknown classes",
            f"Classes that {unseen.model} does not know: {', '.join(unseen.labels)}",
            [
                "model",
                "mAP among themselves",
                f"{unseen.model} is ahead by",
                "mAP against all classes",
                f"{unseen.model} is ahead by",
            ],
            [
                [
                    name,
                    with_interval(among),
                    with_interval(unseen.gain_among_themselves.get(name), sign=True),
                    with_interval(unseen.against_all.get(name)),
                    with_interval(unseen.gain_against_all.get(name), sign=True),
                ]
                for name, among in unseen.among_themselves.items()
            ],
            f"Highest class probability: mean {number(_mean(strange))} for them, "
            f"{number(_mean(known))} for known classes; area under the ROC curve "
            f"{number(unseen.auroc)}.",
        )


def _saliency_tables(evaluation: Evaluation) -> Iterator[TextTable]:
    for saliency in evaluation.saliency:
        yield TextTable(
            "Saliency",
            f"Deletion test of the saliency map of {saliency.model}, {saliency.pictures} pictures",
            [
                "deleted first",
                "area under the curve",
                "saliency minus this",
                *(f"{share:.0%}" for share in saliency.shares[1::2]),
            ],
            [
                [
                    curve.mask,
                    with_interval(curve.area),
                    with_interval(curve.saliency_minus_this, sign=True),
                    *(number(value) for value in curve.average_precision[1::2]),
                ]
                for curve in saliency.curves
            ],
            "Coarse mAP of the query when that share of its picture is deleted: lower means that "
            "what went first mattered. Below 0 the saliency map is the better guide.",
        )


def _window_table(evaluation: Evaluation) -> TextTable:
    return TextTable(
        "Windows",
        "Queries in another display window",
        ["model", "window", "cosine mean", "1st percentile", "lowest", "coarse mAP"],
        [
            [
                row.model,
                row.window,
                *(
                    number(value)
                    for value in (
                        row.cosine_mean,
                        row.cosine_first_percentile,
                        row.cosine_lowest,
                        row.coarse_map,
                    )
                ),
            ]
            for row in evaluation.windows
        ],
        "Cosine between the embeddings of one picture in both windows; shifts and factors are of "
        "the picture's own grey range.",
    )


def _class_tables(evaluation: Evaluation) -> Iterator[TextTable]:
    """Yield each model's classes, the worst first, beside the reference."""
    reference = next(s for s in evaluation.systems if s.name == evaluation.reference)
    own = [entry.name for entry in evaluation.models if entry.role == "model"]
    for system in evaluation.systems:
        if system.model in own and system.system == PLAIN:
            coarse = system.tables.get("U/coarse/image")
            if coarse is not None:
                yield _class_table(system, coarse, reference, evaluation.data["classes"])


def _class_table(
    system: SystemResult,
    coarse: Table,
    reference: SystemResult,
    sizes: Mapping[str, Mapping[str, int]],
) -> TextTable:
    finding = system.tables.get("U/finding/image")
    findings = {} if finding is None else finding.classes
    theirs = {
        task: found.classes if (found := reference.tables.get(f"U/{task}/image")) else {}
        for task in ("coarse", "finding")
    }
    names = sorted(
        coarse.classes,
        key=lambda name: (findings.get(name, {}).get("mAP", 1.0), coarse.classes[name]["mAP"]),
    )
    return TextTable(
        "Classes",
        f"Classes, worst findings first: {system.name}",
        [
            "class",
            "images",
            "patients",
            "coarse mAP",
            "coarse P@10",
            "reference: coarse mAP",
            "finding mAP",
            "finding vote@10",
            "reference: finding mAP",
        ],
        [
            [
                name,
                str(sizes[name]["images"]),
                str(sizes[name]["patients"]),
                number(coarse.classes[name]["mAP"]),
                number(coarse.classes[name]["P@10"]),
                number(theirs["coarse"].get(name, {}).get("mAP")),
                number(findings.get(name, {}).get("mAP")),
                number(findings.get(name, {}).get("vote@10")),
                number(theirs["finding"].get(name, {}).get("mAP")),
            ]
            for name in names
        ],
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
