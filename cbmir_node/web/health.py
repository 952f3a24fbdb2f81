"""What the HTTP port shows of the node's health, for people, orchestrators and Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class NodeHealth(Protocol):
    """What the node tells of itself."""

    def problems(self) -> list[str]:
        """Return why the node cannot do its work right now; empty when it can."""

    def gauges(self) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """Return metric name → (meaning, label value → value); one nameless label value is ''."""

    def counters(self) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """Return the same for counts that only grow."""


class _NodeCollector(Collector):
    """Reads the node when Prometheus asks, so that nothing is counted twice."""

    def __init__(self, health: NodeHealth) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
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
