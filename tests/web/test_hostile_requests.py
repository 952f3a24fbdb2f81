"""Requests that mean harm: too long, too slow, too many, malformed, leading elsewhere."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from cbmir_node.cli import main
from cbmir_node.config import HttpSettings
from cbmir_node.presence import make_data_folder
from cbmir_node.web import health, pages
from cbmir_node.web.dicomweb import dicom_json
from cbmir_node.web.dicomweb.retrieve import object_headers
from cbmir_node.web.safety import response_bodies
from cbmir_node.web.safety.response_bodies import ResponseBodies
from cbmir_node.web.server import HttpServer
from tests.dicom.peers import until
from tests.objects import make_object, write
from tests.web.conftest import WebNode
from tests.web.wire import connect, read_all, read_response, status, talk

MIB = 2**20
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty(start_web: Callable[..., WebNode]) -> Iterator[WebNode]:
    """Start a node that waits for half a second and takes 1 MiB and eight connections."""
    limits = {"request_timeout_s": 0.5, "max_connections": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cbmir_node.web.safety.request_bodies._DRAIN_S", 0.3)
        yield start_web(max_request_mib=2, max_example_mib=1, **limits)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *headers, b"", body])


def is_problem(answer: bytes, number: int) -> bool:
    """Tell whether an answer is a whole problem of this status on a connection that ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (
        status(answer) == number
        and b"content-type: application/problem+json" in head
        and b"connection: close" in head
        and b"x-content-type-options: nosniff" in head
        and b'"status": %d' % number in body
        and b"content-length: %d\r\n" % len(body) in head + b"\r\n"
    )


# bodies


