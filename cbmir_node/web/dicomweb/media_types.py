"""What a client accepts, and what is chosen of it (PS3.18 sections 8.3.3.1, 8.7.5 and 8.7.8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fastapi import Request

from cbmir_node.web.problems import Problem

DICOM_JSON = "application/dicom+json"
JSON_TYPES = (DICOM_JSON, "application/json")
DICOM = "application/dicom"
OCTET_STREAM = "application/octet-stream"

_MULTIPART = "multipart/related"
_MOST_RANGES = 100
_WEIGHT = re.compile(r"(?=\.?[0-9])[0-9]{0,10}(\.[0-9]{0,20})?")
# one that is never closed runs to the end: nothing is tried twice
_QUOTED = r'"(?:\\.?|[^"\\])*+(?:"|$)'
_ELEMENT = re.compile(rf'(?:{_QUOTED}|[^,"])+', re.DOTALL)
_PARAMETER = re.compile(rf'(?:{_QUOTED}|[^;"])+', re.DOTALL)


@dataclass(frozen=True)
class MediaRange:
    """One thing that a client accepts.

    Attributes
    ----------
    media_type : str
        Lower case, perhaps with ``*``; of the parts where it `is_multipart`.
    is_multipart : bool
        Whether it is to come as ``multipart/related``.
    transfer_syntax : str
        UID or ``*``; empty where the client names none.
    besides : tuple of MediaRange
        More specific ranges of the same client, which have a weight of their own.
    """

    media_type: str
    is_multipart: bool = False
    transfer_syntax: str = ""
    besides: tuple[MediaRange, ...] = field(default=(), compare=False, repr=False)

    def covers(self, media_type: str) -> bool:
        """Tell whether the range is what decides on a media type."""
        return self._includes(media_type) and not any(
            one._includes(media_type) for one in self.besides
        )

    def is_narrower(self, other: MediaRange) -> bool:
        """Tell whether it is one of `other`'s exceptions, should both include a media type."""
        same_form = self.is_multipart == other.is_multipart
        return same_form and self.media_type.count("*") < other.media_type.count("*")

    def _includes(self, media_type: str) -> bool:
        kind, _, subtype = self.media_type.partition("/")
        if subtype == "*":
            return kind in ("*", media_type.partition("/")[0])
        return self.media_type == media_type


ANYTHING = MediaRange("*/*")


def accepted(request: Request) -> list[MediaRange]:
    """Return what a request accepts, best first; anything where it does not say.

    The query parameter ``accept`` stands before the header field (8.3.3.1).
    """
    by_query = ",".join(request.query_params.getlist("accept"))
    by_header = ",".join(request.headers.getlist("accept"))
    if not (by_query + by_header).strip(", "):
        return [ANYTHING]
    return [*_read(by_query), *_read(by_header)]


def choose(ranges: Sequence[MediaRange], offered: Sequence[str]) -> str:
    """Return the first acceptable of single-part media types, best offered first.

    Raises
    ------
    Problem
        406: none is acceptable.
    """
    for one in ranges:
        for media_type in offered:
            if not one.is_multipart and one.covers(media_type):
                return media_type
    raise not_acceptable(offered)


def not_acceptable(offered: Sequence[str]) -> Problem:
    """Return the problem of a client that accepts nothing that there is."""
    return Problem(406, f"set Accept to one of: {', '.join(offered)}")


def _read(text: str) -> list[MediaRange]:
    """Read a list of media ranges (RFC 9110 section 12.5.1), most wanted first."""
    found = []
    for element in _ELEMENT.findall(text)[:_MOST_RANGES]:
        media_type, *parameters = [part.strip() for part in _PARAMETER.findall(element)] or [""]
        values = dict(_pairs(parameters))
        found.append((_weight(values.get("q", "1")), _media_range(media_type.lower(), values)))
    found.sort(key=lambda pair: -pair[0])
    ranges = [one for _, one in found]
    return [
        replace(one, besides=tuple(other for other in ranges if other.is_narrower(one)))
        for weight, one in found
        if weight > 0
    ]


def _media_range(media_type: str, values: dict[str, str]) -> MediaRange:
    syntax = values.get("transfer-syntax", "")
    is_multipart = media_type == _MULTIPART
    if is_multipart:
        media_type = values.get("type", "*").lower()
    media_type = media_type.replace(" ", "+")  # a plus sign that a query parameter did not escape
    media_type = "*/*" if media_type == "*" else media_type  # as older clients write it
    return MediaRange(media_type, is_multipart, syntax)


def _pairs(parameters: Sequence[str]) -> Iterator[tuple[str, str]]:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        yield name.strip().lower(), value.strip().strip('"')


def _weight(text: str) -> float:
    """Read a weight, also with more or fewer digits than RFC 9110 has; 0 where it is none."""
    return min(1.0, float(text)) if _WEIGHT.fullmatch(text) else 0.0
