"""What a client accepts is read as RFC 9110 and PS3.18 have it, whatever is sent."""

from __future__ import annotations

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from cbmir_node.web.dicomweb.media_types import ANYTHING, MediaRange, accepted, choose
from cbmir_node.web.problems import Problem


def request(header: str | None = None, query: str = "") -> Request:
    headers = [] if header is None else [(b"accept", header.encode("latin-1", "replace"))]
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        (None, [ANYTHING]),
        ("", [ANYTHING]),
        ("Image/JPEG;q=0.5, image/png", [MediaRange("image/png"), MediaRange("image/jpeg")]),
        ("image/png;q=0, image/gif;q=high", []),
        ("*; q=.2, a/b; q=1.00000", [MediaRange("a/b"), ANYTHING]),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*, */*;q=0.1',
            [MediaRange("application/dicom", True, "*"), ANYTHING],
        ),
        ("multipart/related;type=image/jp2", [MediaRange("image/jp2", True)]),
        ('a/b;x="q=0,c/d;e", f/g', [MediaRange("a/b"), MediaRange("f/g")]),
    ],
)
def test_ranges_are_read_in_the_order_of_their_weight(
    header: str | None, ranges: list[MediaRange]
) -> None:
    assert accepted(request(header)) == ranges


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("image/jpeg;q=0, image/*", "image/png"),
        ("image/*;q=0, image/png;q=0.1, */*", "image/png"),
        ("*/*, image/jpeg;q=0.5", "image/png"),
        ("image/jpeg;q=0.1, */*;q=0.5", "image/png"),
        ("image/*;q=0, */*", None),
        ("image/*;q=0", None),
    ],
)
def test_the_most_specific_range_decides(header: str, chosen: str | None) -> None:
    ranges = accepted(request(header))
    if chosen is None:
        with pytest.raises(Problem):
            choose(ranges, ("image/jpeg", "image/png"))
    else:
        assert choose(ranges, ("image/jpeg", "image/png")) == chosen


def test_the_query_parameter_comes_first() -> None:
    both = request("image/png", "accept=image/jpeg")
    assert choose(accepted(both), ("image/png", "image/jpeg")) == "image/jpeg"


@given(st.text('abc/*"\\;,= q0.1', max_size=60))
def test_any_header_is_read(header: str) -> None:
    for one in accepted(request(header)):
        assert isinstance(one.covers("image/png"), bool)


@pytest.mark.parametrize("unit", ['\\"', '"\\', ",", ";", '="', '"'])
def test_long_headers_are_read_in_linear_time(unit: str) -> None:
    """Quadratic time would show: minutes for the longest query that is let in."""
    header = unit * 100_000
    assert accepted(request(header))
    with pytest.raises(Problem):
        choose(accepted(request(f"x/y,{header}")), ("image/png",))
