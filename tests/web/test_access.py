"""Who may do what: tokens, logins, rights, and pages of other origins."""

from __future__ import annotations

import re
import ssl
import subprocess
import tomllib
from collections.abc import Callable, Iterator

import httpx
import pytest
from click.testing import CliRunner
from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts

from cbmir_node.cli import main
from cbmir_node.config import HttpSettings, TokenSettings
from cbmir_node.errors import ConfigurationError
from cbmir_node.web.access.attempts import LoginAttempts
from cbmir_node.web.access.authentication import OPEN_PATHS
from cbmir_node.web.access.origins import client_address
from cbmir_node.web.access.passwords import hash_password, is_password
from cbmir_node.web.access.sessions import Sessions
from cbmir_node.web.access.tokens import new_token, token_sha256
from cbmir_node.web.app import create_app
from cbmir_node.web.server import HttpServer
from tests.conftest import needs_program
from tests.dicom.peers import until
from tests.web.conftest import WebNode, quick_hash
from tests.web.wire import connect, talk

PASSWORD = "correct horse battery"
READER, ADMINISTRATOR, NOBODY = new_token(), new_token(), new_token()
VIEWER = "https://viewer.example"
ELSEWHERE = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}


@pytest.fixture(scope="module")
def guarded(start_web: Callable[..., WebNode]) -> WebNode:
    """Start a node with users and tokens."""
    kept = quick_hash(PASSWORD)
    return start_web(
        names=["node.example"],
        allowed_origins=[VIEWER],
        users={
            "ann": {"password_hash": kept, "rights": ["read", "store"]},
            "bob": {"password_hash": kept},
        },
        tokens={
            "reader": {"sha256": token_sha256(READER)},
            "administrator": {"sha256": token_sha256(ADMINISTRATOR), "rights": ["administer"]},
            "nobody": {"sha256": token_sha256(NOBODY), "rights": []},
        },
    )


@pytest.fixture
def stranger(guarded: WebNode) -> Iterator[httpx.Client]:
    with guarded.client() as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def log_in(client: httpx.Client, name: str = "ann", password: str = PASSWORD) -> httpx.Response:
    return client.post("/login", json={"name": name, "password": password})


def operations(web: WebNode) -> list[tuple[str, str]]:
    """Return method and path of each operation, with something in place of the parameters."""
    found = []
    for route in iter_route_contexts(create_app(web.services).routes):
        path = re.sub(r"\{[^}]+\}", "1", str(route.path))
        found += [(method, path) for method in route.methods or ()]
    assert len(found) > 10
    return found


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/static/")


def test_strangers_get_the_page_without_data_and_signs_of_life(stranger: httpx.Client) -> None:
    for path in ("/", "/login", "/static/style.css", "/healthz"):
        assert stranger.get(path).status_code == 200, path
    assert stranger.get("/readyz").json() == {"status": "ready"}
    assert "problems" in stranger.get("/readyz", headers=bearer(READER)).json()


def test_every_other_operation_refuses_strangers_and_callers_without_rights(
    guarded: WebNode, stranger: httpx.Client
) -> None:
    for method, path in operations(guarded):
        if is_open(path):
            continue
        refused = stranger.request(method, path)
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"] == "Bearer"
        told = stranger.request(method, path, headers=bearer(NOBODY)).status_code
        # leaving is open to whoever is known
        assert told == (204 if path == "/logout" else 403), (method, path)


def test_an_unknown_path_is_no_different_for_strangers(stranger: httpx.Client) -> None:
    for path in ("/nothing", "/api/nothing", "/dicom-web/", "/static"):
        assert stranger.get(path).status_code == 401, path
        assert stranger.get(path, headers=bearer(READER)).status_code == 404, path


def test_a_right_does_not_imply_another(stranger: httpx.Client) -> None:
    assert stranger.get("/metrics", headers=bearer(READER)).status_code == 200
    refused = stranger.get("/metrics", headers=bearer(ADMINISTRATOR))
    assert refused.status_code == 403
    assert "administrator lacks the right to read" in refused.json()["detail"]


def test_who_may_only_administer_sees_the_administration(stranger: httpx.Client) -> None:
    headers = bearer(ADMINISTRATOR)
    assert stranger.get("/api/administration", headers=headers).status_code == 200
    assert stranger.get("/api/node", headers=headers).json()["user"]["name"] == "administrator"
    assert stranger.get("/dicom-web/studies", headers=headers).status_code == 403
    assert stranger.get("/api/administration", headers=bearer(READER)).status_code == 403


