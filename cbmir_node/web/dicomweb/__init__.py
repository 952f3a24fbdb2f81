"""DICOMweb (PS3.18): a room for each transaction, and what they share."""

from __future__ import annotations

from fastapi import APIRouter

from cbmir_node.web.dicomweb import retrieve, search, store
from cbmir_node.web.dicomweb.resources import ROOT
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes of the service."""
    routes = APIRouter(prefix=ROOT)
    for transaction in (search, retrieve, store):
        routes.include_router(transaction.router(services))
    return routes
