"""WADO-RS frames (PS3.18 sections 10.4.1.1.6 and 8.7.3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Path, Request, Response
from pydicom.uid import UID, ExplicitVRLittleEndian

from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.catalog.reception.representation import frame_count
from cbmir_node.imaging.pixel_source import NATIVE
from cbmir_node.imaging.transcoding import can_transcode
from cbmir_node.presentation.decoding import decode_with
from cbmir_node.web.dicomweb.media_types import (
    OCTET_STREAM,
    MediaRange,
    accepted,
    not_acceptable,
)
from cbmir_node.web.dicomweb.multipart_writing import Part, multipart_response
from cbmir_node.web.dicomweb.resources import (
    Resource,
    entity_tag,
    named_objects,
    not_modified,
    resource_url,
    service_url,
    unknown,
    validator,
)
from cbmir_node.web.parameters import Uid
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

FrameList = Annotated[
    str,
    Path(
        pattern=r"^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$",
        max_length=100_000,
        description="Frame numbers from 1, separated by commas",
        examples=["1", "1,2"],
    ),
]

_PREFIX = "1.2.840.10008.1.2."
_SYNTAXES_OF_MEDIA_TYPE = {
    "image/jpeg": ("4.50", "4.51", "4.57", "4.70"),
    "image/dicom-rle": ("5",),
    "image/jls": ("4.80", "4.81"),
    "image/jp2": ("4.90", "4.91"),
    "image/jpx": ("4.92", "4.93"),
    "image/jxl": ("4.110", "4.111", "4.112"),
    "image/jphc": ("4.201", "4.202", "4.203"),
}
MEDIA_TYPE_OF_SYNTAX = {
    f"{_PREFIX}{suffix}": media_type
    for media_type, suffixes in _SYNTAXES_OF_MEDIA_TYPE.items()
    for suffix in suffixes
}
"""Compressed transfer syntax to the media type of its frames (Table 8.7.3-5)."""

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One part for each frame, in the order of the list",
        "content": {"multipart/related": {}, OCTET_STREAM: {}},
    },
    304: {"description": "What If-None-Match names is still current"},
}


class FrameForm(NamedTuple):
    """How frames are sent; without a transfer syntax they are uncompressed."""

    media_type: str
    transfer_syntax: str
    is_multipart: bool

    @property
    def content_type(self) -> str:
        """Media type of a frame, with its parameters."""
        syntax = self.transfer_syntax or ExplicitVRLittleEndian
        return f"{self.media_type}; transfer-syntax={syntax}"


def router(services: WebServices) -> APIRouter:
    """Build the route of frames."""
    routes = APIRouter(tags=["Retrieve"])

    @routes.get(
        "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}",
        response_class=Response,
        responses=_RESPONSES,
    )
    def retrieve_frames(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        frames: FrameList,
    ) -> Response:
        """Retrieve frames of an instance, uncompressed or as they are stored."""
        return _frames(services, request, Resource(study, series, instance), frames)

    return routes


def frame_numbers(services: WebServices, resource: Resource, frames: str) -> list[int]:
    """Return the frames of a list.

    Raises
    ------
    Problem
        404: the node does not have the instance or a frame. 400: more frames than there are.
    """
    keys = resource.keys()
    found = find(services.stores.catalog, "IMAGE", keys, ["NumberOfFrames"], 1)
    if not found:
        raise unknown(resource)
    total = frame_count(found[0].values["NumberOfFrames"])
    numbers = [int(number) for number in frames.split(",")]
    if max(numbers) > total:
        raise Problem(404, f"the instance has {total} frames, and no frame {max(numbers)}")
    if len(numbers) > total:
        raise Problem(400, f"name each of the {total} frames once")
    return numbers


def _frames(services: WebServices, request: Request, resource: Resource, frames: str) -> Response:
    numbers = frame_numbers(services, resource, frames)
    stored = named_objects(services, resource).kept[0]
    form = _chosen_form(accepted(request), stored.transfer_syntax_uid, len(numbers))
    tag = entity_tag([stored], "frames", frames, *map(str, form))
    if unchanged := not_modified(request, tag):
        return unchanged
    headers = validator(tag)
    if not form.is_multipart:
        content = _frame(services, stored, numbers[0], form)
        return Response(content, media_type=form.content_type, headers=dict(headers))
    url = resource_url(service_url(request), resource.study, resource.series, resource.instance)
    parts = _parts(services, stored, numbers, form, url)
    return multipart_response(parts, form.media_type, headers=headers)


def _chosen_form(ranges: Sequence[MediaRange], syntax: str, number: int) -> FrameForm:
    """Return the first form that is acceptable and possible.

    A single part is possible for a single frame; ``*/*`` means multipart (8.7.8).
    """
    own = MEDIA_TYPE_OF_SYNTAX.get(syntax, "")
    plain = can_transcode(syntax)
    for one in ranges:
        if not one.is_multipart and number > 1 and one.media_type != "*/*":
            continue
        is_multipart = one.is_multipart or one.media_type == "*/*"
        as_stored = syntax not in NATIVE and own and one.transfer_syntax in ("*", syntax)
        if as_stored and (one.covers(own) or one.covers(OCTET_STREAM)):
            return FrameForm(own, syntax, is_multipart)
        uncompressed = one.transfer_syntax in ("", "*", ExplicitVRLittleEndian)
        if plain and one.covers(OCTET_STREAM) and uncompressed:
            return FrameForm(OCTET_STREAM, "", is_multipart)
        if own and one.covers(own) and one.transfer_syntax == "":
            return FrameForm(own, syntax, is_multipart)
    offered = [f'multipart/related; type="{OCTET_STREAM}"'] if plain else []
    if own:
        offered.append(f'multipart/related; type="{own}"; transfer-syntax={syntax}')
    if not offered:
        raise Problem(
            406,
            f"no single frames are sent of {UID(syntax).name}: retrieve the pixels as a whole, as "
            "the BulkDataURI of the metadata names them",
        )
    raise not_acceptable(offered)


def _parts(
    services: WebServices,
    stored: StoredObject,
    numbers: Sequence[int],
    form: FrameForm,
    url: str,
) -> Iterator[Part]:
    def frame(number: int) -> bytes:
        return _frame(services, stored, number, form)

    for number in numbers:
        # made as it is sent, so that nothing here holds on to it
        yield Part(form.content_type, map(frame, [number]), f"{url}/frames/{number}")


def _frame(services: WebServices, stored: StoredObject, number: int, form: FrameForm) -> bytes:
    path = services.stores.archive.path(stored.path)
    if form.transfer_syntax:
        return decode_with(services.decoders, lambda decoder: decoder.encoded_frame(path, number))
    return decode_with(services.decoders, lambda decoder: decoder.native_frame(path, number))
