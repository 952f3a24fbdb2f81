"""DICOMweb (PS3.18)."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.access.rights import MAY_READ
from cbmir_node.web.dicomweb import (
    bulk_data,
    frames,
    metadata,
    query,
    rendered,
    retrieve,
    similar_example,
    store,
)
from cbmir_node.web.dicomweb.resources import ROOT
from cbmir_node.web.services import WebServices

_READING = (query, retrieve, metadata, bulk_data, frames, rendered)


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix=ROOT)
    for part in _READING:
        routes.include_router(part.router(services), dependencies=[MAY_READ])
    routes.include_router(store.router(services))
    routes.include_router(similar_example.router(services))
    return routes
