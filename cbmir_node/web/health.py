"""What the HTTP port shows of the node's health, for people, orchestrators and Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cbmir_node.web.report import NodeReport

# or there were a second series beside each, of when it was first counted
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it without types

Values = tuple[str, Mapping[str, float]]
"""A metric's meaning, and label value → value; one nameless label value is ''."""


class NodeHealth(Protocol):
    """What the node tells of itself.

    Attributes
    ----------
    registry : CollectorRegistry
        Of metrics that are counted where they happen.
    """

    registry: CollectorRegistry

    def problems(self) -> list[str]:
        """Return why the node cannot do its work right now; empty when it can."""

    def gauges(self) -> Mapping[str, Values]:
        """Return present values by the name of their metric."""

    def counters(self) -> Mapping[str, Values]:
        """Return the same for counts that only grow."""

    def report(self) -> NodeReport:
        """Return what an administrator sees."""


class _NodeCollector(Collector):
    """Reads the node when Prometheus asks, so that nothing is counted twice."""

    def __init__(self, health: NodeHealth) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        yield from self._health.registry.collect()
        for name, (meaning, values) in self._health.gauges().items():
            yield _filled(GaugeMetricFamily(name, meaning, labels=_labels(values)), values)
        for name, (meaning, values) in self._health.counters().items():
            yield _filled(CounterMetricFamily(name, meaning, labels=_labels(values)), values)


def _labels(values: Mapping[str, float]) -> list[str]:
    return [] if set(values) == {""} else ["kind"]


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]) -> Metric:
    for label, value in values.items():
        family.add_metric([label] if label else [], value)
    return family


def metrics_text(health: NodeHealth) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(health))
    return generate_latest(registry)
