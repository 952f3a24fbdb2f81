"""The most probable class: accuracy, confusion, and classes that a model never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbmir_node.evaluation.bootstrap import PatientBootstrap, intervals
from cbmir_node.evaluation.changes import LOW_RESOLUTION
from cbmir_node.evaluation.comparison import Source
from cbmir_node.evaluation.items import Float64Array, IntArray, Items, Outputs, StrArray
from cbmir_node.evaluation.protocols import Protocol, rank_and_score
from cbmir_node.evaluation.result import Classification, Metrics, Unseen
from cbmir_node.evaluation.systems import by_space


def classification(source: Source, items: Items, queries: IntArray) -> Classification | None:
    """Measure a source's classes on the queries whose class it knows; ``None`` without any."""
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415  (optional package)

    predicted = source.outputs.predicted
    known = queries[np.isin(items.labels[queries], list(source.labels))]
    if predicted is None or not len(known):
        return None
    asking = items.take(known)
    resample = PatientBootstrap(asking.labels, asking.patients)
    right = (predicted[known] == asking.labels).astype(np.float64)[:, None]
    low = _right_at_low_resolution(source, items, queries)
    labels = sorted({*asking.labels.tolist(), *predicted[known].tolist()})
    return Classification(
        model=source.name,
        images=len(known),
        accuracy=intervals(resample.pooled(right))[0],
        balanced_accuracy=intervals(resample.macro(right))[0],
        accuracy_at_64_px=None if low is None else intervals(resample.pooled(low))[0],
        labels=labels,
        confusion=confusion_matrix(asking.labels, predicted[known], labels=labels).tolist(),
    )


def _right_at_low_resolution(
    source: Source, items: Items, queries: IntArray
) -> Float64Array | None:
    changed = source.changed.get(LOW_RESOLUTION)
    if changed is None or changed.predicted is None:
        return None
    labels = items.labels[queries]
    known = np.isin(labels, list(source.labels))
    return np.asarray((changed.predicted == labels)[known, None], dtype=np.float64)


def unseen_classes(
    source: Source, sources: Sequence[Source], items: Items, queries: IntArray
) -> Unseen | None:
    """Measure classes that a source with classes does not know; ``None`` where there are none."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  (optional package)

    probability = source.outputs.probability
    if probability is None:
        return None
    strange = ~np.isin(items.labels[queries], list(source.labels))
    if not strange.any():
        return None
    probabilities = probability[queries].astype(np.float64)
    themselves = Protocol("U", queries[strange], queries[strange])
    everything = Protocol("U", queries[strange], queries)
    among, gain_among = _maps(source, sources, items, themselves)
    against, gain_against = _maps(source, sources, items, everything)
    return Unseen(
        model=source.name,
        labels=_names(items.labels[queries[strange]]),
        among_themselves=among,
        against_all=against,
        gain_among_themselves=gain_among,
        gain_against_all=gain_against,
        probability_known=probabilities[~strange].tolist(),
        probability_unseen=probabilities[strange].tolist(),
        auroc=None if strange.all() else float(roc_auc_score(~strange, probabilities)),
    )


def _names(labels: StrArray) -> list[str]:
    return [str(label) for label in np.unique(labels)]


def _maps(
    source: Source, sources: Sequence[Source], items: Items, protocol: Protocol
) -> tuple[Metrics, Metrics]:
    """Return each source's coarse mAP, and how far `source` is ahead of each other one."""
    samples = {}
    for other in sources:
        outputs: tuple[Outputs, Outputs] = (
            other.outputs.take(protocol.queries),
            other.outputs.take(protocol.database),
        )
        tables = rank_and_score(by_space("cosine"), protocol, items, outputs, [])
        table = tables["coarse", "image"]
        answerable = table.answerable
        if not answerable.any():
            return {}, {}
        resample = PatientBootstrap(table.classes[answerable], table.patients[answerable])
        samples[other.name] = resample.macro(table.values[answerable, :1])
    mine = samples[source.name]
    return (
        {name: intervals(sample)[0] for name, sample in samples.items()},
        {n: intervals(mine - sample)[0] for n, sample in samples.items() if n != source.name},
    )
