"""Who asks whom, and what counts as found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.items import (
    UNKNOWN,
    BoolArray,
    CodedItems,
    Float32Array,
    Float64Array,
    IntArray,
    Items,
    Outputs,
    StrArray,
)
from cbmir_node.evaluation.scores import QueryScores, score
from cbmir_node.evaluation.studies import group_studies, study_similarity
from cbmir_node.evaluation.systems import Ranker

Task = Literal["coarse", "finding", "open finding"]
TaskLevel = tuple[Task, Literal["image", "study"]]

_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Protocol:
    """Queries and the database they ask; never images of the query's own patient.

    Attributes
    ----------
    name : {"U", "P"}
        U, unseen database: the split asks its own other patients. P, as in the papers: the split
        asks what a model was trained on.
    queries, database : int [Q], [N]
        Positions among the items.
    """

    name: Literal["U", "P"]
    queries: IntArray
    database: IntArray


def protocols(splits: StrArray, split: str) -> list[Protocol]:
    """Return protocol U, and P where there are images of earlier splits.

    Raises
    ------
    ConfigurationError
        No image is of the split.
    """
    asking = np.flatnonzero(splits == split)
    if not len(asking):
        present = ", ".join(np.unique(splits))
        raise ConfigurationError(f"no image is of split {split}; the manifest has {present}")
    earlier = ("train", "val") if split == "test" else ("train",)
    seen = np.flatnonzero(np.isin(splits, earlier))
    found = [Protocol("U", asking, asking)]
    return [*found, Protocol("P", asking, seen)] if len(seen) else found


def judged_classes(items: Items, queries: IntArray, ignored: Sequence[str]) -> list[str]:
    """Return the classes whose findings are judged: queries of two findings or more.

    Raises
    ------
    ConfigurationError
        A label to ignore is none of the items'.
    """
    unknown = sorted(set(ignored) - set(items.labels.tolist()))
    if unknown:
        raise ConfigurationError(
            f"--ignore-findings: no image has the label(s) {', '.join(unknown)}"
        )
    asking = items.take(queries)
    return [
        str(label)
        for label in np.unique(asking.labels)
        if label not in ignored
        and len(set(asking.findings[asking.labels == label].tolist()) - {""}) > 1
    ]


def rank_and_score(
    rank: Ranker,
    protocol: Protocol,
    items: Items,
    outputs: tuple[Outputs, Outputs],
    judged: Sequence[str],
    *,
    same_tags: bool = False,
) -> dict[TaskLevel, QueryScores]:
    """Score one system under one protocol.

    Parameters
    ----------
    rank : Ranker
    protocol : Protocol
    items : Items
        Of everything.
    outputs : (Outputs, Outputs)
        Of the protocol's queries and of its database, in their order.
    judged : sequence of str
        Classes whose findings are judged.
    same_tags : bool
        Let only candidates of the query's class be found where findings are judged.

    Returns
    -------
    dict
        Tables by task and level.
    """
    parts: dict[TaskLevel, list[_Scores]] = {}
    coded = items.coded
    labels = [int(coded.label[np.argmax(items.labels == name)]) for name in judged]
    database = coded.take(protocol.database)
    candidates = group_studies(database)
    for rows in _whole_studies(coded.study[protocol.queries], len(database)):
        positions = protocol.queries[rows]
        asking = coded.take(positions)
        eligible = asking.patient[:, None] != database.patient
        similarity = rank(outputs[0].take(rows), outputs[1], eligible)
        images = _Ranked("image", positions, asking, database, similarity, eligible)
        asked = group_studies(asking)
        studies = _Ranked(
            "study",
            positions[asked.first],
            asked.items,
            candidates.items,
            study_similarity(similarity, eligible, asked, candidates),
            asked.items.patient[:, None] != candidates.items.patient,
        )
        unseen = protocol.name == "U"
        for ranked in (images, studies):
            for task, scores in _scores(ranked, labels, detailed=unseen, same_tags=same_tags):
                parts.setdefault((task, ranked.level), []).append(scores)
    return {key: _joined(scores, items) for key, scores in parts.items()}


@dataclass(frozen=True)
class _Ranked:
    """Some queries, what they may find, and how alike it is."""

    level: Literal["image", "study"]
    positions: IntArray
    queries: CodedItems
    database: CodedItems
    similarity: Float32Array
    eligible: BoolArray


@dataclass(frozen=True)
class _Scores:
    """Rows of metrics of the queries at some positions among the items."""

    positions: IntArray
    values: Float64Array
    precision: Float64Array | None


def _whole_studies(studies: IntArray, width: int) -> Iterator[IntArray]:
    """Cut the queries so that similarities fit into memory and a study's images stay together."""
    order = np.argsort(studies, kind="stable")
    step = max(1, _CELLS_AT_ONCE // max(1, width))
    names = studies[order]
    begins = np.flatnonzero(np.diff(names, prepend=-1))
    start = 0
    while start < len(order):
        later = begins[begins >= start + step]
        end = int(later[0]) if len(later) else len(order)
        yield order[start:end]
        start = end


def _scores(
    ranked: _Ranked, judged: Sequence[int], *, detailed: bool, same_tags: bool
) -> Iterator[tuple[Task, _Scores]]:
    """Score every task; `detailed`: with curves, and findings among all classes too."""
    queries, database = ranked.queries, ranked.database
    detailed = detailed and ranked.level == "image"
    everything = np.arange(len(queries))
    yield (
        "coarse",
        _score(ranked, everything, (queries.label, database.label), None, curves=detailed),
    )
    known = database.finding != UNKNOWN
    for label in judged:
        own = database.label == label
        rows = np.flatnonzero((queries.label == label) & (queries.finding != UNKNOWN))
        names = (queries.finding, database.finding)
        if len(rows):
            yield "finding", _score(ranked, rows, names, own & known, curves=detailed)
            if detailed:
                # without tags every other class is in the way; of one's own, what is known counts
                found = own & known if same_tags else known | ~own
                yield "open finding", _score(ranked, rows, names, found, curves=False)


def _score(
    ranked: _Ranked,
    rows: IntArray,
    names: tuple[IntArray, IntArray],
    columns: BoolArray | None,
    *,
    curves: bool,
) -> _Scores:
    """Score the queries at `rows`, which may find the database's `columns`."""
    similarity, eligible = ranked.similarity[rows], ranked.eligible[rows]
    candidates = names[1]
    if columns is not None:
        similarity, eligible = similarity[:, columns], eligible[:, columns]
        candidates = candidates[columns]
    values, precision = score(similarity, eligible, names[0][rows], candidates, curves=curves)
    return _Scores(ranked.positions[rows], values, precision)


def _joined(parts: Sequence[_Scores], items: Items) -> QueryScores:
    """Put rows of metrics one below the other, ordered by query."""
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions, kind="stable")
    precision = [part.precision for part in parts if part.precision is not None]
    queries = positions[order]
    return QueryScores(
        queries,
        items.labels[queries],
        items.patients[queries],
        np.concatenate([part.values for part in parts])[order],
        np.concatenate(precision)[order] if precision else None,
    )
