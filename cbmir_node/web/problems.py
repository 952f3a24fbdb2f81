"""Every error over HTTP as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from cbmir_node import errors

PROBLEM_TYPE = "application/problem+json"

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A problem as in RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "always about:blank"},
        "title": {"type": "string", "description": "what kind of problem it is"},
        "status": {"type": "integer", "description": "the HTTP status"},
        "detail": {"type": "string", "description": "what is wrong, and what to do"},
        "field": {"type": "string", "description": "the part of the request at fault"},
    },
}
"""JSON Schema of every error's body."""

PROBLEM_CONTENT: dict[str, Any] = {PROBLEM_TYPE: {"schema": PROBLEM_SCHEMA}}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem (RFC 9457)", "content": PROBLEM_CONTENT}
}
"""What the OpenAPI description says of every operation's errors."""

_STATUS_OF_ERROR: dict[type[errors.CbmirError], int] = {
    errors.UnknownExampleError: 404,
    errors.NotEmbeddedError: 409,
    errors.QueryError: 400,
    errors.SelectionError: 404,
    errors.UploadError: 400,
    errors.InvalidObjectError: 400,
    errors.RejectedObjectError: 409,
    errors.NotKeptError: 410,
    errors.PixelError: 422,
    errors.DecoderUnavailableError: 503,
    errors.BusyError: 503,
    errors.NotAuthorizedError: 403,
    errors.OutOfSpaceError: 507,
    errors.CatalogError: 503,
    errors.ModelError: 503,
    errors.PeerError: 502,
}
"""The kinds that are a caller's business; any other is the node's own failure."""

_DETAIL_OF_STATUS = {
    404: "there is nothing at this address; /openapi.json lists what there is",
    405: "this address does not take the method; see Allow",
}
"""What to say where the framework says no more than the status."""

NO_CATALOG = "the catalogue does not answer; try again, the node's log tells why"
"""In place of messages for an operator, which name files and hosts of the node."""

_PASSING = (errors.BusyError, errors.DecoderUnavailableError, errors.CatalogError)
_RETRY_AFTER_S = 5

_INTERNAL = "the node failed; its log tells why"

_log = logging.getLogger(__name__)


class Problem(HTTPException):
    """A request that cannot be answered, for what is not in `cbmir_node.errors`.

    Parameters
    ----------
    status : int
        Of the response.
    detail : str
        What is wrong and what to do, for a person.
    title : str
        Kind of problem; the status' own phrase unless given.
    headers : mapping, optional
        More headers of the response.
    field : str
        The part of the request at fault.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        title: str = "",
        headers: Mapping[str, str] | None = None,
        field: str = "",
    ) -> None:
        super().__init__(status, detail, headers)
        self.title = title
        self.field = field


def problem_response(problem: HTTPException) -> Response:
    """Return the response that tells a problem."""
    status = problem.status_code
    phrase = http.HTTPStatus(status).phrase
    detail = problem.detail
    if detail == phrase:
        detail = _DETAIL_OF_STATUS.get(status, phrase)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": getattr(problem, "title", "") or phrase,
        "status": status,
        "detail": detail,
    }
    if field := getattr(problem, "field", ""):
        body["field"] = field
    return Response(
        json.dumps(body).encode(),
        status,
        headers=dict(problem.headers or {}),
        media_type=PROBLEM_TYPE,
    )


def problem_of(error: Exception) -> HTTPException:
    """Return how an error is told; one that the caller cannot mend is logged and told without why.

    Parameters
    ----------
    error : Exception
        Of any kind.
    """
    match error:
        case HTTPException():
            return error
        case RequestValidationError():
            return _invalid(error)
        case errors.CbmirError():
            for kind in type(error).__mro__:
                if status := _STATUS_OF_ERROR.get(kind):
                    return _known(error, status)
    _log.error("a request over HTTP failed", exc_info=error)
    return Problem(500, _INTERNAL)


def _known(error: errors.CbmirError, status: int) -> Problem:
    detail = str(error)
    if isinstance(error, errors.CatalogError):
        _log.error("a request over HTTP failed: %s", error)
        detail = NO_CATALOG
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if isinstance(error, _PASSING) else None
    return Problem(status, detail, headers=headers, field=getattr(error, "field", ""))


def _invalid(error: RequestValidationError) -> Problem:
    """Name the first finding; values are left out, as they may be a patient's or a password."""
    finding = error.errors()[0]
    place, *path = [str(part) for part in finding["loc"]] or [""]
    field = ".".join(path)
    message = str(finding["msg"]).removeprefix("Value error, ")
    return Problem(400, f"{field or place}: {message}", field=field)


def tell_problems(app: FastAPI) -> None:
    """Let an application answer every error of its routes with a problem."""

    async def answer(_request: Request, error: Exception) -> Response:
        return problem_response(problem_of(error))

    for kind in (HTTPException, RequestValidationError, errors.CbmirError):
        app.add_exception_handler(kind, answer)
