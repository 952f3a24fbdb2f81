"""Health for orchestrators, and metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cbmir_node.web.access.callers import caller_of
from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.node_health import NodeHealth

# or there were a second series beside each, of when it was first counted
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it without types


def router(health: NodeHealth) -> APIRouter:
    """Build the routes that orchestrators and Prometheus ask."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> JSONResponse:  # without a thread: it answers when all are taken
        """Tell that the process runs and answers."""
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/readyz",
        responses={503: {"description": "It cannot, and why", "content": {"application/json": {}}}},
    )
    def readyz(request: Request) -> JSONResponse:
        """Tell whether the node can receive, embed and answer; the reasons if not, to readers."""
        problems = health.problems()
        told: dict[str, Any] = {"status": "not ready" if problems else "ready"}
        caller = caller_of(request)
        if caller is not None and "read" in caller.rights:
            told["problems"] = problems
        return JSONResponse(told, status_code=503 if problems else 200)

    @routes.get(
        "/metrics",
        dependencies=[MAY_READ],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    def metrics() -> Response:
        """Return metrics for Prometheus."""
        return Response(_metrics_text(health), media_type=CONTENT_TYPE_LATEST)

    return routes


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


def _metrics_text(health: NodeHealth) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(health))
    return generate_latest(registry)
