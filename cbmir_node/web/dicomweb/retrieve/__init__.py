"""Retrieve (WADO-RS, PS3.18 section 10.4): files, metadata, bulk data, frames, pictures."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.dicomweb.retrieve import bulk_data, frames, instances, metadata, rendered
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes that retrieve."""
    routes = APIRouter(dependencies=[MAY_READ])
    for part in (instances, metadata, bulk_data, frames, rendered):
        routes.include_router(part.router(services))
    return routes