@pytest.mark.parametrize(
    ("path", "limit"), [(b"/login", MIB), (b"/api/examples", MIB), (b"/dicom-web/studies", 2 * MIB)]
)
def test_a_body_announced_as_too_long_is_not_read(hasty: WebNode, path: bytes, limit: int) -> None:
    with connect(hasty.port) as connection:
        length = b"Content-Length: %d" % (limit + 1)
        connection.sendall(request(b"POST " + path + b" HTTP/1.1", length, b"Expect: 100-continue"))
        answer = read_response(connection)
    assert is_problem(answer, 413)
    assert b"%d MiB" % (limit // MIB) in answer


def test_a_body_that_grows_too_long_is_refused_and_the_client_sees_it(
    hasty: WebNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmir_node.web.safety.request_bodies._DRAIN_S", 10.0)
    part = b"%x\r\n%b\r\n" % (65536, b" " * 65536)
    chunked = b"Transfer-Encoding: chunked"
    head = request(b"POST /login HTTP/1.1", chunked, b"Content-Type: application/json")
    answer = talk(hasty.port, head + part * 200 + b"0\r\n\r\n")  # sent to the end, come what may
    assert is_problem(answer, 413)


def test_a_client_that_falls_silent_within_a_body_is_sent_away(hasty: WebNode) -> None:
    head = request(b"POST /login HTTP/1.1", b"Content-Length: 100", JSON.strip())
    assert is_problem(talk(hasty.port, head + b'{"name":'), 408)


def test_a_client_that_trickles_a_body_is_sent_away(hasty: WebNode) -> None:
    with connect(hasty.port) as connection:
        connection.sendall(request(b"POST /login HTTP/1.1", b"Content-Length: 1000", JSON.strip()))
        began = time.monotonic()
        try:
            while time.monotonic() < began + 8:  # each pause is short enough, all are too long
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() < began + 8
        assert is_problem(read_all(connection), 408)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip"])
def test_a_compressed_body_is_refused(web: WebNode, encoding: bytes) -> None:
    headers = (b"Content-Length: 2", b"Content-Encoding: " + encoding)
    answer = talk(web.port, request(b"POST /login HTTP/1.1", *headers, body=b"{}"))
    assert is_problem(answer, 415)


def test_requests_cannot_be_smuggled_in_bodies(web: WebNode) -> None:
    both = (b"Content-Length: 4", b"Transfer-Encoding: chunked")
    answer = talk(web.port, request(b"POST /login HTTP/1.1", *both, body=b"0\r\n\r\nGET / "))
    assert is_problem(answer, 400)
    twice = (b"Content-Length: 4", b"Content-Length: 5")
    assert is_problem(talk(web.port, request(b"POST /login HTTP/1.1", *twice)), 400)


# heads


def test_heads_that_trickle_in_are_sent_away(hasty: WebNode) -> None:
    slow = []
    for number in range(6):
        slow.append(connect(hasty.port))
        slow[-1].sendall(b"GET /healthz HTTP/1.1\r\nX-%d: " % number)
    with hasty.client() as client:
        assert client.get("/healthz").status_code == 200  # others are served meanwhile
    for connection in slow:
        with connection:
            assert is_problem(read_all(connection), 408)


def test_idle_connections_are_closed(hasty: WebNode) -> None:
    assert talk(hasty.port, b"") == b""  # silent from the start
    answer = talk(hasty.port, request(b"GET /healthz HTTP/1.1"))  # and after a response
    assert status(answer) == 200


def test_a_client_that_does_not_read_is_sent_away() -> None:
    app = FastAPI()

    @app.get("/long")
    def long() -> StreamingResponse:
        return StreamingResponse(bytes(65536) for _ in range(1000))

    server = HttpServer(HttpSettings(port=0, request_timeout_s=0.5), app)
    server.start()
    held = server._server.server_state.connections
    with connect(server.port) as connection:
        connection.sendall(request(b"GET /long HTTP/1.1"))
        until(lambda: len(held) == 1)
        until(lambda: not held)  # although nothing was read
    server.stop()


def test_a_slow_client_gets_a_large_answer_whole() -> None:
    app = FastAPI()
    app.add_middleware(ResponseBodies)
    body = bytes(3 * MIB)
    app.get("/large")(lambda: Response(body))
    server = HttpServer(HttpSettings(port=0, request_timeout_s=0.5), app)
    server.start()
    received, began = 0, time.monotonic()
    with connect(server.port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(request(b"GET /large HTTP/1.1", b"Connection: close"))
        while part := connection.recv(65536):
            received += len(part)
            time.sleep(0.02)
    server.stop()
    assert received > len(body)
    assert time.monotonic() - began > 0.8  # longer than the client may stand still


def test_few_large_answers_wait_in_memory_for_their_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(response_bodies, "_MOST_BYTES", 40 * MIB)
    monkeypatch.setattr(response_bodies, "_PATIENCE_S", 0.2)
    app = FastAPI()
    app.add_middleware(ResponseBodies)
    app.get("/large")(lambda: StreamingResponse(iter([bytes(16 * MIB), b"end"])))
    app.get("/small")(lambda: "small")
    server = HttpServer(HttpSettings(port=0), app)
    server.start()
    ask = request(b"GET /large HTTP/1.1", b"Connection: close")
    held = [connect(server.port) for _ in range(2)]
    for connection in held:
        connection.sendall(ask)
        assert status(connection.recv(100)) == 200
    refused = talk(server.port, ask)
    assert status(refused) == 503
    assert b"retry-after: 5" in refused
    assert b"too many large answers" in refused
    assert status(talk(server.port, ask.replace(b"large", b"small"))) == 200
    assert read_all(held[0]).endswith(b"end\r\n0\r\n\r\n")
    held[1].close()  # unread
    until(lambda: status(talk(server.port, ask)) == 200)
    server.stop()
    for connection in held:
        connection.close()


def test_a_sign_of_life_needs_no_thread(web: WebNode) -> None:
    app = FastAPI()
    app.include_router(health.router(web.services.health))
    over, busy = threading.Event(), threading.Semaphore(0)

    @app.get("/block")
    def block() -> None:
        busy.release()
        over.wait(20)

    server = HttpServer(HttpSettings(port=0), app)
    server.start()
    held = [connect(server.port) for _ in range(45)]
    for connection in held:
        connection.sendall(request(b"GET /block HTTP/1.1"))
    for _ in range(40):  # as many threads as there are
        assert busy.acquire(timeout=10)
    answer = talk(server.port, request(b"GET /healthz HTTP/1.1", b"Connection: close"))
    over.set()
    assert status(answer) == 200
    for connection in held:
        connection.close()
    server.stop()


def test_there_are_so_many_connections_and_no_more(hasty: WebNode) -> None:
    known = hasty.node.http._server.server_state.connections
    until(lambda: not known)
    held = [connect(hasty.port) for _ in range(8)]
    until(lambda: len(known) == 8)
    assert is_problem(talk(hasty.port, b""), 503)
    for connection in held:
        connection.close()
    until(lambda: not known)
    assert status(talk(hasty.port, request(b"GET /healthz HTTP/1.1"))) == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        request(b"GET /healthz HTTP/1.1", b"X: " + b"a" * 40000),
        request(b"GET /healthz HTTP/1.1", *[b"X: y"] * 20000),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000,  # never ends
        request(b"POST /login HTTP/1.1", b"Transfer-Encoding: chunked", body=b"0\r\nX: ")
        + b"a" * 40000,  # a trailer that never ends
    ],
)
def test_heads_that_are_too_long_are_refused(web: WebNode, head: bytes) -> None:
    assert is_problem(talk(web.port, head), 431)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS on a port without
        b"GET / HTTP/3.7\r\n\r\n",
        b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX y: z\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_proper_http_is_refused(web: WebNode, head: bytes) -> None:
    assert is_problem(talk(web.port, head), 400)


def test_upgrades_are_ignored(web: WebNode) -> None:
    asked = (b"Upgrade: websocket", b"Connection: Upgrade")
    with connect(web.port) as connection:
        connection.sendall(request(b"GET /healthz HTTP/1.1", *asked))
        assert status(connection.recv(65536)) == 200


# paths


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pages.py",
        "/static/..%2fpages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%5cpages.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/style.css%00.js",
        "/static/.",
        "/static/",
        "/static/__pycache__",
        "/../../etc/passwd",
    ],
)
def test_paths_lead_to_the_pages_files_only(web: WebNode, path: str) -> None:
    answer = talk(web.port, request(f"GET {path} HTTP/1.1".encode(), b"Connection: close"))
    assert status(answer) == 404
    assert b"application/problem+json" in answer


