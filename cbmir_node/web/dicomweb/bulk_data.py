"""WADO-RS bulk data: single binary values of an object (PS3.18 section 10.4.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from pydicom import DataElement, Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.imaging.data_set_source import VR_OF_PIXELS, DataSetSource
from cbmir_node.web.dicomweb.headers import BULK_VRS, LargeValue, read_object_header
from cbmir_node.web.dicomweb.media_types import OCTET_STREAM, accepted, not_acceptable
from cbmir_node.web.dicomweb.multipart_writing import (
    CHUNK_BYTES,
    Part,
    multipart_response,
    started_response,
)
from cbmir_node.web.dicomweb.resources import (
    Resource,
    UidInPath,
    entity_tag,
    named_objects,
    not_modified,
    validator,
)
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
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The value, little endian; Pixel Data uncompressed",
        "content": {"multipart/related": {}, OCTET_STREAM: {}},
    },
    304: {"description": "What If-None-Match names is still current"},
}


_SEQUENCE = frozenset({"SQ"})


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
        study: UidInPath,
        series: UidInPath,
        instance: UidInPath,
        element: ElementPath,
    ) -> Response:
        """Retrieve what a BulkDataURI of the metadata names."""
        return _bulk_data(services, request, Resource(study, series, instance), element)

    return routes


def _bulk_data(
    services: WebServices, request: Request, resource: Resource, element: str
) -> Response:
    fitting = [one for one in accepted(request) if one.covers(OCTET_STREAM)]
    if not fitting:
        raise not_acceptable((f'multipart/related; type="{OCTET_STREAM}"', OCTET_STREAM))
    stored = named_objects(services, resource).kept[0]
    tag = entity_tag([stored], element)
    if unchanged := not_modified(request, tag):
        return unchanged
    if int(element[-8:], 16) in VR_OF_PIXELS and len(element) == 8:
        chunks = _pixels(services, stored, int(element, 16))
    else:
        chunks = _value(services, stored, element)
    headers = validator(tag)
    if fitting[0].is_multipart or fitting[0].media_type == "*/*":
        return multipart_response([Part(OCTET_STREAM, chunks)], OCTET_STREAM, headers=headers)
    return started_response(chunks, OCTET_STREAM, headers=headers)


def _pixels(services: WebServices, stored: StoredObject, tag: int) -> Iterator[bytes]:
    """Yield the value of an element with pixels, uncompressed."""
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


def _value(services: WebServices, stored: StoredObject, element: str) -> Iterator[bytes]:
    """Return the value of any other element, in chunks."""
    header = read_object_header(services.stores.archive, stored.path)
    *above, tag = element.split("/")
    if not above and (large := header.large.get(int(tag, 16))):
        return _large_value(services, stored, large)
    dataset = header.attributes
    for sequence, item in zip(above[::2], above[1::2], strict=True):
        items = _element(dataset, sequence, _SEQUENCE).value
        if int(item) > len(items):
            raise _no_value()
        dataset = items[int(item) - 1]
    return iter([bytes(_element(dataset, tag, BULK_VRS).value or b"")])


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
