"""WADO-RS rendered resources and thumbnails (PS3.18 sections 10.4.1.1.3, 10.4.1.1.4 and 8.3.5).

A study or series is represented by one image, its cover, and a multi-frame image by one frame.
"""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response

from cbmir_node.catalog.query.retrieval import stored_objects
from cbmir_node.errors import SelectionError
from cbmir_node.imaging.rendering import Rendering
from cbmir_node.web.dicomweb.media_types import accepted, choose
from cbmir_node.web.dicomweb.resources import (
    Resource,
    entity_tag,
    named_objects,
    not_modified,
    service_url,
    unknown,
    validator,
    warning_header,
)
from cbmir_node.web.dicomweb.retrieve.frames import FrameList, frame_numbers
from cbmir_node.web.dicomweb.retrieve.rendering_parameters import (
    HowRendered,
    Viewport,
    read_rendering,
)
from cbmir_node.web.parameters import Uid
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

_JPEG = "image/jpeg"
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


def router(services: WebServices) -> APIRouter:
    """Build the routes of rendered resources and thumbnails."""
    routes = APIRouter(tags=["Retrieve"])
    _add_rendered(routes, services)
    _add_thumbnails(routes, services)
    return routes


def _add_rendered(routes: APIRouter, services: WebServices) -> None:
    @routes.get(f"{_STUDY}/rendered", **_ANSWER)
    def rendered_study(request: Request, study: Uid, rendering: HowRendered) -> Response:
        """Render the image that represents a study."""
        return _rendered(services, request, Resource(study), "", rendering)

    @routes.get(f"{_SERIES}/rendered", **_ANSWER)
    def rendered_series(
        request: Request, study: Uid, series: Uid, rendering: HowRendered
    ) -> Response:
        """Render the image that represents a series."""
        return _rendered(services, request, Resource(study, series), "", rendering)

    @routes.get(f"{_INSTANCE}/rendered", **_ANSWER)
    def rendered_instance(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        rendering: HowRendered,
    ) -> Response:
        """Render an image; of a multi-frame one the frame that represents it."""
        return _rendered(services, request, Resource(study, series, instance), "", rendering)

    @routes.get(f"{_FRAMES}/rendered", **_ANSWER)
    def rendered_frame(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        frames: FrameList,
        rendering: HowRendered,
    ) -> Response:
        """Render one frame of an image."""
        return _rendered(services, request, Resource(study, series, instance), frames, rendering)


def _add_thumbnails(routes: APIRouter, services: WebServices) -> None:
    @routes.get(f"{_STUDY}/thumbnail", **_ANSWER)
    def study_thumbnail(request: Request, study: Uid, viewport: Viewport = None) -> Response:
        """Return a thumbnail that represents a study."""
        return _thumbnail(services, request, Resource(study), "", viewport)

    @routes.get(f"{_SERIES}/thumbnail", **_ANSWER)
    def series_thumbnail(
        request: Request, study: Uid, series: Uid, viewport: Viewport = None
    ) -> Response:
        """Return a thumbnail that represents a series."""
        return _thumbnail(services, request, Resource(study, series), "", viewport)

    @routes.get(f"{_INSTANCE}/thumbnail", **_ANSWER)
    def instance_thumbnail(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        viewport: Viewport = None,
    ) -> Response:
        """Return a thumbnail that represents an instance."""
        return _thumbnail(services, request, Resource(study, series, instance), "", viewport)

    @routes.get(f"{_FRAMES}/thumbnail", **_ANSWER)
    def frame_thumbnail(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
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
        rendering = read_rendering(request, viewport=viewport)
        return _rendered(services, request, resource, frames, rendering)
    choose(accepted(request), (_JPEG,))
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
    try:
        return services.pictures.cover(resource.level, resource.uid)
    except SelectionError as error:
        raise Problem(
            406, "there is no image to render: retrieve the objects themselves, or their metadata"
        ) from error
