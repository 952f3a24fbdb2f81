"""STOW-RS: every object is as durable as by C-STORE before it is answered (PS3.18 10.5)."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydicom.filereader import read_dataset
from starlette.requests import ClientDisconnect

from cbmir_node.archive.header import is_uid
from cbmir_node.archive.incoming import IncomingObject
from cbmir_node.archive.store import Archive
from cbmir_node.errors import CbmirError, NotAnObjectError, OutOfSpaceError
from cbmir_node.intake import Intake
from cbmir_node.web.access.callers import caller_of
from cbmir_node.web.access.rights import MAY_STORE
from cbmir_node.web.dicomweb.media_types import DICOM, JSON_TYPES, accepted, choose
from cbmir_node.web.dicomweb.multipart_reading import MULTIPART, BodyType, body_type, read_parts
from cbmir_node.web.dicomweb.resources import UidInPath, service_url
from cbmir_node.web.dicomweb.store_response import (
    FailedObject,
    OtherStudyError,
    StoredObject,
    StoreReport,
    failure_reason,
    response_status,
    store_instances_response,
)
from cbmir_node.web.problems import PROBLEM_RESPONSES, Problem
from cbmir_node.web.services import WebServices

MAX_OBJECTS = 10_000
"""Objects in a request at most: what is answered of each stays in memory until the end."""

_RESERVE_CHECK_BYTES = 64 << 20
_ANNOUNCEMENT_BYTES = 1 << 14

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "description": "Files in PS3.10 format: several as multipart/related with the parameter "
        f'type="{DICOM}", or one alone',
        "content": {MULTIPART: _BINARY, DICOM: _BINARY},
    }
}
_REPORT: dict[str, Any] = {media_type: {"schema": {"type": "object"}} for media_type in JSON_TYPES}
_MODULE = "Store Instances Response Module (PS3.18 Annex I)"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": f"All are durable: {_MODULE}", "content": _REPORT},
    202: {"description": f"Some are durable: {_MODULE}", "content": _REPORT},
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
    async def store_instances_of_study(request: Request, study: UidInPath) -> Response:
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
    reception = _Reception(services.intake, study_instance_uid, _source(request))
    try:
        await read_parts(request, body, reception.begin, MAX_OBJECTS)
    except ClientDisconnect:
        _log.warning("STOW-RS: the client broke off after %d objects", len(reception.report.stored))
        raise Problem(400, "the request broke off; send what was not answered again") from None
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


class _Reception:
    """The objects of one request, and what became of them."""

    def __init__(self, intake: Intake, study_instance_uid: str | None, source: str) -> None:
        self.report = StoreReport()
        self._intake = intake
        self._study = study_instance_uid
        self.source = source

    def begin(self, media_type: str) -> _ArrivingObject:
        """Take the next part."""
        return _ArrivingObject(self, self._intake.archive, media_type)

    def store(self, file: Path) -> None:
        """Store a part that has arrived completely."""
        header = self._intake.archive.read_header(file)
        if self._study not in (None, header.study_instance_uid):
            raise OtherStudyError(f"of study {header.study_instance_uid}, not of this one")
        self._intake.accept_file(file, source=self.source, header=header, fetched=False)
        self.report.stored.append(
            StoredObject(
                header.sop_class_uid,
                header.sop_instance_uid,
                header.study_instance_uid,
                str(header.attributes.SeriesInstanceUID),
            )
        )


class _ArrivingObject:
    """A part on its way in.

    Taking it never fails: what goes wrong is kept for the answer, and the rest of the part is
    drained, so that the parts behind it get their turn.
    """

    def __init__(self, reception: _Reception, archive: Archive, media_type: str) -> None:
        self._reception = reception
        self._archive = archive
        self._until_check = _RESERVE_CHECK_BYTES
        self._incoming: IncomingObject | None = None
        self._failure: CbmirError | None = None
        self._head = bytearray()
        if media_type not in ("", DICOM):
            self._failure = NotAnObjectError(f"the part is {media_type}, not {DICOM}")
            return
        try:
            self._incoming = archive.receive()
        except OutOfSpaceError as error:
            self._failure = error

    def write(self, data: memoryview) -> None:
        self._head += data[: _ANNOUNCEMENT_BYTES - len(self._head)]
        if self._incoming is None:
            return
        try:
            self._incoming.write(data)
            self._until_check -= len(data)
            if self._until_check < 0:
                self._until_check = _RESERVE_CHECK_BYTES
                if not self._archive.has_room():
                    raise OutOfSpaceError("the disk reserve is reached: nothing more is stored")
        except OutOfSpaceError as error:
            self._failure = error
            self.discard()

    def finish(self) -> None:
        error: Exception | None = self._failure
        if self._incoming is not None:
            try:
                self._incoming.finish()
                self._reception.store(self._incoming.path)
            except CbmirError as refusal:
                error = refusal
            except Exception as failure:  # the answer must tell what became of the other parts
                _log.exception("STOW-RS: an object could not be stored")
                error = failure
        if error is not None:
            failed = FailedObject(
                *_announced(bytes(self._head)), failure_reason(error), _comment(error)
            )
            self._reception.report.failed.append(failed)
            _log.warning(
                "STOW-RS of %s from %s: 0x%04X %s",
                *(failed.sop_instance_uid or "an unreadable part", self._reception.source),
                *(failed.reason, error),
            )
        self.discard()

    def discard(self) -> None:
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


def _comment(error: Exception) -> str:
    """Return what the sender is told; of errors inside the node only the log tells more."""
    return str(error) if isinstance(error, CbmirError) else "the node failed; its log tells why"


def _announced(head: bytes) -> tuple[str, str]:
    """Return SOP Class and Instance UID of a file's meta information; empty when unreadable."""
    start = 132 if head[128:132] == b"DICM" else 0
    try:
        meta = read_dataset(
            io.BytesIO(head[start:]),
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        )
        uids = (
            str(meta.get("MediaStorageSOPClassUID", "")),
            str(meta.get("MediaStorageSOPInstanceUID", "")),
        )
    except Exception:  # pydicom raises many kinds on hostile bytes
        return "", ""
    return uids if all(map(is_uid, uids)) else ("", "")
