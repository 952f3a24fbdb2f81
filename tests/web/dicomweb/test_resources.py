"""URLs in answers lead back to the node."""

from __future__ import annotations

import pytest
from fastapi import Request

from cbmir_node.web.dicomweb.resources import service_url


@pytest.mark.parametrize(
    ("scheme", "host", "port", "url"),
    [
        ("http", "127.0.0.1", 8080, "http://127.0.0.1:8080"),  # as dicomweb-client names it
        ("http", "[::1]", 8080, "http://[::1]:8080"),
        ("http", "localhost:9000", 8080, "http://localhost:9000"),
        ("http", "localhost", 80, "http://localhost"),
        ("http", "node.example", 8080, "http://node.example"),
        ("https", "localhost", 8080, "https://localhost"),  # of a proxy in front of the node
        ("https", "localhost", 443, "https://localhost"),
    ],
)
def test_the_port_is_added_where_a_client_left_it_out(
    scheme: str, host: str, port: int, url: str
) -> None:
    scope = {
        "type": "http",
        "scheme": scheme,
        "path": "/dicom-web/studies",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
        "server": ("127.0.0.1", port),
    }
    assert service_url(Request(scope)) == f"{url}/dicom-web"
