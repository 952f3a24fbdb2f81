"""WADO-RS rendered resources and thumbnails (PS3.18 sections 10.4.1.1.3, 10.4.1.1.4 and 8.3.5).

A study or series is represented by one image, its cover, and a multi-frame image by one frame.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Annotated, Any, Literal, cast, get_args

from fastapi import APIRouter, Depends, Query, Request, Response

from cbmir_node.catalog.query.covers import CoverLevel
from cbmir_node.catalog.query.retrieval import stored_objects
from cbmir_node.imaging.rendering import MediaType, Rendering
from cbmir_node.imaging.windows import Function
from cbmir_node.web.dicomweb.frames import FrameList, frame_numbers
from cbmir_node.web.dicomweb.media_types import accepted, choose, not_acceptable
from cbmir_node.web.dicomweb.resources import (
    Resource,
    UidInPath,
    entity_tag,
    named_objects,
    not_modified,
    service_url,
    unknown,
    validator,
    warning_header,
)
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

_LARGEST_SIDE = 16384
_JPEG = "image/jpeg"
_OFFERED = get_args(MediaType)
_NOT_RENDERED = ("annotation", "iccprofile", "presentationSeriesUID", "presentationUID")
_ANSWER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "A picture", "content": {_JPEG: {}, "image/png": {}}},
        304: {"description": "What If-None-Match names is still current"},
    },
}
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
_FRAMES = f"{_INSTANCE}/frames/{{frames}}"

Viewport = Annotated[
    str | None,
    Query(
        max_length=100,
        description="Columns and rows of the picture, as vw,vh, or with the region of the image "
        "to show, as vw,vh,sx,sy,sw,sh (8.3.5.1.3)",
        examples=["512,512"],
    ),
]


def _rendering(
    request: Request,
    quality: Annotated[int, Query(ge=1, le=100, description="Of JPEG (8.3.5.1.2)")] = 90,
    viewport: Viewport = None,
    window: Annotated[
        str | None,
        Query(
            max_length=100,
            description="Centre, width and function: linear, linear-exact or sigmoid (8.3.5.1.4)",
            examples=["40,400,linear"],
        ),
    ] = None,
) -> Rendering:
    """Read how a picture is to look."""
    columns_and_rows, region = _read_viewport(viewport)
    return Rendering(
        cast(MediaType, choose(accepted(request), _OFFERED)),
        quality=quality,
        window=_read_window(window),
        viewport=columns_and_rows,
        region=region,
    )


HowRendered = Annotated[Rendering, Depends(_rendering)]


def router(services: WebServices) -> APIRouter:
    """Build the routes of rendered resources and thumbnails."""
    routes = APIRouter(tags=["Retrieve"])
    _add_rendered(routes, services)
    _add_thumbnails(routes, services)
    return routes


def _add_rendered(routes: APIRouter, services: WebServices) -> None:
    @routes.get(f"{_STUDY}/rendered", **_ANSWER)
    def rendered_study(request: Request, study: UidInPath, rendering: HowRendered) -> Response:
        """Render the image that represents a study."""
        return _rendered(services, request, Resource(study), "", rendering)

    @routes.get(f"{_SERIES}/rendered", **_ANSWER)
    def rendered_series(
        request: Request, study: UidInPath, series: UidInPath, rendering: HowRendered
    ) -> Response:
        """Render the image that represents a series."""
        return _rendered(services, request, Resource(study, series), "", rendering)

    @routes.get(f"{_INSTANCE}/rendered", **_ANSWER)
    def rendered_instance(
        request: Request,
        study: UidInPath,
        series: UidInPath,
        instance: UidInPath,
        rendering: HowRendered,
    ) -> Response:
        """Render an image; of a multi-frame one the frame that represents it."""
        return _rendered(services, request, Resource(study, series, instance), "", rendering)

    @routes.get(f"{_FRAMES}/rendered", **_ANSWER)
    def rendered_frame(
        request: Request,
        study: UidInPath,
        series: UidInPath,
        instance: UidInPath,
        frames: FrameList,
        rendering: HowRendered,
    ) -> Response:
        """Render one frame of an image."""
        return _rendered(services, request, Resource(study, series, instance), frames, rendering)


def _add_thumbnails(routes: APIRouter, services: WebServices) -> None:
    @routes.get(f"{_STUDY}/thumbnail", **_ANSWER)
    def study_thumbnail(request: Request, study: UidInPath, viewport: Viewport = None) -> Response:
        """Return a thumbnail that represents a study."""
        return _thumbnail(services, request, Resource(study), "", viewport)

    @routes.get(f"{_SERIES}/thumbnail", **_ANSWER)
    def series_thumbnail(
        request: Request, study: UidInPath, series: UidInPath, viewport: Viewport = None
    ) -> Response:
        """Return a thumbnail that represents a series."""
        return _thumbnail(services, request, Resource(study, series), "", viewport)

    @routes.get(f"{_INSTANCE}/thumbnail", **_ANSWER)
    def instance_thumbnail(
        request: Request,
        study: UidInPath,
        series: UidInPath,
        instance: UidInPath,
        viewport: Viewport = None,
    ) -> Response:
        """Return a thumbnail that represents an instance."""
        return _thumbnail(services, request, Resource(study, series, instance), "", viewport)

    @routes.get(f"{_FRAMES}/thumbnail", **_ANSWER)
    def frame_thumbnail(
        request: Request,
        study: UidInPath,
        series: UidInPath,
        instance: UidInPath,
        frames: FrameList,
        viewport: Viewport = None,
    ) -> Response:
        """Return a thumbnail of one frame."""
        return _thumbnail(services, request, Resource(study, series, instance), frames, viewport)


def _rendered(
    services: WebServices, request: Request, resource: Resource, frames: str, rendering: Rendering
) -> Response:
    uid, frame = _image(services, resource, frames)
    kept = named_objects(services, resource).kept
    tag = entity_tag(
        [one for one in kept if one.sop_instance_uid == uid], str(frame), str(rendering)
    )
    if unchanged := not_modified(request, tag):
        return unchanged
    ignored = [name for name in _NOT_RENDERED if name in request.query_params]
    text = ignored and f"ignored: {', '.join(ignored)}"
    headers = {**validator(tag), **warning_header(service_url(request), [text or ""])}
    picture = services.pictures.rendered(uid, frame, rendering)
    return Response(picture, media_type=rendering.media_type, headers=headers)


def _thumbnail(
    services: WebServices,
    request: Request,
    resource: Resource,
    frames: str,
    viewport: str | None,
) -> Response:
    if viewport is not None:
        rendering = _rendering(request, viewport=viewport)
        return _rendered(services, request, resource, frames, rendering)
    media_type = choose(accepted(request), _OFFERED)
    if media_type != _JPEG:
        raise not_acceptable((_JPEG, "or name a viewport"))
    uid, frame = _image(services, resource, frames)
    picture = services.pictures.thumbnail(uid, frame)
    tag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
    if unchanged := not_modified(request, tag):
        return unchanged
    return Response(picture, media_type=_JPEG, headers=dict(validator(tag)))


def _image(services: WebServices, resource: Resource, frames: str) -> tuple[str, int]:
    """Return the SOP Instance UID and the frame that are to be shown."""
    if frames:
        numbers = frame_numbers(services, resource, frames)
        if len(numbers) > 1:
            raise Problem(400, "name one frame: several are rendered by as many requests")
        return resource.instance, numbers[0]
    if not stored_objects(services.stores.catalog, resource.level, resource.keys()):
        raise unknown(resource)
    return services.pictures.cover(cast(CoverLevel, resource.level), resource.uid)


_Size = tuple[int, int]
_Region = tuple[float, float, float, float]


def _read_viewport(text: str | None) -> tuple[_Size | None, _Region | None]:
    if text is None:
        return None, None
    fields = text.split(",")
    size = fields[:2]
    if len(fields) not in (2, 6) or not all(re.fullmatch(r"[0-9]{1,5}", one) for one in size):
        raise _wrong("viewport", "vw,vh or vw,vh,sx,sy,sw,sh")
    columns, rows = (int(one) for one in size)
    if not (1 <= columns <= _LARGEST_SIDE and 1 <= rows <= _LARGEST_SIDE):
        raise _wrong("viewport", f"sides of 1 to {_LARGEST_SIDE}")
    if len(fields) == 2:
        return (columns, rows), None
    left, top, width, height = (_number("viewport", one, empty=0.0) for one in fields[2:])
    if not (width and height):
        raise _wrong("viewport", "a region with a width and a height")
    return (columns, rows), (left, top, width, height)


def _read_window(text: str | None) -> tuple[float, float, Function] | None:
    if text is None:
        return None
    fields = text.split(",")
    functions: dict[str, Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]] = {
        "linear": "LINEAR",
        "linear-exact": "LINEAR_EXACT",
        "sigmoid": "SIGMOID",
    }
    if len(fields) != 3 or fields[2].lower() not in functions:
        raise _wrong("window", f"centre,width,function with one of {', '.join(functions)}")
    centre, width = (_number("window", one) for one in fields[:2])
    function = functions[fields[2].lower()]
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise _wrong("window", "a width above 0, for linear at least 1")
    return centre, width, function


def _number(name: str, text: str, empty: float | None = None) -> float:
    if text == "" and empty is not None:
        return empty
    try:
        number = float(text)
    except ValueError:
        raise _wrong(name, "numbers") from None
    if not math.isfinite(number) or abs(number) > 1e9:
        raise _wrong(name, "numbers of a reasonable size")
    return number


def _wrong(name: str, wanted: str) -> Problem:
    return Problem(400, f"{name}: must be {wanted}", field=name)
