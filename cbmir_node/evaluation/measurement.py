"""The whole evaluation: models and labelled images in, an `Evaluation` out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cbmir_node import __version__
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.evaluation.archive import ArchiveImages
from cbmir_node.evaluation.baselines import PIXELS
from cbmir_node.evaluation.classification import classification, unseen_classes
from cbmir_node.evaluation.comparison import (
    Contender,
    Row,
    Source,
    Stage,
    compare,
    contenders,
    find_contender,
    with_intervals,
)
from cbmir_node.evaluation.embedding import OutputCache, distinct_names
from cbmir_node.evaluation.feedback import simulate
from cbmir_node.evaluation.items import Items
from cbmir_node.evaluation.manifest import Manifest
from cbmir_node.evaluation.protocols import Protocol, judged_classes, protocols
from cbmir_node.evaluation.radius import radius_curves
from cbmir_node.evaluation.result import Evaluation, ModelEntry, Saliency, WindowRow
from cbmir_node.evaluation.robustness import window_rows
from cbmir_node.evaluation.saliency import PICTURES, deletion_test
from cbmir_node.evaluation.sheet import SheetRow, worst_queries
from cbmir_node.evaluation.sources import Embedder, fitting_rows, sources_of

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Choices:
    """What is measured.

    Attributes
    ----------
    split : {"train", "val", "test"}
        Whose images ask.
    ignored_findings : sequence of str
        Labels whose findings are not judged.
    reference : str or None
        What differences are taken to; ``None``: the first baseline model, else the pixels.
    trusted_probability : float
        ``search.trusted_probability``.
    saliency, windows : bool
        Run the deletion test; try other display windows.
    """

    split: str = "test"
    ignored_findings: Sequence[str] = ()
    reference: str | None = None
    trusted_probability: float = 0.99
    saliency: bool = True
    windows: bool = False


@dataclass(frozen=True)
class Measured:
    """An evaluation, and some queries to look at."""

    evaluation: Evaluation
    sheet: list[SheetRow]


def evaluate_manifest(
    manifest: Manifest,
    models: Sequence[EmbeddingModel],
    baselines: Sequence[EmbeddingModel],
    cache: OutputCache,
    choices: Choices,
    stage: Stage,
) -> Measured:
    """Measure models on labelled pictures.

    Parameters
    ----------
    models : sequence of EmbeddingModel
        At least one; measured with every system that their outputs allow.
    baselines : sequence of EmbeddingModel
        Measured with their plain ranking, and with a linear discriminant fitted on the splits that
        do not ask.
    stage : Stage
        Shows progress.

    Raises
    ------
    ConfigurationError, ModelError
        The message says what to change.
    """
    items = manifest.items
    asked = protocols(manifest.splits, choices.split)
    judged = judged_classes(items, asked[0].queries, choices.ignored_findings)
    embedder = Embedder(manifest, asked[0].queries, cache, stage)
    names = distinct_names([model.description for model in (*models, *baselines)])
    named = list(zip(names, (*models, *baselines), strict=True))
    ours, theirs = named[: len(models)], named[len(models) :]
    sources = sources_of(embedder, ours, theirs, fitting_rows(manifest, choices.split))
    everyone = contenders(sources, choices.trusted_probability, findings=bool(judged))
    default = theirs[0][0] if theirs else PIXELS
    reference = find_contender(everyone, choices.reference or default)
    rows = compare(everyone, items, asked, judged, stage)
    own = list(zip(models, sources[-len(models) :], strict=True))
    return _measured(
        rows=rows,
        sources=sources,
        items=items,
        asked=asked,
        judged=judged,
        reference=reference,
        data={
            "kind": "manifest",
            "split": choices.split,
            "ignored_findings": list(choices.ignored_findings),
            "digest": manifest.digest,
            **_numbers(items, asked),
        },
        models=[_entry(name, model, "model") for name, model in ours]
        + [_entry(name, model, "baseline") for name, model in theirs],
        saliency=_saliency(own, manifest, asked[0], stage) if choices.saliency else [],
        windows=_windows(own, embedder, items, asked[0]) if choices.windows else [],
    )


def evaluate_archive(
    images: ArchiveImages,
    model: InstalledModel,
    labels: Sequence[str],
    choices: Choices,
    stage: Stage,
) -> Measured:
    """Measure the model in use on a node's own images: every image asks all other patients'.

    Parameters
    ----------
    images : ArchiveImages
    model : InstalledModel
    labels : sequence of str
        Classes that the model can predict.

    Raises
    ------
    ConfigurationError
        No two patients have images of one class.
    """
    everything = np.arange(len(images.items))
    asked = [Protocol("U", everything, everything)]
    source = Source(model.name, images.outputs, labels=frozenset(labels))
    everyone = contenders([source], choices.trusted_probability, findings=False)
    reference = find_contender(everyone, choices.reference or source.name)
    rows = compare(everyone, images.items, asked, [], stage)
    return _measured(
        rows=rows,
        sources=[source],
        items=images.items,
        asked=asked,
        judged=[],
        reference=reference,
        data={
            "kind": "archive",
            "left_out": images.left_out,
            **_numbers(images.items, asked),
        },
        models=[ModelEntry(model.name, model.version, model.sha256, "", "model")],
        saliency=[],
        windows=[],
    )


def _measured(
    *,
    rows: Sequence[Row],
    sources: Sequence[Source],
    items: Items,
    asked: Sequence[Protocol],
    judged: list[str],
    reference: Contender,
    data: dict[str, Any],
    models: list[ModelEntry],
    saliency: list[Saliency],
    windows: list[WindowRow],
) -> Measured:
    """Average, compare and put together what all kinds of data have in common."""
    queries = asked[0].queries
    own = [source for source in sources if not source.baseline]
    evaluation = Evaluation(
        program=f"cbmir-node {__version__}",
        data=data,
        judged=judged,
        reference=reference.name,
        models=models,
        systems=with_intervals(rows, reference),
        classification=_present(classification(source, items, queries) for source in sources),
        unseen=_present(unseen_classes(source, sources, items, queries) for source in own),
        radius=[c for source in own for c in radius_curves(source, asked[0], items)],
        saliency=saliency,
        windows=windows,
        feedback=[f for source in sources for f in simulate(source, asked[0], items, judged)],
    )
    return Measured(evaluation, _sheet(rows, own[0], asked[0], items))


def _present(found: Iterable[_Found | None]) -> list[_Found]:
    return [one for one in found if one is not None]


def _numbers(items: Items, asked: Sequence[Protocol]) -> dict[str, Any]:
    queries = items.take(asked[0].queries)
    return {
        "queries": len(queries),
        "patients": len(np.unique(queries.patients)),
        "studies": len(np.unique(queries.studies)),
        "classes": {
            str(name): {
                "images": int((queries.labels == name).sum()),
                "patients": len(np.unique(queries.patients[queries.labels == name])),
            }
            for name in np.unique(queries.labels)
        },
        "database": {protocol.name: len(protocol.database) for protocol in asked},
    }


def _entry(name: str, model: EmbeddingModel, role: str) -> ModelEntry:
    description = model.description
    return ModelEntry(
        name, description.version, description.sha256, description.training_data, role
    )


def _saliency(
    models: Sequence[tuple[EmbeddingModel, Source]],
    manifest: Manifest,
    protocol: Protocol,
    stage: Stage,
) -> list[Saliency]:
    found = []
    for model, source in models:
        if model.description.has_saliency:
            with stage(f"{source.name} saliency", min(PICTURES, len(protocol.queries))) as step:
                found.append(
                    deletion_test(
                        model,
                        source.name,
                        manifest.files,
                        manifest.items,
                        protocol,
                        source.outputs,
                        step,
                    )
                )
    return _present(found)


def _windows(
    models: Sequence[tuple[EmbeddingModel, Source]],
    embedder: Embedder,
    items: Items,
    protocol: Protocol,
) -> list[WindowRow]:
    return [
        row
        for model, source in models
        for row in window_rows(source, embedder.windows(model, source.name), items, protocol)
    ]


def _sheet(rows: Sequence[Row], source: Source, protocol: Protocol, items: Items) -> list[SheetRow]:
    """Return the worst queries of the first model, coarse ones first."""
    scores = next(row for row in rows if row.contender.source is source).scores
    return [
        row
        for task in ("coarse", "finding")
        if (protocol.name, (task, "image")) in scores
        for row in worst_queries(
            scores[protocol.name, (task, "image")], task, source, protocol, items
        )
    ]
