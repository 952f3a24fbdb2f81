"""The JSON API of the node's own page; programs are better served by DICOMweb."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.api import administration, examples, images, node, sending, similar, subjects
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes below ``/api``."""
    routes = APIRouter(prefix="/api", tags=["page"], dependencies=[MAY_READ])
    for part in (node, similar, examples, images, subjects, sending, administration):
        routes.include_router(part.router(services))
    return routes
