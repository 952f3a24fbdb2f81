"""Search (QIDO-RS, PS3.18 section 10.6), by attributes and by similarity."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.dicomweb.search import query, similar_example
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes that search."""
    routes = APIRouter(dependencies=[MAY_READ])
    for part in (query, similar_example):
        routes.include_router(part.router(services))
    return routes