@pytest.mark.parametrize(
    "value",
    ["Bearer", f"Basic {READER}", f"Bearer {READER}x", "Bearer ünknöwn", READER],
    ids=["no token", "another scheme", "a letter more", "not ASCII", "no scheme"],
)
def test_what_is_no_known_token_is_refused(stranger: httpx.Client, value: str) -> None:
    headers = {"Authorization": value.encode("latin-1")}
    assert stranger.get("/metrics", headers=headers).status_code == 401


def test_a_person_logs_in_and_out(guarded: WebNode, stranger: httpx.Client) -> None:
    assert stranger.get("/metrics").status_code == 401
    answer = log_in(stranger)
    assert (answer.status_code, answer.content) == (204, b"")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"^cbmir_session=[\w-]{43}; HttpOnly; Path=/; SameSite=strict$", cookie)
    assert stranger.get("/metrics").status_code == 200
    stolen = dict(stranger.cookies)
    token = csrf_token(guarded, stranger)
    assert stranger.post("/logout", headers={"X-CSRF-Token": token}).status_code == 204
    assert stranger.get("/metrics", headers={"Cookie": str(stolen)}).status_code == 401
    with guarded.client(cookies=stolen) as thief:
        assert thief.get("/metrics").status_code == 401


def csrf_token(guarded: WebNode, client: httpx.Client) -> str:
    return str(client.get("/api/node").json()["csrf_token"])


def test_behind_a_tls_proxy_the_cookie_stays_under_tls(stranger: httpx.Client) -> None:
    page = {"Host": "node.example", "Origin": "https://node.example"}
    headers = {**page, "X-Forwarded-Proto": "https"}
    answer = stranger.post("/login", json={"name": "ann", "password": PASSWORD}, headers=headers)
    assert "; Secure" in answer.headers["set-cookie"]


def test_unsafe_requests_of_a_session_carry_its_token(
    guarded: WebNode, stranger: httpx.Client
) -> None:
    log_in(stranger)
    token = csrf_token(guarded, stranger)
    for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": token[:-1]}):
        refused = stranger.post("/api/similar", json={}, headers=wrong)
        assert refused.status_code == 403
        assert "X-CSRF-Token" in refused.json()["detail"]
    assert stranger.post("/logout").status_code == 403
    accepted = stranger.post("/api/similar", json={}, headers={"X-CSRF-Token": token})
    assert accepted.status_code == 400  # it was read: it names no example
    by_token = {**bearer(READER), "Cookie": ""}
    assert httpx.post(f"{guarded.url}/api/similar", json={}, headers=by_token).status_code == 400


def test_wrong_passwords_and_unknown_users_look_the_same(stranger: httpx.Client) -> None:
    wrong = log_in(stranger, "bob", "wrong")
    unknown = log_in(stranger, "eve", "wrong")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.content == unknown.content
    assert "set-cookie" not in wrong.headers


