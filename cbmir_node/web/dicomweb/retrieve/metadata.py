"""WADO-RS metadata: everything of an object but its bulk data (PS3.18 section 10.4.1.1.2)."""

from __future__ import annotations

import warnings
from typing import Any

from fastapi import APIRouter, Request, Response
from pydicom import Dataset

from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.errors import InvalidObjectError
from cbmir_node.imaging.pixel_source import NATIVE
from cbmir_node.imaging.transcoding import photometric_as_sent
from cbmir_node.web.dicomweb.dicom_json import (
    DATA_SETS,
    JsonDataset,
    in_order,
    json_array,
    json_dataset,
)
from cbmir_node.web.dicomweb.media_types import JSON_TYPES, accepted, choose
from cbmir_node.web.dicomweb.multipart_writing import started_response
from cbmir_node.web.dicomweb.resources import (
    Resource,
    entity_tag,
    named_objects,
    not_modified,
    resource_url,
    service_url,
    validator,
    warning_header,
)
from cbmir_node.web.dicomweb.retrieve.object_headers import read_object_header
from cbmir_node.web.dicomweb.retrieve.sending import sendable
from cbmir_node.web.parameters import Uid
from cbmir_node.web.services import WebServices

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "DICOM JSON, one data set for each instance",
        "content": DATA_SETS,
    },
    206: {"description": "Some instances are not kept here; see Warning"},
    304: {"description": "What If-None-Match names is still current"},
}


def router(services: WebServices) -> APIRouter:
    """Build the routes of the metadata resources."""
    routes = APIRouter(tags=["Retrieve"])

    @routes.get("/studies/{study}/metadata", response_class=Response, responses=_RESPONSES)
    def study_metadata(request: Request, study: Uid) -> Response:
        """Retrieve the metadata of all instances of a study."""
        return _metadata(services, request, Resource(study))

    @routes.get(
        "/studies/{study}/series/{series}/metadata", response_class=Response, responses=_RESPONSES
    )
    def series_metadata(request: Request, study: Uid, series: Uid) -> Response:
        """Retrieve the metadata of all instances of a series."""
        return _metadata(services, request, Resource(study, series))

    @routes.get(
        "/studies/{study}/series/{series}/instances/{instance}/metadata",
        response_class=Response,
        responses=_RESPONSES,
    )
    def instance_metadata(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
        """Retrieve the metadata of an instance."""
        return _metadata(services, request, Resource(study, series, instance))

    return routes


def _metadata(services: WebServices, request: Request, resource: Resource) -> Response:
    media_type = choose(accepted(request), JSON_TYPES)
    named = named_objects(services, resource)
    service = service_url(request)
    tag = entity_tag(named.kept, "metadata", service, media_type)
    if unchanged := not_modified(request, tag):
        return unchanged
    told = warning_header(service, [named.warning])
    return started_response(
        json_array(sendable(named.kept, lambda stored: _json_header(services, service, stored))),
        media_type,
        status=206 if told else 200,
        headers={**told, **validator(tag)},
    )


def _json_header(services: WebServices, service: str, stored: StoredObject) -> JsonDataset:
    read = read_object_header(services.stores.archive, stored.path)
    header = read.attributes
    series = str(header.get("SeriesInstanceUID", ""))
    url = resource_url(service, stored.study_instance_uid, series, stored.sop_instance_uid)
    syntax = stored.transfer_syntax_uid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break their VR, which are the sender's
        _describe_as_sent(header, syntax)
        try:
            described = json_dataset(header, lambda path: f"{url}/bulkdata/{path}")
        except RecursionError as error:
            raise InvalidObjectError("its sequences are nested too deeply") from error
    if "00080005" in described:
        described["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # of JSON (F.2.2)
    described["00083002"] = {"vr": "UI", "Value": [syntax]}
    named = {tag: value.vr for tag, value in read.large.items()}
    if read.pixels is not None:
        named[read.pixels.tag] = "OW" if read.pixels.vr == "UN" else read.pixels.vr
    for tag, vr in named.items():
        described[f"{tag:08X}"] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag:08X}"}
    return in_order(described)


def _describe_as_sent(header: Dataset, transfer_syntax: str) -> None:
    """Let the Image Pixel Module describe frames as they are sent by default: uncompressed."""
    if transfer_syntax in NATIVE:
        return
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric:
        header.PhotometricInterpretation = photometric_as_sent(photometric, transfer_syntax)
    if "PlanarConfiguration" in header:
        header.PlanarConfiguration = 0
