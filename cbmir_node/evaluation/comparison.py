"""Every system of every model over the same queries, with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.bootstrap import PatientBootstrap, intervals
from cbmir_node.evaluation.changes import LOW_RESOLUTION
from cbmir_node.evaluation.items import Float64Array, Items, Outputs
from cbmir_node.evaluation.protocols import Protocol, TaskLevel, rank_and_score
from cbmir_node.evaluation.result import Metrics, SystemResult, Table
from cbmir_node.evaluation.scores import METRICS, QueryScores, class_means
from cbmir_node.evaluation.systems import PLAIN, System, by_space, systems_of

Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Label and number of steps → a context that is given the steps done."""


@dataclass(frozen=True)
class Source:
    """A model with what it makes of the images, or a baseline.

    Attributes
    ----------
    name : str
    outputs : Outputs
        Of all items.
    changed : mapping of str to Outputs
        Of the queries alone, by change of their pictures.
    labels : frozenset of str
        Classes that it can predict.
    baseline : bool
        Only its plain ranking is of interest.
    """

    name: str
    outputs: Outputs
    changed: Mapping[str, Outputs] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    baseline: bool = False


@dataclass(frozen=True)
class Contender:
    """One system of one source: a row of the table."""

    source: Source
    system: System

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.source.name}: {self.system.name}"


@dataclass(frozen=True)
class Row:
    """A contender's tables before averages are taken, by protocol, task and level."""

    contender: Contender
    scores: Mapping[tuple[str, TaskLevel], QueryScores]


def contenders(
    sources: Sequence[Source], trusted_probability: float, *, findings: bool
) -> list[Contender]:
    """Return every system of every source; of a baseline only the plain ranking."""
    return [
        Contender(source, system)
        for source in sources
        for system in _systems(source, trusted_probability, findings=findings)
    ]


def _systems(source: Source, trusted_probability: float, *, findings: bool) -> list[System]:
    everything = systems_of(source.outputs, trusted_probability, findings=findings)
    systems = everything[:1] if source.baseline else everything
    if LOW_RESOLUTION in source.changed:
        name = f"{PLAIN}, queries {LOW_RESOLUTION}"
        systems = [*systems, System(name, by_space("cosine"), changed=LOW_RESOLUTION)]
    return systems


def find_contender(everyone: Sequence[Contender], wanted: str) -> Contender:
    """Return the contender that differences are taken to: a row, or a model's plain ranking.

    Raises
    ------
    ConfigurationError
        None has the name `wanted`.
    """
    for one in everyone:
        if wanted in (one.name, one.source.name):
            return one
    names = "\n  ".join(one.name for one in everyone)
    raise ConfigurationError(f"--reference: there is no system {wanted!r}; choose from\n  {names}")


def compare(
    everyone: Sequence[Contender],
    items: Items,
    protocols: Sequence[Protocol],
    judged: Sequence[str],
    stage: Stage,
) -> list[Row]:
    """Rank and score with every contender.

    Raises
    ------
    ConfigurationError
        No query has anything to find.
    """
    rows = []
    with stage("Ranking", len(everyone) * len(protocols)) as step:
        for contender in everyone:
            source, system = contender.source, contender.system
            scores: dict[tuple[str, TaskLevel], QueryScores] = {}
            for protocol in protocols:
                queries = (
                    source.changed[system.changed]
                    if system.changed
                    else source.outputs.take(protocol.queries)
                )
                outputs = (queries, source.outputs.take(protocol.database))
                tables = rank_and_score(
                    system.rank, protocol, items, outputs, judged, same_tags=system.same_tags
                )
                scores |= {(protocol.name, key): table for key, table in tables.items()}
                step(1)
            rows.append(Row(contender, scores))
    if not any(table.answerable.any() for table in rows[0].scores.values()):
        raise ConfigurationError(
            "no query has anything to find: each needs an image of its class from another "
            "patient; check the columns label and patient_id, or send more patients"
        )
    return rows


def with_intervals(rows: Sequence[Row], reference: Contender) -> list[SystemResult]:
    """Average the tables and compare each system with the reference and with its plain ranking."""
    everyone = [row.contender for row in rows]
    plain = {one.source.name: one.name for one in everyone if one.system.name == PLAIN}
    tables: list[dict[str, Table]] = [{} for _ in rows]
    for key in rows[0].scores:
        scores = [row.scores[key] for row in rows]
        answerable = scores[0].answerable
        if not answerable.any():
            continue
        resample = PatientBootstrap(scores[0].classes[answerable], scores[0].patients[answerable])
        means = {
            one.name: resample.macro(table.values[answerable])
            for one, table in zip(everyone, scores, strict=True)
        }
        protocol, (task, level) = key
        for one, table, found in zip(everyone, scores, tables, strict=True):
            found[f"{protocol}/{task}/{level}"] = _table(
                table,
                means[one.name],
                None if one.name == reference.name else means[reference.name],
                None if one.system.name == PLAIN else means[plain[one.source.name]],
            )
    return [
        SystemResult(one.name, one.source.name, one.system.name, found)
        for one, found in zip(everyone, tables, strict=True)
    ]


def _table(
    scores: QueryScores,
    means: Float64Array,
    reference: Float64Array | None,
    plain: Float64Array | None,
) -> Table:
    answerable = scores.answerable
    classes = scores.classes[answerable]
    curves = (
        []
        if scores.precision is None
        else list(class_means(classes, scores.precision[answerable]).values())
    )
    return Table(
        queries=int(answerable.sum()),
        unanswerable=int((~answerable).sum()),
        metrics=_named(means),
        classes={
            name: dict(zip(METRICS, row.tolist(), strict=True))
            for name, row in class_means(classes, scores.values[answerable]).items()
        },
        precision=np.mean(curves, axis=0).tolist() if curves else [],
        difference_to_reference={} if reference is None else _named(means - reference),
        difference_to_plain={} if plain is None else _named(means - plain),
    )


def _named(samples: Float64Array) -> Metrics:
    return dict(zip(METRICS, intervals(samples), strict=True))
