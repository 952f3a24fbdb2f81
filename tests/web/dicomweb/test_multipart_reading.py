"""Bodies are cut into their parts byte for byte, however they arrive."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmir_node.web.dicomweb.multipart_reading import _PartReader
from cbmir_node.web.problems import Problem

BOUNDARY = b"b-1"
# what looks like a boundary's beginning is where readers go wrong
FRAGMENTS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n--", b"--b-1", b"\r\n--b-", b"\0", b"-", b"DICM", b"\r\n\r\n"]
)
CONTENTS = st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12).map(b"".join)


@dataclass
class Collected:
    """A part in memory."""

    media_type: str
    data: bytearray = field(default_factory=bytearray)
    end: str = ""

    def write(self, data: memoryview) -> None:
        self.data += data

    def finish(self) -> None:
        self.end = "finished"

    def discard(self) -> None:
        self.end = self.end or "discarded"


def body_of(*contents: bytes, closing: bytes = b"--\r\n") -> bytes:
    parts = [
        b"--b-1\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in contents
    ]
    return b"".join(parts) + b"--b-1" + closing


def read(body: bytes, cuts: list[int] | None = None, most: int = 100) -> list[Collected]:
    parts: list[Collected] = []

    def begin(media_type: str) -> Collected:
        parts.append(Collected(media_type))
        return parts[-1]

    reader = _PartReader(BOUNDARY, begin, most)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    try:
        for start, end in itertools.pairwise(places):
            reader.feed(body[start:end])
        reader.close()
    finally:
        reader.discard()
    return parts


@settings(max_examples=100)
@given(
    st.lists(
        CONTENTS.filter(lambda data: b"\r\n--b-1" not in b"\r\n" + data), min_size=1, max_size=4
    ),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_parts_arrive_byte_for_byte(contents: list[bytes], cuts: list[int]) -> None:
    parts = read(body_of(*contents), cuts)
    assert [bytes(part.data) for part in parts] == contents
    assert {part.end for part in parts} == {"finished"}
    assert {part.media_type for part in parts} == {"application/dicom"}


@settings(max_examples=40)
@given(st.integers(0, 200), st.lists(st.integers(0, 10_000), max_size=4))
def test_a_body_that_ends_early_finishes_only_whole_parts(length: int, cuts: list[int]) -> None:
    body = body_of(b"one" * 9, b"two" * 9)
    whole = body.index(b"two") - len(b"--b-1\r\nContent-Type: application/dicom\r\n\r\n\r\n")
    cut = body[: min(length, len(body) - len(b"--\r\n"))]
    with pytest.raises(Problem, match="malformed") as refused:
        read(cut, cuts)
    assert refused.value.status_code == 400
    if len(cut) > whole:
        assert "part" in refused.value.detail


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no boundary at all", 400),
        (b"--b-1--\r\n", 400),
        (b"--other\r\n\r\ndata\r\n--other--\r\n", 400),
        (b"--b-1\r\nno header\r\n\r\ndata\r\n--b-1--\r\n", 400),
        (b"--b-1\r\n" + b"X: y\r\n" * 20 + b"\r\ndata\r\n--b-1--\r\n", 400),
        (b"--b-1\r\nX: " + b"y" * 10_000 + b"\r\n\r\ndata\r\n--b-1--\r\n", 400),
        (body_of(b"1", b"2", b"3", b"4"), 413),
    ],
    ids=["empty", "text", "no part", "other", "header", "headers", "long header", "many"],
)
def test_what_is_no_multipart_message_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Problem) as refused:
        read(body, most=3)
    assert refused.value.status_code == status


def test_a_part_without_headers_has_no_type() -> None:
    (part,) = read(b"--b-1\r\n\r\ndata\r\n--b-1--")
    assert (part.media_type, part.data, part.end) == ("", b"data", "finished")


@pytest.mark.parametrize("before", [b"\r\n", b"This is MIME.\r\n", b"--b-\r\n\r\n--\r\n"])
def test_text_before_the_first_part_means_nothing(before: bytes) -> None:
    body = before + body_of(b"one", b"two")
    for cut in range(len(before) + 8):
        assert [bytes(part.data) for part in read(body, [cut])] == [b"one", b"two"]


def test_a_boundary_within_a_line_begins_nothing() -> None:
    with pytest.raises(Problem, match="closing boundary"):
        read(b"x" + body_of())
