"""QIDO-RS: searches for studies, series and instances (PS3.18 section 10.6)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from cbmir_node.answers.data_sets import make_answer
from cbmir_node.catalog.keys import Level
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.web.dicomweb.dicom_json import DATA_SETS
from cbmir_node.web.dicomweb.media_types import JSON_TYPES, accepted, choose
from cbmir_node.web.dicomweb.resources import Resource
from cbmir_node.web.dicomweb.search.description import (
    ATTRIBUTES,
    describe_search,
    describe_similarity,
)
from cbmir_node.web.dicomweb.search.parameters import read_search_parameters
from cbmir_node.web.dicomweb.search.results import results_response
from cbmir_node.web.dicomweb.search.similar import EXAMPLES, search_similar
from cbmir_node.web.parameters import Uid
from cbmir_node.web.services import WebServices

_MORE = "There are additional results that can be requested"
_ANSWER: dict[str, Any] = {
    "response_class": Response,
    "openapi_extra": ATTRIBUTES,
    "responses": {
        200: {
            "description": "DICOM JSON, one data set for each match",
            "content": DATA_SETS,
        },
        204: {"description": "Nothing matches"},
    },
}


def router(services: WebServices) -> APIRouter:
    """Build the routes that search; any attribute may be a query parameter."""
    routes = APIRouter(
        tags=["Search"], dependencies=[Depends(describe_search), Depends(describe_similarity)]
    )

    @routes.get("/studies", **_ANSWER)
    def search_studies(request: Request) -> Response:
        """Search for studies."""
        return _search(services, request, "STUDY")

    @routes.get("/series", **_ANSWER)
    def search_series(request: Request) -> Response:
        """Search for series of all studies."""
        return _search(services, request, "SERIES")

    @routes.get("/instances", **_ANSWER)
    def search_instances(request: Request) -> Response:
        """Search for instances of all studies."""
        return _search(services, request, "IMAGE")

    @routes.get("/studies/{study}/series", **_ANSWER)
    def search_series_of_study(request: Request, study: Uid) -> Response:
        """Search for series of a study."""
        return _search(services, request, "SERIES", Resource(study))

    @routes.get("/studies/{study}/instances", **_ANSWER)
    def search_instances_of_study(request: Request, study: Uid) -> Response:
        """Search for instances of a study."""
        return _search(services, request, "IMAGE", Resource(study))

    @routes.get("/studies/{study}/series/{series}/instances", **_ANSWER)
    def search_instances_of_series(request: Request, study: Uid, series: Uid) -> Response:
        """Search for instances of a series."""
        return _search(services, request, "IMAGE", Resource(study, series))

    return routes


def _search(
    services: WebServices, request: Request, level: Level, within: Resource | None = None
) -> Response:
    above = within.keys() if within else {}
    if not EXAMPLES.isdisjoint(request.query_params):
        return search_similar(services, request, level, above)
    media_type = choose(accepted(request), JSON_TYPES)
    asked = read_search_parameters(request.query_params.multi_items(), level, above)
    most = services.settings.dicom.max_find_results
    limit = most if asked.limit is None else min(asked.limit, most)
    matches = find(
        *(services.stores.catalog, level, asked.keys.matching, asked.keys.requested, limit + 1),
        offset=asked.offset,
        fuzzy_names=asked.fuzzy_names,
    )
    warnings = [*asked.warnings, _MORE if len(matches) > limit else ""]
    answers = (make_answer(match, asked.keys, services.settings) for match in matches[:limit])
    return results_response(request, answers, media_type, warnings)
