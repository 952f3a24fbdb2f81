"""The JSON API of the node's own page; programs are better served by DICOMweb."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.access.rights import MAY_DO_SOMETHING, MAY_READ
from cbmir_node.web.api import administration, examples, images, node, sending, similar, subjects
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes below ``/api``."""
    routes = APIRouter(prefix="/api", tags=["page"])
    for part in (similar, examples, images, subjects, sending):
        routes.include_router(part.router(services), dependencies=[MAY_READ])
    routes.include_router(administration.router(services))  # has a right of its own
    # every page shows who asks
    routes.include_router(node.router(services), dependencies=[MAY_DO_SOMETHING])
    return routes
