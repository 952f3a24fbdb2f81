"""Multipart responses, streamed (PS3.18 section 8.6.1.2, RFC 2046 and RFC 2387)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fastapi.responses import StreamingResponse

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """One part of a response.

    Attributes
    ----------
    content_type : str
        With its parameters.
    chunks : iterable of bytes
        Content, read as it is sent.
    location : str
        URL of the part alone; empty for none.
    """

    content_type: str
    chunks: Iterable[bytes]
    location: str = ""


def multipart_response(
    parts: Iterable[Part],
    media_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """Answer with parts of one media type.

    The first part is made before the response begins, so what goes wrong there is an error like
    any other. An error later on ends the connection without the closing boundary: no client
    takes what it got for complete.

    Parameters
    ----------
    parts : iterable of Part
    media_type : str
        Of all parts, without parameters.
    status : int
    headers : mapping, optional
    """
    boundary = f"cbmir-{secrets.token_hex(16)}"
    return started_response(
        _encoded(parts, boundary),
        f'multipart/related; type="{media_type}"; boundary={boundary}',
        status=status,
        headers=headers,
    )


def started_response(
    chunks: Iterable[bytes],
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """Answer with a stream of which the first chunk is made at once, see `multipart_response`."""
    rest = iter(chunks)
    first = next(rest, b"")
    return StreamingResponse(
        chain([first], rest), status, headers=dict(headers or {}), media_type=content_type
    )


def file_chunks(path: Path, offset: int = 0, head: bytes = b"") -> Iterator[bytes]:
    """Yield `head` and a file from `offset` on; the file is opened with the first chunk."""
    with path.open("rb") as file:
        file.seek(offset)
        yield head + file.read(CHUNK_BYTES)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _encoded(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    start = ""
    for part in parts:
        lines = [f"{start}--{boundary}", f"Content-Type: {part.content_type}"]
        if part.location:
            lines.append(f"Content-Location: {part.location}")
        chunks = iter(part.chunks)
        # together: every chunk of a stream costs a change of threads
        yield "\r\n".join([*lines, "", ""]).encode() + next(chunks, b"")
        yield from chunks
        start = "\r\n"
    yield f"{start}--{boundary}--\r\n".encode()
