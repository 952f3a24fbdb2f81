"""The HTTP application: the page, its JSON, DICOMweb, health and metrics, behind their guards."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI

from cbmir_node import __version__
from cbmir_node.web import api, dicomweb, health, pages
from cbmir_node.web.access import login
from cbmir_node.web.access.authentication import Authentication
from cbmir_node.web.access.origins import Origins
from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.access.sessions import Sessions
from cbmir_node.web.openapi import description
from cbmir_node.web.problems import PROBLEM_RESPONSES, tell_problems
from cbmir_node.web.request_metrics import RequestMetrics
from cbmir_node.web.safety.request_bodies import RequestBodies
from cbmir_node.web.safety.response_bodies import ResponseBodies
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
    app.add_middleware(Authentication, settings=settings, sessions=sessions)
    app.add_middleware(RequestBodies, settings=settings)
    app.add_middleware(Origins, settings=settings)
    app.add_middleware(ResponseBodies)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(RequestMetrics, registry=services.health.registry)
    app.include_router(pages.router())
    app.include_router(login.router(settings, sessions))
    app.include_router(health.router(services.health))
    app.include_router(api.router(services))
    app.include_router(dicomweb.router(services))

    described = cache(lambda: description(app))  # it takes a good part of a second

    @app.get("/openapi.json", dependencies=[MAY_READ], include_in_schema=False)
    def openapi() -> dict[str, Any]:
        """Return this description."""
        return described()

    return app