def test_an_unknown_user_costs_the_time_of_a_known_one(
    guarded: WebNode, stranger: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def remember(password: str, password_hash: str) -> bool:
        compared.append(password_hash)
        return False

    monkeypatch.setattr("cbmir_node.web.access.login.is_password", remember)
    for name in ("bob", "mallory"):
        log_in(stranger, name, "wrong")
    unknown, usual = compared[1].split("$"), hash_password("x").split("$")
    assert unknown[:4] == usual[:4]
    assert [len(part) for part in unknown] == [len(part) for part in usual]


def test_guessing_is_slowed_down_but_not_for_others(stranger: httpx.Client) -> None:
    answers = [log_in(stranger, "bob", f"guess {number}") for number in range(5)]
    assert [answer.status_code for answer in answers][-1] == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert log_in(stranger, "bob").status_code == 429  # even the right one has to wait
    assert log_in(stranger, "ann").status_code == 204


def test_attempts_are_counted_by_address_and_in_bounded_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    attempts = LoginAttempts()
    assert [attempts.begin("10.0.0.1", "ann") for _ in range(4)] == [0, 0, 0, 1]
    assert attempts.begin("10.0.0.2", "ann") == 0
    for expected in (2, 4, 8, 16, 32, 60, 60):
        now += 60
        assert attempts.begin("10.0.0.1", "ann") == 0
        assert attempts.begin("10.0.0.1", "ann") == expected
    for number in range(1000):
        attempts.begin("10.0.0.1", f"made up {number}")
    assert attempts.begin("10.0.0.1", "ann") == 60  # they did not push the count out
    for number in range(20000):
        attempts.begin(f"10.1.{number // 250}.{number % 250}", "ann")
    assert len(attempts._failed) <= 10000
    now += 60
    attempts.succeeded("10.0.0.1", "ann")
    assert [attempts.begin("10.0.0.1", "ann") for _ in range(2)] == [0, 0]


def test_sessions_end_by_themselves_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sessions = Sessions(idle_s=100)
    ann = sessions.open("ann", frozenset({"read"}))
    now += 90
    assert sessions.caller(ann) is not None
    now += 90
    assert sessions.caller(ann) is not None  # it was used
    many = [sessions.open("bob", frozenset({"read"})) for _ in range(30)]
    assert sum(sessions.caller(token) is not None for token in many) == 20
    assert sessions.caller(ann) is not None
    for _ in range(900):
        now += 99
        sessions.caller(ann)
    assert sessions.caller(ann) is None  # a day is over, used or not
    bob = sessions.open("bob", frozenset({"read"}))
    now += 101
    assert sessions.caller(bob) is None
    assert sessions.caller("") is None


def test_a_success_under_another_name_clears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("cbmir_node.web.access.attempts._NAMES_OF_ONE_ADDRESS", 1)
    attempts = LoginAttempts()
    assert [attempts.begin("10.0.0.1", "ann") for _ in range(4)] == [0, 0, 0, 1]
    now += 60
    assert attempts.begin("10.0.0.1", "mallory") == 0
    attempts.succeeded("10.0.0.1", "mallory")
    assert [attempts.begin("10.0.0.1", "ann") for _ in range(2)] == [0, 2]
    now += 60
    attempts.begin("10.0.0.2", "ann")
    attempts.succeeded("10.0.0.2", "ann")
    assert [attempts.begin("10.0.0.2", "ann") for _ in range(4)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::1", ["198.51.100.7, 2001:db8::1"], "2001:db8::1"),  # the first is the caller's word
        ("127.0.0.1", ["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # no proxy of this machine
    ],
)
def test_behind_a_proxy_the_address_is_what_it_says(
    peer: str, told: list[str], address: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in told]
    request = Request({"type": "http", "client": (peer, 1), "headers": headers})
    assert client_address(request, HttpSettings(behind_proxy=True)) == address
    assert client_address(request, HttpSettings()) == peer


def test_passwords_are_compared_as_people_type_them() -> None:
    kept = quick_hash("Grüße 1234")
    assert is_password("Gru\u0308ße 1234", kept)
    assert not is_password("Gruße 1234", kept)
    assert kept != quick_hash("Grüße 1234")


@pytest.mark.parametrize(
    "name", ["node.example", "NODE.example:8080", "localhost:1", "127.0.0.1", "10.1.2.3", "[::1]:9"]
)
def test_own_names_and_addresses_are_served(stranger: httpx.Client, name: str) -> None:
    assert stranger.get("/healthz", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["rebound.example", "node.example.evil.test", "127.0.0.1.evil.test", "localhost.evil"]
)
def test_names_that_were_rebound_are_not_served(web: WebNode, name: str) -> None:
    with web.client() as client:
        refused = client.get("/api/node", headers={"Host": name})
    assert refused.status_code == 421
    assert "http.names" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["", "a b", "user@localhost", "localhost/x", "[localhost]"])
def test_what_is_no_host_name_is_refused(web: WebNode, name: str) -> None:
    with web.client() as client:
        assert client.get("/healthz", headers={"Host": name}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),  # no browser: the request is read, and names no example
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 400),
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({**ELSEWHERE, "Authorization": "Basic YTpi"}, 403),  # a browser's own doing
        ({**ELSEWHERE, "Authorization": "Bearer x"}, 400),  # no browser's
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, 403),
        (ELSEWHERE, 403),
        ({**ELSEWHERE, "Sec-Fetch-Mode": "navigate"}, 403),  # a form
        ({"Origin": VIEWER, "Sec-Fetch-Site": "cross-site"}, 403),  # DICOMweb only
    ],
)
def test_other_origins_change_nothing_on_an_open_node(
    web: WebNode, headers: dict[str, str], status: int
) -> None:
    with web.client() as client:
        assert client.post("/api/similar", json={}, headers=headers).status_code == status
        own = {"Origin": web.url}
        assert client.post("/api/similar", json={}, headers=own).status_code == 400


