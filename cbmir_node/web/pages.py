"""The page: files that the node ships and serves as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response

from cbmir_node.web.problems import Problem
from cbmir_node.web.safety.response_headers import PAGE_POLICY

_FOLDER = Path(__file__).with_name("page")
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}

IfNoneMatch = Annotated[str, Header(alias="If-None-Match", include_in_schema=False)]


def router() -> APIRouter:
    """Return the routes of the page and of what it loads.

    They tell nothing of any patient and are open to all. A page does not send strangers to
    ``/login`` by itself: a link from elsewhere comes without the cookie, which is SameSite=Strict.
    """
    routes = APIRouter(tags=["page"], include_in_schema=False)

    @routes.get("/")
    def search_page(if_none_match: IfNoneMatch = "") -> Response:
        """Return the page where similar cases are looked for."""
        return _file("index.html", if_none_match)

    @routes.get("/administration")
    def administration_page(if_none_match: IfNoneMatch = "") -> Response:
        """Return the page that shows how the node does."""
        return _file("administration.html", if_none_match)

    @routes.get("/login")
    def login_page(if_none_match: IfNoneMatch = "") -> Response:
        """Return the page where a person logs in."""
        return _file("login.html", if_none_match)

    @routes.get("/favicon.ico")
    def icon(if_none_match: IfNoneMatch = "") -> Response:
        """Return the icon that browsers ask for by themselves."""
        return _file("icon.svg", if_none_match)

    @routes.get("/static/{name}")
    def static(name: str, if_none_match: IfNoneMatch = "") -> Response:
        """Return a style sheet, a script or a picture of the page."""
        return _file(name, if_none_match)

    return routes


def _file(name: str, if_none_match: str) -> Response:
    """Return a file that is there; a name from outside is compared, never made a path."""
    files = {file.name: file for file in _FOLDER.iterdir() if file.suffix in _MEDIA_TYPES}
    if name not in files or not files[name].is_file():
        raise Problem(404, "the page has no such file")
    content = files[name].read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
    }
    if etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[files[name].suffix])
