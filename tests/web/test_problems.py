"""One shape for every error, and no more told than the caller can use."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from cbmir_node import errors
from cbmir_node.config import HttpSettings
from cbmir_node.web.problems import PROBLEM_SCHEMA, Problem, problem_of, tell_problems
from cbmir_node.web.safety.response_headers import ResponseHeaders
from cbmir_node.web.server import HttpServer
from tests.web.conftest import WebNode


class Patient(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Serve routes that fail in every way."""
    app = FastAPI()
    tell_problems(app)
    app.add_middleware(ResponseHeaders)

    @app.get("/query")
    def query() -> None:
        raise errors.QueryError("k must be 1 to 200", "k")

    @app.get("/unexpected")
    def unexpected() -> None:
        raise ZeroDivisionError("Doe^Jane /srv/dicom")

    @app.get("/own")
    def own() -> None:
        raise errors.ArchiveError("/srv/dicom is not there")

    @app.get("/problem")
    def problem() -> None:
        raise Problem(406, "ask for image/jpeg", "No such picture", {"Vary": "Accept"}, "accept")

    @app.get("/broken")
    def broken() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"one"
            raise errors.PixelError("two")

        return StreamingResponse(parts(), headers={"Content-Length": "6"})

    @app.post("/patient")
    def patient(patient: Patient) -> None:
        pass

    server = HttpServer(HttpSettings(port=0), app)
    server.start()
    url = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as opened:
        yield opened
    server.stop()


def test_a_problem_has_the_members_of_rfc_9457(client: httpx.Client) -> None:
    answer = client.get("/query")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "k must be 1 to 200",
        "field": "k",
    }
    assert set(answer.json()) <= set(PROBLEM_SCHEMA["properties"])
    told = client.get("/problem")
    assert told.json()["title"] == "No such picture"
    assert (told.json()["field"], told.headers["vary"]) == ("accept", "Accept")
    for missing, status in [("/nothing", 404), ("/patient", 405)]:
        answer = client.get(missing)
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "POST"
    assert "see Allow" in answer.json()["detail"]


def test_what_the_catalogue_says_is_for_its_operator(caplog: pytest.LogCaptureFixture) -> None:
    told = problem_of(errors.CatalogError("cannot open /srv/dicom/catalog.sqlite"))
    assert (told.status_code, "srv" in told.detail) == (503, False)
    assert dict(told.headers or {}) == {"Retry-After": "5"}
    assert "/srv/dicom" in caplog.text


@pytest.mark.parametrize("path", ["/unexpected", "/own"])
def test_the_nodes_own_failures_stay_in_its_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 500
    assert answer.json()["detail"] == "the node failed; its log tells why"
    assert "srv" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "/srv/dicom" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Doe^Jane", "age": "SECRET"}, "age"),
        ({"age": 3}, "name"),
        (["SECRET"], ""),
        (None, ""),
    ],
)
def test_a_wrong_body_is_explained_without_repeating_it(
    client: httpx.Client, body: object, field: str
) -> None:
    answer = client.post("/patient", json=body)
    assert answer.status_code == 400
    assert answer.json().get("field", "") == field
    assert "SECRET" not in answer.text


def test_a_broken_body_is_a_problem_too(client: httpx.Client) -> None:
    answer = client.post(
        "/patient", content=b'{"name": "\xff', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def kinds() -> list[type[errors.CbmirError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(found) > 20
    return found


def test_every_error_has_its_status() -> None:
    told = {kind.__name__: problem_of(kind("what to do")).status_code for kind in kinds()}
    own = {name for name, status in told.items() if status == 500}
    assert own == {
        "CbmirError",
        "ConfigurationError",
        "MissingPackageError",
        "ArchiveError",
        "SnapshotError",
    }
    for name, status in {
        "UnknownExampleError": 404,
        "NotEmbeddedError": 409,
        "NoExampleError": 400,
        "NotKeptError": 410,
        "DecoderDiedError": 422,
        "IdentifierError": 400,
        "OutOfSpaceError": 507,
        "RejectedObjectError": 409,
        "PeerUnreachableError": 502,
    }.items():
        assert told[name] == status, name


def test_a_response_that_breaks_off_is_seen_to(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/broken")
    assert "a response over HTTP broke off" in caplog.text


def test_the_description_names_the_shape_of_errors(web: WebNode) -> None:
    with web.client() as opened:
        description = opened.get("/openapi.json").json()
    responses = description["paths"]["/metrics"]["get"]["responses"]
    assert responses["default"]["content"]["application/problem+json"]["schema"] == PROBLEM_SCHEMA
    assert "422" not in responses
