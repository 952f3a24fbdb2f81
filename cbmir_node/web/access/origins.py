"""Where a request comes from: the host name it was sent to, and the page that sent it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbmir_node.config import HttpSettings
from cbmir_node.web.access.authentication import SAFE_METHODS
from cbmir_node.web.problems import Problem, problem_response

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


class Origins:
    """Refuses what pages of other origins send, and what was sent to foreign names (ASGI).

    A page elsewhere that lets its own host name lead to the node's address (DNS rebinding) would
    be of the same origin for the browser; only the Host header gives it away. An address in its
    place is fine: a browser does not look it up.

    What a page elsewhere sends without rebinding is told by Sec-Fetch-Site, or in an older
    browser by Origin. A link that is followed is fine, and so are the origins configured for
    DICOMweb. A request with a token was not made by a browser on its own.

    A proxy may tell in X-Forwarded-Proto that the caller speaks TLS with it.

    Parameters
    ----------
    app : ASGI application
    settings : HttpSettings
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in settings.names)}
        self._allowed = frozenset(settings.allowed_origins)
        self._shared = _cross_origin(app, self._allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("x-forwarded-proto") == "https":
            scope["scheme"] = "https"  # of links and cookies in the answer: the caller's own loss
        origin = _origin(headers, scope["method"])
        viewer = _is_dicomweb(scope["path"]) and origin in self._allowed
        try:
            self._check_host(headers)
            if not viewer:
                _check_page(headers, scope["method"])
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
            return
        if viewer:
            await self._shared(scope, receive, _for_other_origins(send))
        else:
            await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            raise Problem(400, "the request needs one valid Host header")
        name = (found["name"] or "").lower().rstrip(".")
        if name and name not in self._names and not _is_address(name):
            raise Problem(421, "the node is not known under this host name: add it to http.names")


def _origin(headers: Headers, method: str) -> str | None:
    """Return the origin of the page that asks, as far as the browser tells it.

    A picture is asked for without Origin, but with Referer, which no page can forge.
    """
    if "origin" in headers or method not in SAFE_METHODS:
        return headers.get("origin")
    return "/".join(headers.get("referer", "").split("/", 3)[:3])


def _for_other_origins(send: Send) -> Send:
    """Let browsers show a response in the page of another origin, as a picture."""

    async def send_shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["cross-origin-resource-policy"] = "cross-origin"
        await send(message)

    return send_shared


def client_address(request: Request, settings: HttpSettings) -> str:
    """Return the address of who asks.

    Behind a proxy it is the last entry of X-Forwarded-For (the proxy's own; those before it can be
    anybody's), when the connection comes from this machine and the entry is an address.
    """
    peer = request.client.host if request.client else ""
    if settings.behind_proxy and _is_address(peer) and ipaddress.ip_address(peer).is_loopback:
        told = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        return told if _is_address(told) else peer
    return peer


def _check_page(headers: Headers, method: str) -> None:
    """Refuse what the page of another origin sends."""
    # a browser sends a password on its own, and a token only for a page that may
    if headers.get("authorization", "").lower().startswith("bearer "):
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        followed = method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        foreign = site not in {"same-origin", "none"} and not followed
    else:
        origin = headers.get("origin")
        foreign = (
            method not in SAFE_METHODS
            and origin is not None
            and _host_of(origin) != headers["host"].lower()
        )
    if foreign:
        raise Problem(
            403,
            "pages of other origins may not do this; those that may use DICOMweb are named in"
            " http.allowed_origins",
        )


def _cross_origin(app: ASGIApp, origins: Iterable[str]) -> ASGIApp:
    """Let browsers give the pages of these origins what they ask for, without cookies."""
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_methods=("GET", "POST"),
        allow_headers=("Accept", "Authorization", "Content-Type", "If-None-Match"),
        expose_headers=("Content-Location", "ETag", "Warning"),
    )


def _host_of(origin: str) -> str:
    """Return host and port; empty for what is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_dicomweb(path: str) -> bool:
    return path.startswith("/dicom-web/")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
