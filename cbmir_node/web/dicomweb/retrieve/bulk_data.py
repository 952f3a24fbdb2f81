"""WADO-RS bulk data: single binary values of an object (PS3.18 section 10.4.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from pydicom import DataElement, Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.imaging.data_set_source import VR_OF_PIXELS, DataSetSource
from cbmir_node.imaging.element_encoding import UNDEFINED_LENGTH
from cbmir_node.imaging.transcoding import can_transcode
from cbmir_node.web.dicomweb.dicom_json import BULK_VRS
from cbmir_node.web.dicomweb.media_types import (
    OCTET_STREAM,
    MediaRange,
    accepted,
    not_acceptable,
)
from cbmir_node.web.dicomweb.multipart_writing import (
    CHUNK_BYTES,
    Part,
    multipart_response,
    started_response,
)
from cbmir_node.web.dicomweb.resources import (
    Resource,
    entity_tag,
    named_objects,
    not_modified,
    validator,
)
from cbmir_node.web.dicomweb.retrieve.object_headers import LargeValue, read_object_header
from cbmir_node.web.parameters import Uid
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

ElementPath = Annotated[
    str,
    PathParameter(
        pattern=r"^([0-9A-F]{8}/[1-9][0-9]{0,5}/){0,16}[0-9A-F]{8}$",
        description="Tag of the value, after sequences as tag/item/",
        examples=["7FE00010"],
    ),
]
_ENCAPSULATED_DOCUMENT = "00420011"
_DOCUMENTS = ("application/pdf", "model/mtl", "model/obj", "model/stl")
"""Media types that an encapsulated document may say it has: none that a browser runs."""

_VIDEO = {
    f"1.2.840.10008.1.2.4.{number}{fragmentable}": media_type
    for media_type, numbers in (
        ("video/mpeg", range(100, 102)),
        ("video/mp4", range(102, 107)),
        ("video/h265", range(107, 109)),
    )
    for number in numbers
    for fragmentable in ("", ".1")
}
"""Transfer syntax of video to the media type of its pixels (Table 8.7.3-5)."""

_SENT = ("multipart/related", OCTET_STREAM, *_DOCUMENTS, *sorted({*_VIDEO.values()}))
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The value, little endian; Pixel Data uncompressed, but for video",
        "content": {media_type: {} for media_type in _SENT},
    },
    304: {"description": "What If-None-Match names is still current"},
}

_SEQUENCE = frozenset({"SQ"})


class _Value(NamedTuple):
    """What is sent: in chunks, with the media type that it has besides octet-stream, if any."""

    chunks: Iterator[bytes]
    media_type: str = ""
    parameters: str = ""


def router(services: WebServices) -> APIRouter:
    """Build the route of bulk data."""
    routes = APIRouter(tags=["Retrieve"])

    @routes.get(
        "/studies/{study}/series/{series}/instances/{instance}/bulkdata/{element:path}",
        response_class=Response,
        responses=_RESPONSES,
    )
    def bulk_data(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        element: ElementPath,
    ) -> Response:
        """Retrieve what a BulkDataURI of the metadata names."""
        return _bulk_data(services, request, Resource(study, series, instance), element)

    return routes


def _bulk_data(
    services: WebServices, request: Request, resource: Resource, element: str
) -> Response:
    stored = named_objects(services, resource).kept[0]
    if int(element[-8:], 16) in VR_OF_PIXELS and len(element) == 8:
        value = _pixels(services, stored, int(element, 16))
    else:
        value = _value(services, stored, element)
    media_type, is_multipart = _chosen_form(accepted(request), value.media_type)
    tag = entity_tag([stored], element, media_type, str(is_multipart))
    if unchanged := not_modified(request, tag):
        return unchanged
    # what strangers have put into an object is not shown within the node's origin
    headers = {**validator(tag), "Content-Disposition": "attachment"}
    if is_multipart:
        parts = [Part(media_type + value.parameters, value.chunks)]
        return multipart_response(parts, media_type, headers=headers)
    return started_response(value.chunks, media_type + value.parameters, headers=headers)


def _chosen_form(ranges: Sequence[MediaRange], own: str) -> tuple[str, bool]:
    """Return the media type to send, and whether as multipart, which ``*/*`` means (8.7.8)."""
    offered = (own, OCTET_STREAM) if own else (OCTET_STREAM,)
    for one in ranges:
        for media_type in offered:
            if one.covers(media_type):
                return media_type, one.is_multipart or one.media_type == "*/*"
    raise not_acceptable(
        [form for one in offered for form in (f'multipart/related; type="{one}"', one)]
    )


