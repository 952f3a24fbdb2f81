"""The HTTP application: health and metrics for now; the page and DICOMweb come to live here."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cbmir_node import __version__
from cbmir_node.web.health import NodeHealth, metrics_text


def create_app(health: NodeHealth) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    health : NodeHealth
        The running node.
    """
    app = FastAPI(title="cbmir-node", version=__version__, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Tell that the process runs and answers."""
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Tell whether the node can receive, embed and answer; 503 with the reasons if not."""
        problems = health.problems()
        status = "not ready" if problems else "ready"
        return JSONResponse(
            {"status": status, "problems": problems}, status_code=503 if problems else 200
        )

    @app.get("/metrics")
    def metrics() -> Response:
        """Return metrics for Prometheus."""
        return Response(metrics_text(health), media_type=CONTENT_TYPE_LATEST)

    return app