def test_files_that_are_no_part_of_the_page_are_not_served(
    web: WebNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "new.js").write_text("export {};")
    (tmp_path / "folder.js").mkdir()
    monkeypatch.setattr(pages, "_FOLDER", tmp_path)
    with web.client() as client:
        assert client.get("/static/secret.txt").status_code == 404
        assert client.get("/static/folder.js").status_code == 404
        assert client.get("/static/new.js").text == "export {};"
        assert client.get("/").status_code == 404


def test_files_are_asked_for_again_and_not_sent_again(web: WebNode) -> None:
    with web.client() as client:
        first = client.get("/static/style.css")
        assert first.headers["content-type"] == "text/css; charset=utf-8"
        assert first.headers["cache-control"] == "no-cache"
        etag = first.headers["etag"]
        again = client.get("/static/style.css", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")


# objects


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF])
@pytest.mark.parametrize("number", [400, 1001])
def test_metadata_of_very_many_items_are_refused(
    web: WebNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int | None, number: int
) -> None:
    for room in (dicom_json, object_headers):
        monkeypatch.setattr(room, "MOST_ELEMENTS", 1000)
    monkeypatch.setattr(object_headers, "_MOST_READS", 2000)
    dataset = make_object()
    whole = write(dataset, tmp_path / "object.dcm").read_bytes()
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * number
    head = struct.pack("<HH2sHL", 0x5400, 0x0100, b"SQ", 0, length or len(items))
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if length else b""
    pixels = whole.rindex(b"\xe0\x7f\x10\x00")
    body = whole[:pixels] + head + items + end + whole[pixels:]
    with web.client() as client:
        headers = {"Content-Type": "application/dicom"}
        stored = client.post("/dicom-web/studies", content=body, headers=headers)
        assert stored.status_code == 200
        answer = client.get(f"/dicom-web/studies/{dataset.StudyInstanceUID}/metadata")
    if number == 400:
        assert len(answer.json()[0]["54000100"]["Value"]) == number
    else:
        assert answer.status_code == 400
        assert "more than 1000 elements" in answer.json()["detail"]


# headers


def test_every_response_tells_browsers_what_not_to_do(web: WebNode) -> None:
    with web.client() as client:
        answers = [
            client.get("/"),
            client.get("/api/node"),
            client.get("/nothing"),
            client.get("/healthz", headers={"Host": "rebound.example"}),
            client.post("/login", content=b"{}", headers={"Content-Encoding": "gzip"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 421, 415]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "server" not in headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    assert answers[0].headers["cache-control"] == "no-cache"
    assert {answer.headers["cache-control"] for answer in answers[1:]} == {"no-store"}
    assert "script-src 'self'" in answers[0].headers["content-security-policy"]
    assert "sandbox" in answers[1].headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/dicom-web/studies?%22x%0d%0aX-Evil:1=2&%F0%9F%98%80=1",
        "/dicom-web/studies?similar-to=%0d%0aX-Evil:1",
        "/dicom-web/studies/1%0d%0aX-Evil:1/metadata",
        "/api/images/1%0d%0aX-Evil:1/frames/1/thumbnail",
        "/static/%0d%0aX-Evil:1",
    ],
)
def test_what_is_asked_for_cannot_break_a_header(web: WebNode, path: str) -> None:
    answer = talk(web.port, request(f"GET {path} HTTP/1.1".encode(), b"Connection: close"))
    assert status(answer) in {200, 400, 404}
    assert b"\nx-evil" not in answer.lower()


# the way the port is opened


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "192.0.2.1", "::", "node.example", "127.0.0.1.example"]
)
def test_strangers_are_not_let_in_by_a_forgotten_setting(tmp_path: Path, host: str) -> None:
    environment = {"CBMIR_HTTP__HOST": host}
    words = ["serve", "--data-dir", str(tmp_path / "data"), "--http-port", "0"]
    result = CliRunner().invoke(main, words, env=environment)
    assert result.exit_code == 1
    assert f"{host} is not loopback; configure http.users or http.tokens first" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_new_data_folder_is_its_users_only(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "old").mkdir(mode=0o755)
    make_data_folder(tmp_path / "old")
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o755
