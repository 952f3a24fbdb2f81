"""The HTTP application: the page, its JSON, DICOMweb, health and metrics, behind their guards."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cbmir_node import __version__
from cbmir_node.web import api, dicomweb, pages
from cbmir_node.web.access import login
from cbmir_node.web.access.callers import caller_of
from cbmir_node.web.access.origins import Origins
from cbmir_node.web.access.recognition import Recognition
from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.access.sessions import Sessions
from cbmir_node.web.health import NodeHealth, metrics_text
from cbmir_node.web.openapi import description
from cbmir_node.web.problems import PROBLEM_RESPONSES, tell_problems
from cbmir_node.web.request_metrics import RequestMetrics
from cbmir_node.web.safety.request_bodies import RequestBodies
from cbmir_node.web.safety.response_headers import ResponseHeaders
from cbmir_node.web.services import WebServices


def create_app(services: WebServices) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    services : WebServices
        Parts of the running node.
    """
    app = FastAPI(
        title="cbmir-node",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEM_RESPONSES,
    )
    tell_problems(app)
    settings = services.settings.http
    sessions = Sessions(settings.session_hours * 3600)
    # the last one added meets a request first
    app.add_middleware(Recognition, settings=settings, sessions=sessions)
    app.add_middleware(RequestBodies, settings=settings)
    app.add_middleware(Origins, settings=settings)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(RequestMetrics, registry=services.health.registry)
    app.include_router(pages.router())
    app.include_router(login.router(settings, sessions))
    app.include_router(_health_router(services.health))
    app.include_router(api.router(services))
    app.include_router(dicomweb.router(services))

    described = cache(lambda: description(app))  # it takes a good part of a second

    @app.get("/openapi.json", dependencies=[MAY_READ], include_in_schema=False)
    def openapi() -> dict[str, Any]:
        """Return this description."""
        return described()

    return app


def _health_router(health: NodeHealth) -> APIRouter:
    """Return what orchestrators and Prometheus ask for."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
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
        return Response(metrics_text(health), media_type=CONTENT_TYPE_LATEST)

    return routes