def _pixels(services: WebServices, stored: StoredObject, tag: int) -> _Value:
    """Return an element with pixels: uncompressed, or else its fragments as they are stored."""
    syntax = stored.transfer_syntax_uid
    if can_transcode(syntax):
        return _Value(_native_pixels(services, stored, tag))
    fragments = _fragments(services, stored, tag)
    return _Value(fragments, _VIDEO.get(syntax, ""), f"; transfer-syntax={syntax}")


def _fragments(services: WebServices, stored: StoredObject, tag: int) -> Iterator[bytes]:
    with services.stores.archive.open_data_set(stored.path) as encoded:
        encoded.handle.seek(encoded.start)
        source = DataSetSource(encoded.handle, encoded.syntax)
        _, pixels = source.read_to_pixels()
        if pixels is None or pixels.tag != tag:
            raise _no_value()
        if pixels.length != UNDEFINED_LENGTH:
            yield from _chunks(encoded.handle, pixels.length)
            return
        for length in islice(source.items(), 1, None):  # behind the offset table
            yield from _chunks(encoded.handle, length)


def _native_pixels(services: WebServices, stored: StoredObject, tag: int) -> Iterator[bytes]:
    with ObjectEncoder(services.stores.archive, services.decoders) as encoder:
        path, offset = encoder.encoded(stored, ExplicitVRLittleEndian)
        yield from _pixel_chunks(path, offset, tag)


def _pixel_chunks(path: Path, offset: int, tag: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        _, pixels = DataSetSource(file, ExplicitVRLittleEndian).read_to_pixels()
        if pixels is None or pixels.tag != tag:
            raise _no_value()
        yield from _chunks(file, pixels.length)


def _value(services: WebServices, stored: StoredObject, element: str) -> _Value:
    """Return any other element."""
    header = read_object_header(services.stores.archive, stored.path)
    dataset = header.attributes
    own = ""
    if element == _ENCAPSULATED_DOCUMENT:
        own = str(dataset.get("MIMETypeOfEncapsulatedDocument", "")).lower()
        own = own if own in _DOCUMENTS else ""
    *above, tag = element.split("/")
    if not above and (large := header.large.get(int(tag, 16))):
        return _Value(_large_value(services, stored, large), own)
    for sequence, item in zip(above[::2], above[1::2], strict=True):
        items = _element(dataset, sequence, _SEQUENCE).value
        if int(item) > len(items):
            raise _no_value()
        dataset = items[int(item) - 1]
    return _Value(iter([bytes(_element(dataset, tag, BULK_VRS).value or b"")]), own)


def _large_value(services: WebServices, stored: StoredObject, large: LargeValue) -> Iterator[bytes]:
    with services.stores.archive.open_data_set(stored.path) as encoded:
        encoded.handle.seek(large.offset)
        yield from _chunks(encoded.handle, large.length)


def _chunks(file: BinaryIO, left: int) -> Iterator[bytes]:
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk


def _element(dataset: Dataset, tag: str, vrs: frozenset[str]) -> DataElement:
    try:
        element = dataset[int(tag, 16)]
    except KeyError:
        raise _no_value() from None
    if element.VR not in vrs:
        raise _no_value()
    return element


def _no_value() -> Problem:
    return Problem(404, "the instance has no such binary value; see its metadata")
