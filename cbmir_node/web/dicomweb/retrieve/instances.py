"""WADO-RS: studies, series and instances as DICOM files (PS3.18 sections 10.4.1.1.1 and 8.7.3.1).

Files are streamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.archive.incoming import file_head
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects_of
from cbmir_node.imaging.transcoding import can_transcode
from cbmir_node.web.dicomweb.media_types import DICOM, MediaRange, accepted, not_acceptable
from cbmir_node.web.dicomweb.multipart_writing import (
    Part,
    file_chunks,
    multipart_response,
    started_response,
)
from cbmir_node.web.dicomweb.resources import (
    Resource,
    entity_tag,
    named_objects,
    not_modified,
    service_url,
    validator,
    warning_header,
)
from cbmir_node.web.dicomweb.retrieve.sending import sendable
from cbmir_node.web.parameters import Uid
from cbmir_node.web.services import WebServices

_NOT_BY_HTTP = frozenset({ImplicitVRLittleEndian, ExplicitVRBigEndian})
"""Transfer syntaxes that PS3.18 8.7.3 forbids."""

_OFFERED = ('multipart/related; type="application/dicom"; transfer-syntax=*',)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "DICOM files (PS3.10)",
        "content": {"multipart/related": {}, DICOM: {}},
    },
    206: {"description": "Some instances are not kept here, or not acceptable; see Warning"},
    304: {"description": "What If-None-Match names is still current"},
}


def router(services: WebServices) -> APIRouter:
    """Build the routes that retrieve DICOM files."""
    routes = APIRouter(tags=["Retrieve"])

    @routes.get("/studies/{study}", response_class=Response, responses=_RESPONSES)
    def retrieve_study(request: Request, study: Uid) -> Response:
        """Retrieve all instances of a study."""
        return _retrieve(services, request, Resource(study))

    @routes.get("/studies/{study}/series/{series}", response_class=Response, responses=_RESPONSES)
    def retrieve_series(request: Request, study: Uid, series: Uid) -> Response:
        """Retrieve all instances of a series."""
        return _retrieve(services, request, Resource(study, series))

    @routes.get(
        "/studies/{study}/series/{series}/instances/{instance}",
        response_class=Response,
        responses=_RESPONSES,
    )
    def retrieve_instance(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
        """Retrieve one instance."""
        return _retrieve(services, request, Resource(study, series, instance))

    return routes


def _retrieve(services: WebServices, request: Request, resource: Resource) -> Response:
    ranges = accepted(request)
    named = named_objects(services, resource)
    as_file = _as_single_file(ranges) and resource.level == "IMAGE"
    acceptable = _acceptable_syntaxes(ranges, as_file)
    chosen = {stored: _chosen(stored, acceptable) for stored in named.kept}
    syntaxes = {stored: syntax for stored, syntax in chosen.items() if syntax}
    if not syntaxes:
        raise not_acceptable(_OFFERED)
    tag = entity_tag(named.kept, str(as_file), *syntaxes.values())
    if unchanged := not_modified(request, tag):
        return unchanged
    unacceptable = len(named.kept) - len(syntaxes)
    warnings = warning_header(
        service_url(request),
        (
            named.warning,
            f"{unacceptable} instances are not acceptable: set Accept" if unacceptable else "",
        ),
    )
    headers = {**warnings, **validator(tag)}
    status = 206 if warnings else 200
    parts = _parts(services, syntaxes)
    if as_file:
        only = next(parts)
        return started_response(only.chunks, only.content_type, headers=headers)
    return multipart_response(parts, DICOM, status=status, headers=headers)


def _as_single_file(ranges: Sequence[MediaRange]) -> bool:
    """Tell whether one file alone is wanted; ``*/*`` means the multipart default (8.7.8)."""
    first = next((one for one in ranges if one.covers(DICOM)), None)
    return first is not None and not first.is_multipart and first.media_type != "*/*"


def _acceptable_syntaxes(ranges: Sequence[MediaRange], as_file: bool) -> list[str]:
    """Return acceptable transfer syntaxes, best first; an empty one stands for the default."""
    return [
        one.transfer_syntax
        for one in ranges
        if one.covers(DICOM) and (one.is_multipart != as_file or one.media_type == "*/*")
    ]


def _chosen(stored: StoredObject, acceptable: Sequence[str]) -> str:
    """Return the transfer syntax in which an object is sent; empty when none is possible."""
    own = stored.transfer_syntax_uid
    can_be_plain = own == ExplicitVRLittleEndian or can_transcode(own)
    for syntax in acceptable:
        plain = syntax == ExplicitVRLittleEndian or (own in _NOT_BY_HTTP and syntax in ("*", own))
        if plain or syntax == "":
            if can_be_plain:
                return ExplicitVRLittleEndian
            if syntax == "":  # compressed is the only form there is (8.7.3)
                return own
        elif syntax in ("*", own):
            return own
    return ""


def _parts(services: WebServices, syntaxes: Mapping[StoredObject, str]) -> Iterator[Part]:
    """Yield objects, each in its transfer syntax; raises as `sendable`."""
    with ObjectEncoder(services.stores.archive, services.decoders) as encoder:

        def part(stored: StoredObject) -> Part:
            syntax = syntaxes[stored]
            path, offset = _encoded(services, encoder, stored, syntax)
            head = file_head(stored.sop_class_uid, stored.sop_instance_uid, syntax)
            return Part(f"{DICOM}; transfer-syntax={syntax}", file_chunks(path, offset, head))

        yield from sendable(list(syntaxes), part)


def _encoded(
    services: WebServices, encoder: ObjectEncoder, stored: StoredObject, syntax: str
) -> tuple[Path, int]:
    """Return a file with an object, and where its data set begins in it."""
    try:
        return encoder.encoded(stored, syntax)
    except FileNotFoundError:  # replaced since the catalogue was asked
        found = stored_objects_of(services.stores.catalog, [stored.instance])
        if not found or not found[0].path or found[0] == stored:
            raise
        return encoder.encoded(found[0], syntax)
