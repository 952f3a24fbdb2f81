"""Bodies of requests cut into files as they arrive: multipart/related, or one file alone.

``multipart/related`` is RFC 2387 over RFC 2046 section 5.1, as PS3.18 8.6.1.2 uses it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cbmir_node.web.problems import Problem

MULTIPART = "multipart/related"

_GATHERED_BYTES = 1 << 20
_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 4096


class Part(Protocol):
    """Where the bytes of one file go; called in the thread pool, one call at a time."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """Take note that it is complete."""

    def discard(self) -> None:
        """Forget it; harmless after `finish`."""


OpenPart = Callable[[str], Part]
"""Begins a part, of a media type in lower case that is empty where the sender names none."""


@dataclass(frozen=True)
class BodyType:
    """What the header field Content-Type says of a body.

    Attributes
    ----------
    media_type : str
        In lower case, without parameters; empty without the header field.
    part_type : str
        Parameter ``type`` of a multipart/related body in lower case: what its parts are.
    boundary : bytes
        Parameter ``boundary``.
    """

    media_type: str
    part_type: str = ""
    boundary: bytes = b""


def body_type(request: Request) -> BodyType:
    """Read what the header says of a request's body."""
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    return BodyType(
        media_type.decode("latin-1").strip(),
        parameters.get(b"type", b"").decode("latin-1").strip().lower(),
        parameters.get(b"boundary", b""),
    )


async def read_parts(request: Request, body: BodyType, open_part: OpenPart, most: int) -> None:
    """Cut the body of a request into parts while it arrives.

    No more than about 1 MiB is in memory. Nothing is written in the event loop.

    Parameters
    ----------
    request : Request
        Its body has not been read.
    body : BodyType
        From `body_type`; what is not multipart/related is one part.
    open_part : OpenPart
        Called as soon as a part begins.
    most : int
        Parts at most.

    Raises
    ------
    Problem
        400: the body is malformed, has no part or breaks off; 413: it has more than `most` parts.
        The part that was being read is discarded, those before it were finished.
    """
    if body.media_type == MULTIPART:
        reader: _Reader = _PartReader(body.boundary, open_part, most)
    else:
        part = await run_in_threadpool(open_part, body.media_type)
        reader = _FileReader(part)
    try:
        async for data in _gathered(request.stream()):
            await run_in_threadpool(reader.feed, data)
        await run_in_threadpool(reader.close)
    finally:
        reader.discard()


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join chunks: each hop into the thread pool costs more than copying a small one."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= _GATHERED_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


class _Reader(Protocol):
    def feed(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class _FileReader:
    """Takes a body for one part."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._empty = True

    def feed(self, data: bytes) -> None:
        self._empty = self._empty and not data
        self._part.write(memoryview(data))

    def close(self) -> None:
        if self._empty:
            raise Problem(400, "the body is empty: send a file")
        self._part.finish()

    def discard(self) -> None:
        self._part.discard()


class _PartReader:
    """Cuts a multipart/related body into its parts."""

    def __init__(self, boundary: bytes, open_part: OpenPart, most: int) -> None:
        self._open_part = open_part
        self._most = most
        self._part: Part | None = None
        self._begun = 0
        self._ended = False
        self._name = b""
        self._value = b""
        self._media_type = ""
        self._delimiter = b"\r\n--" + boundary
        self._before: bytes | None = b"\r\n"  # the first one may be the body's first line
        if not boundary:
            raise Problem(400, "Content-Type: multipart/related needs the parameter boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._data_begins,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._body_ends,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError as error:
            raise Problem(400, f"Content-Type: {error}") from error

    def feed(self, data: bytes) -> None:
        if self._before is not None:
            data = self._without_preamble(self._before + data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise self._broken(str(error)) from error

    def close(self) -> None:
        if not self._ended:
            raise self._broken("it ends without the closing boundary")
        if not self._begun:
            raise Problem(400, "the body has no part: send at least one file")

    def discard(self) -> None:
        if self._part is not None:
            self._part.discard()
            self._part = None

    def _without_preamble(self, data: bytes) -> bytes:
        """Leave out what is before the first delimiter, which means nothing (RFC 2046 5.1.1)."""
        start = data.find(self._delimiter)
        if start < 0:
            self._before = data[-len(self._delimiter) :]
            return b""
        self._before = None
        return data[start + 2 :]

    def _broken(self, reason: str) -> Problem:
        return Problem(
            400,
            f"the multipart/related body is malformed in or after part {self._begun}: {reason}; "
            "send it again from that part on",
        )

    def _part_begins(self) -> None:
        self._begun += 1
        if self._begun > self._most:
            raise Problem(
                413, f"send at most {self._most} parts in a request; go on with the next in another"
            )
        self._media_type = ""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-type":
            self._media_type = parse_options_header(self._value)[0].decode("latin-1").strip()
        self._name = self._value = b""

    def _data_begins(self) -> None:
        self._part = self._open_part(self._media_type)

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None  # noqa: S101  the parser calls it between begin and end
        self._part.write(memoryview(data)[start:end])

    def _part_ends(self) -> None:
        assert self._part is not None  # noqa: S101  the parser calls it after the headers
        self._part.finish()
        self.discard()

    def _body_ends(self) -> None:
        self._ended = True
