"""Similar cases to files that are not stored: ``POST /dicom-web/similar``, an extension.

The files are written to disk as they come, embedded, and gone before the answer is sent.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cbmir_node.presentation.examples import TemporaryExamples
from cbmir_node.search.query import Example
from cbmir_node.web.dicomweb.dicom_json import DATA_SETS
from cbmir_node.web.dicomweb.media_types import (
    DICOM,
    JSON_TYPES,
    OCTET_STREAM,
    accepted,
    choose,
)
from cbmir_node.web.dicomweb.multipart_reading import MULTIPART, BodyType, body_type, read_parts
from cbmir_node.web.dicomweb.search.description import (
    ATTRIBUTES,
    describe_search,
    describe_similarity,
)
from cbmir_node.web.dicomweb.search.similar import (
    CHOICES,
    EXAMPLES,
    read_similarity_parameters,
    similar_response,
    similarity_query,
)
from cbmir_node.web.openapi import file_body
from cbmir_node.web.parameters import LEVEL_OF_NAME, LevelName, ModalityOfPictures
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

MAX_FILES = 20
"""Files in a request at most."""

_PICTURES = ("image/png", "image/jpeg")
_FILES = (DICOM, *_PICTURES, OCTET_STREAM)
_OF_FILES = frozenset({"level", "modality"})

_REQUEST = {
    **ATTRIBUTES,
    **file_body(
        "DICOM, PNG or JPEG files, told apart by their content: one alone, or up to "
        f"{MAX_FILES} as multipart/related",
        (MULTIPART, *_FILES),
    ),
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "DICOM JSON, one data set for each match, best first",
        "content": DATA_SETS,
    },
    204: {"description": "Nothing is similar"},
}


def router(services: WebServices) -> APIRouter:
    """Build the route."""
    routes = APIRouter(
        tags=["Search"],
        dependencies=[Depends(describe_search), Depends(describe_similarity)],
    )

    @routes.post("/similar", response_class=Response, openapi_extra=_REQUEST, responses=_RESPONSES)
    async def search_similar_to_files(
        request: Request,
        level: Annotated[LevelName, Query(description="What is ranked")] = "study",
        modality: ModalityOfPictures = "",
    ) -> Response:
        """Search for what is similar to files, which are not stored."""
        choose(accepted(request), JSON_TYPES)  # before the files are read, like the query
        asked = read_similarity_parameters(
            request, LEVEL_OF_NAME[level], extensions=EXAMPLES | CHOICES | _OF_FILES
        )
        query = similarity_query(asked)
        files = await _embedded(request, services, modality)
        query = replace(query, examples=[*files, *query.examples])
        return await run_in_threadpool(similar_response, services, request, asked, query)

    return routes


async def _embedded(request: Request, services: WebServices, modality: str) -> list[Example]:
    """Return the files of a request as examples."""
    found: list[Example] = []
    body = _accepted_body(request)
    most_bytes = services.settings.http.max_example_mib << 20

    def begin(media_type: str) -> _ArrivingExample:
        name = f"file {len(found) + 1}"
        _check_type(media_type or body.part_type, name)
        return _ArrivingExample(services.examples, name, modality, most_bytes, found)

    try:
        await read_parts(request, body, begin, MAX_FILES)
    except ClientDisconnect:
        raise Problem(400, "the request broke off; send it again") from None
    return found


def _accepted_body(request: Request) -> BodyType:
    body = body_type(request)
    if body.media_type != MULTIPART:
        _check_type(body.media_type, "the body")
    return body


def _check_type(media_type: str, name: str) -> None:
    if media_type not in ("", *_FILES):
        raise Problem(415, f"{name} is {media_type}: send {DICOM}, {' or '.join(_PICTURES)}")


class _ArrivingExample:
    """A file on its way in; it becomes an example when it is complete, and its bytes go."""

    def __init__(
        self,
        examples: TemporaryExamples,
        name: str,
        modality: str,
        most_bytes: int,
        found: list[Example],
    ) -> None:
        self._examples = examples
        self._name = name
        self._modality = modality
        self._most_bytes = self._left = most_bytes
        self._found = found
        with contextlib.ExitStack() as exits:
            self._upload = exits.enter_context(examples.receive())
            self._exits = exits.pop_all()

    def write(self, data: memoryview) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise Problem(
                413,
                f"{self._name} is larger than {self._most_bytes >> 20} MiB "
                "(http.max_example_mib); send a smaller one",
            )
        self._upload.write(data)

    def finish(self) -> None:
        added = self._examples.add(self._upload.path, self._name, self._modality)
        # its vectors are all that is needed of it
        self._examples.remove(added.token)
        self._found.append(added.example)

    def discard(self) -> None:
        self._exits.close()