def test_other_origins_may_link_but_not_load(web: WebNode) -> None:
    with web.client() as client:
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/?study=1.2.3", headers=link).status_code == 200
        load = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert client.get("/api/node", headers=load).status_code == 403


def test_a_configured_viewer_may_use_dicomweb(stranger: httpx.Client) -> None:
    page = {"Origin": VIEWER, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    asked = {
        **page,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    allowed = stranger.options("/dicom-web/studies", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == VIEWER
    assert "access-control-allow-credentials" not in allowed.headers
    refused = stranger.get("/dicom-web/studies", headers=page)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == VIEWER  # so that the page sees it
    found = stranger.get("/dicom-web/studies", headers={**page, **bearer(READER)})
    assert found.status_code == 200
    for path, origin in [("/api/node", VIEWER), ("/dicom-web/studies", "https://viewer.example.x")]:
        answer = stranger.options(path, headers={**asked, "Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code == 403


def test_a_configured_viewer_asks_what_has_changed_and_shows_pictures(
    start_web: Callable[..., WebNode],
) -> None:
    web = start_web(allowed_origins=[VIEWER])
    path = f"/dicom-web/studies/{web.objects[0].StudyInstanceUID}/thumbnail"
    with web.client() as client:
        asked = {
            "Origin": VIEWER,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "if-none-match",
        }
        assert client.options(path, headers=asked).status_code == 200
        exposed = client.get(path, headers={"Origin": VIEWER}).headers
        assert "ETag" in exposed["access-control-expose-headers"]
        picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        shown = client.get(path, headers={**picture, "Referer": f"{VIEWER}/"})
        assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
        for referer in ("https://evil.example/", f"{VIEWER}.evil.example/", "http://[", ""):
            answer = client.get(path, headers={**picture, "Referer": referer})
            assert answer.status_code == 403
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        forged = client.post("/dicom-web/similar", headers={**picture, "Referer": f"{VIEWER}/"})
        assert forged.status_code == 403


def test_tls(start_web: Callable[..., WebNode], tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_program("openssl", package="openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "chain.pem", folder / "key.pem"
    kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    names = "-subj /CN=node -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl {kind} {names} -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    ann = {"password_hash": quick_hash(PASSWORD)}
    secure = start_web(
        certificate=certificate, private_key=key, users={"ann": ann}, max_connections=8
    )
    with secure.client(verify=ssl.create_default_context(cafile=str(certificate))) as client:
        assert "; Secure" in log_in(client).headers["set-cookie"]
        assert client.get("/metrics").status_code == 200
    held = [connect(secure.port) for _ in range(8)]  # without a handshake they count too
    until(lambda: talk(secure.port, b"") == b"", 2)
    for connection in held:
        connection.close()
    with pytest.raises(httpx.TransportError):
        httpx.get(secure.url.replace("https", "http") + "/healthz", trust_env=False)
    with pytest.raises(ConfigurationError, match=r"http\.certificate, http\.private_key: "):
        HttpServer(HttpSettings(certificate=key, private_key=certificate), FastAPI())


def test_passwords_in_the_clear_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = HttpSettings(host="192.0.2.1", tokens={"any": TokenSettings(sha256="0" * 64)})
    with pytest.raises(ConfigurationError, match="cannot listen"):  # there is no such address here
        HttpServer(elsewhere, FastAPI()).start()
    assert "in the clear: set http.certificate" in caplog.text


def test_what_the_commands_print_lets_in(start_web: Callable[..., WebNode]) -> None:
    rights = ["--right", "read", "--right", "store"]
    user = CliRunner().invoke(main, ["access", "user", 'Ann "A"', *rights], input=f"{PASSWORD}\n")
    token = CliRunner().invoke(main, ["access", "token", "prometheus"])
    assert (user.exit_code, token.exit_code) == (0, 0)
    assert PASSWORD not in user.output
    sections = tomllib.loads(user.stdout + token.stdout)["http"]
    assert sections["users"]['Ann "A"']["rights"] == ["read", "store"]
    assert sections["tokens"]["prometheus"]["rights"] == ["read"]
    node = start_web(**sections)
    with node.client() as client:
        assert log_in(client, 'Ann "A"').status_code == 204
        assert client.get("/api/node").json()["user"]["rights"] == ["read", "store"]
    name, _, value = token.stderr.strip().partition(": ")
    with node.client() as client:
        assert client.get("/metrics", headers={name: value}).status_code == 200
    short = CliRunner().invoke(main, ["access", "user", "ann"], input="short\n")
    assert short.exit_code == 2
    assert "10 characters" in short.stderr
