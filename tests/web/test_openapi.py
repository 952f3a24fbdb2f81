"""The OpenAPI description is complete, and what it describes is what happens (schemathesis).

Every operation gets requests by its description and requests that break it; half of them name what
the node really has. The examples are the same at each run. ``CBMIR_FUZZ_EXAMPLES`` sets how many
each operation gets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, SerializationContext
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cbmir_node.web.problems import PROBLEM_TYPE
from tests.objects import make_object
from tests.web.conftest import WebNode
from tests.web.dicomweb.uploading import DICOM, TYPE, encoded, related

EXAMPLES = int(os.environ.get("CBMIR_FUZZ_EXAMPLES", "6"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FILE = encoded(make_object())
OPEN = {"/login", "/logout", "/healthz", "/readyz"}


@schemathesis.serializer(DICOM, "application/octet-stream", "image/png", "image/jpeg")
def damaged_file(_context: SerializationContext, value: Any) -> dict[str, Any]:
    """Send a DICOM file that is damaged somewhere in its header."""
    return {"data": _damaged(value)}


@schemathesis.serializer("multipart/related")
def damaged_files(_context: SerializationContext, value: Any) -> dict[str, Any]:
    return {"data": related(_damaged(value), FILE), "headers": {"Content-Type": TYPE}}


def _damaged(value: Any) -> bytes:
    noise = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
    start = 132 + len(noise) * 37 % 400
    return FILE[:start] + noise + FILE[start + len(noise) :]


@pytest.fixture(scope="module")
def description(web: WebNode) -> dict[str, Any]:
    with web.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").raise_for_status().json()
    return found


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def resolved(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema itself where it is a reference."""
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    found: dict[str, Any] = description["components"]["schemas"][name] if name else schema
    return found


def unbounded(description: dict[str, Any], schema: dict[str, Any], place: str) -> Iterator[str]:
    """Yield where a schema lets in texts, lists or numbers of any size."""
    schema = resolved(description, schema)
    for alternative in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from unbounded(description, alternative, place)
    if "enum" in schema or "const" in schema:
        return
    match schema.get("type"):
        case "string":
            if not {"maxLength", "pattern", "format"} & set(schema):
                yield f"{place}: text of any length"
        case "integer" | "number":
            if not ({"minimum", "exclusiveMinimum"} & set(schema) and "maximum" in schema):
                yield f"{place}: any number"
        case "array":
            if "maxItems" not in schema:
                yield f"{place}: a list of any length"
            yield from unbounded(description, schema["items"], f"{place}[]")
        case "object":
            for name, one in schema.get("properties", {}).items():
                yield from unbounded(description, one, f"{place}.{name}")
            more = schema.get("additionalProperties", False)
            if isinstance(more, dict):
                yield from unbounded(description, more, f"{place}.*")
        case None if not {"anyOf", "oneOf"} & set(schema):
            yield f"{place}: anything"


def test_every_operation_is_described(description: dict[str, Any]) -> None:
    lacking = []
    named = [operation["operationId"] for _, operation in operations(description)]
    assert len(named) == len(set(named)) >= 40
    for name, operation in operations(description):
        if not operation.get("tags") or len(operation["summary"].split()) < 2:
            lacking.append(f"{name}: tag or summary")
        if ("security" in operation) == (name.partition(" ")[2] in OPEN):
            lacking.append(f"{name}: who may use it")
        for one in operation.get("parameters", []):
            if not one.get("description"):
                lacking.append(f"{name}: what {one['name']} means")
        if name.startswith(("POST", "PUT")) and "requestBody" in operation:
            assert operation["requestBody"]["content"], name
    assert lacking == []


def test_every_error_is_a_problem(description: dict[str, Any]) -> None:
    with_reports = {"409", "507"}  # STOW-RS tells there what became of each instance
    for name, operation in operations(description):
        assert "default" in operation["responses"], name
        for status, response in operation["responses"].items():
            if status == "default" or status.startswith("4"):
                media_types = set(response["content"])
                storing = name.startswith("POST /dicom-web/studies") and status in with_reports
                assert media_types == {PROBLEM_TYPE} or storing, (name, status)


def test_whatever_is_sent_has_bounds(description: dict[str, Any]) -> None:
    found = []
    for name, operation in operations(description):
        for one in operation.get("parameters", []):
            found += unbounded(description, one["schema"], f"{name} {one['name']}")
        body = operation.get("requestBody", {}).get("content", {})
        if "application/json" in body:
            found += unbounded(description, body["application/json"]["schema"], name)
    assert found == []


def test_what_is_described_is_what_happens(web: WebNode, description: dict[str, Any]) -> None:
    session = requests.Session()
    session.trust_env = False
    known = _known(web, session)
    schema = schemathesis.openapi.from_dict(description)
    failures = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=_cases(operation), real=st.booleans())
        def fuzz(case: schemathesis.Case, real: bool) -> None:
            if real and case.path_parameters and case.method != "DELETE":
                names = set(case.path_parameters) & set(known)
                case.path_parameters.update({name: known[name] for name in names})
            response = case.call(base_url=web.url, session=session, timeout=30)
            case.validate_response(response, checks=CHECKS)

        try:
            fuzz()
        except (FailureGroup, AssertionError) as failure:
            failures.append(f"{operation.label}: {failure!r}")
    assert not failures, "\n\n".join(failures)


def _cases(operation: schemathesis.APIOperation) -> st.SearchStrategy[schemathesis.Case]:
    by_description = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not (operation.query or operation.path_parameters or operation.body):
        return by_description
    return by_description | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def _known(web: WebNode, session: requests.Session) -> dict[str, str]:
    """Return values of path parameters that name what is in the node."""
    one = web.objects[7]
    dropped = session.post(f"{web.url}/api/examples", data=FILE, timeout=30)
    dropped.raise_for_status()
    return {
        "study": one.StudyInstanceUID,
        "series": one.SeriesInstanceUID,
        "instance": one.SOPInstanceUID,
        "sop_instance_uid": one.SOPInstanceUID,
        "series_instance_uid": one.SeriesInstanceUID,
        "uid": one.StudyInstanceUID,
        "frames": "1",
        "token": dropped.json()["token"],
    }
