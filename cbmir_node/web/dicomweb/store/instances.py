"""STOW-RS: every object is as durable as by C-STORE before it is answered (PS3.18 10.5)."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cbmir_node.archive.store import Archive
from cbmir_node.web.access.callers import caller_of, may_reject
from cbmir_node.web.access.rights import MAY_STORE
from cbmir_node.web.dicomweb.media_types import DICOM, JSON_TYPES, accepted, choose
from cbmir_node.web.dicomweb.multipart_reading import MULTIPART, BodyType, body_type, read_parts
from cbmir_node.web.dicomweb.resources import service_url
from cbmir_node.web.dicomweb.store.reception import Reception
from cbmir_node.web.dicomweb.store.response import (
    StoreReport,
    response_status,
    store_instances_response,
)
from cbmir_node.web.openapi import file_body
from cbmir_node.web.parameters import Uid
from cbmir_node.web.problems import PROBLEM_RESPONSES, Problem
from cbmir_node.web.services import WebServices

MAX_OBJECTS = 10_000
"""Objects in a request at most: what is answered of each stays in memory until the end."""

_REQUEST_BODY = file_body(
    "Files in PS3.10 format: several as multipart/related with the parameter "
    f'type="{DICOM}", or one alone',
    (MULTIPART, DICOM),
)
_REPORT: dict[str, Any] = {media_type: {"schema": {"type": "object"}} for media_type in JSON_TYPES}
_MODULE = "Store Instances Response Module (PS3.18 Annex I)"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": f"All are durable: {_MODULE}", "content": _REPORT},
    202: {"description": f"Some are durable, or not as sent: {_MODULE}", "content": _REPORT},
    409: {"description": f"None was stored: {_MODULE}", "content": _REPORT},
    507: {
        "description": f"The disk reserve is reached: a problem, or {_MODULE}",
        "content": {**_REPORT, **PROBLEM_RESPONSES["default"]["content"]},
    },
}

_log = logging.getLogger(__name__)


def router(services: WebServices) -> APIRouter:
    """Build the routes that store."""
    routes = APIRouter(tags=["Store"], dependencies=[MAY_STORE])

    @routes.post(
        "/studies", response_class=Response, openapi_extra=_REQUEST_BODY, responses=_RESPONSES
    )
    async def store_instances(request: Request) -> Response:
        """Store objects of any studies."""
        return await _store(request, services, study_instance_uid=None)

    @routes.post(
        "/studies/{study}",
        response_class=Response,
        openapi_extra=_REQUEST_BODY,
        responses=_RESPONSES,
    )
    async def store_instances_of_study(request: Request, study: Uid) -> Response:
        """Store objects of one study; those of others are refused."""
        return await _store(request, services, study_instance_uid=study)

    return routes


async def _store(
    request: Request, services: WebServices, study_instance_uid: str | None
) -> Response:
    body = _accepted_body(request)
    media_type = choose(accepted(request), JSON_TYPES)
    if not await run_in_threadpool(services.stores.archive.has_room):
        raise Problem(507, "the disk reserve is reached: nothing more is stored; try again later")
    reception = Reception(
        services.intake, study_instance_uid, _source(request), may_reject=may_reject(request)
    )
    try:
        await read_parts(request, body, reception.begin, MAX_OBJECTS)
    except ClientDisconnect:
        _log.warning("STOW-RS: the client broke off after %d objects", len(reception.report.stored))
        raise Problem(400, "the request broke off; send what was not answered again") from None
    finally:
        reception.close()
    return await run_in_threadpool(
        _answer, reception.report, service_url(request), media_type, services.stores.archive
    )


def _accepted_body(request: Request) -> BodyType:
    """Return what the body is; 415 when it cannot be objects in PS3.10 format."""
    body = body_type(request)
    kind = body.part_type or DICOM if body.media_type == MULTIPART else body.media_type
    if kind != DICOM:
        raise Problem(
            415,
            f"{kind or 'a body without Content-Type'} cannot be stored: send whole DICOM files as "
            f'multipart/related; type="{DICOM}", or one as {DICOM}',
        )
    return body


def _answer(report: StoreReport, service: str, media_type: str, archive: Archive) -> Response:
    return Response(
        json.dumps(store_instances_response(report, service)),
        status_code=response_status(report, has_room=archive.has_room()),
        media_type=media_type,
    )


def _source(request: Request) -> str:
    """Return what is recorded as the objects' source."""
    caller = caller_of(request)
    return f"stow-rs:{caller.name}" if caller is not None and caller.name else "stow-rs"
