"""DICOMweb as a client without a library asks it."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Any

import httpx
from pydicom.datadict import tag_for_keyword

from tests.web.conftest import WebNode


def get(
    web: WebNode,
    path: str,
    accept: str = "*/*",
    /,
    *,
    headers: dict[str, str] | None = None,
    **query: Any,
) -> httpx.Response:
    """GET a path below the service."""
    with web.client() as client:
        return client.get(
            f"/dicom-web{path}", params=query, headers={"Accept": accept, **(headers or {})}
        )


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Return content type and content of each part; the standard library reads them."""
    assert response.status_code in (200, 206), response.text
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + response.content, policy=policy.HTTP)
    assert message.is_multipart()
    assert response.content.endswith(b"--\r\n")
    return [
        (str(part["Content-Type"]).replace('"', ""), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]


def value(described: dict[str, Any], keyword: str) -> Any:
    """Return the values of an attribute in DICOM JSON."""
    return described[f"{tag_for_keyword(keyword):08X}"].get("Value", [])


def path_of(dataset: Any) -> str:
    """Return the path of an instance."""
    return (
        f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )
