"""Requests over HTTP counted and timed for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_OTHER = "other"


class RequestMetrics:
    """Counts requests by route and status, and times them (ASGI).

    The route is its template, not the path: paths hold UIDs, which are too many for labels and
    nobody's business. What matches no route counts as ``other``.

    Parameters
    ----------
    app : ASGIApp
    registry : CollectorRegistry
        Gets ``cbmir_http_requests_total`` and ``cbmir_http_request_seconds``.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "cbmir_http_requests",
            "Requests over HTTP by method, route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cbmir_http_request_seconds",
            "Duration of requests over HTTP, their bodies included",
            ["route"],
            buckets=_BUCKETS_S,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the server answers when the application breaks

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            route = _route(scope)
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            self._requests.labels(method, route, str(status)).inc()
            self._seconds.labels(route).observe(time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """Return the template of the route that matched, with the prefixes of its routers.

    The route itself knows these or not, depending on how its router was included.
    """
    if "route" not in scope:
        return _OTHER
    names = {str(value): f"{{{name}}}" for name, value in scope["path_params"].items()}
    segments = scope["path"].split("/")
    if not names.keys() <= set(segments):  # a value of several segments, or a coded one
        return str(getattr(scope["route"], "path", _OTHER))
    return "/".join(names.get(segment, segment) for segment in segments)
