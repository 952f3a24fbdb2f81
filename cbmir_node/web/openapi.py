"""The OpenAPI description, completed by what holds for every operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cbmir_node.web.problems import PROBLEM_CONTENT

_INTRODUCTION = (
    "Similar cases, DICOMweb (PS3.18) and what the page asks for. Every error is a problem as in "
    "RFC 9457. On loopback nobody has to log in unless users or tokens are configured."
)
_NOT_UNDERSTOOD = {400: "A parameter or the body cannot be read; the problem names it"}
_NOT_FOUND = {404: "The node does not have what the path names"}
_BODY_REFUSED = {
    408: "The body stopped coming",
    413: "The body is too large",
    415: "The body is of another media type, or encoded",
}
_NOT_ALLOWED = {
    401: "The caller is not known: log in, or send a token",
    403: "The caller lacks the right, or the request comes from another site",
}

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
"""Content of a body that is a file."""


def file_body(meaning: str, media_types: Sequence[str]) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that reads files from the stream itself.

    Parameters
    ----------
    meaning : str
        What to send.
    media_types : sequence of str
        What it may be sent as.
    """
    content = dict.fromkeys(media_types, BINARY)
    return {"requestBody": {"required": True, "description": meaning, "content": content}}


def description(app: FastAPI) -> dict[str, Any]:
    """Return the description of all operations of an application (OpenAPI 3.1).

    Summaries are the first sentences of the operations' docstrings.
    """
    described = get_openapi(
        title=app.title, version=app.version, description=_INTRODUCTION, routes=app.routes
    )
    for operations in described["paths"].values():
        for operation in operations.values():
            _complete(operation)
    return described


def _complete(operation: dict[str, Any]) -> None:
    first, _, rest = operation["description"].partition("\n")
    operation["summary"] = first.rstrip(".")
    operation["description"] = rest.strip() or first
    responses = operation["responses"]
    for status, meaning in _errors(operation).items():
        responses.setdefault(str(status), {"description": meaning})
    for status, response in responses.items():
        if status.startswith(("4", "5")):
            response.setdefault("content", PROBLEM_CONTENT)


def _errors(operation: dict[str, Any]) -> dict[int, str]:
    """Return the errors that an operation may have by its nature."""
    parameters = operation.get("parameters", [])
    body = "requestBody" in operation
    return {
        **(_NOT_UNDERSTOOD if parameters or body else {}),
        **(_NOT_FOUND if any(one["in"] == "path" for one in parameters) else {}),
        **(_BODY_REFUSED if body else {}),
        **(_NOT_ALLOWED if "security" in operation else {}),
    }
