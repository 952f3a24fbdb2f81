"""How a rendered resource is to look (PS3.18 section 8.3.5.1)."""

from __future__ import annotations

import math
import re
from typing import Annotated, cast, get_args

from fastapi import Depends, Query, Request

from cbmir_node.imaging.rendering import MediaType, Rendering
from cbmir_node.imaging.windows import Function
from cbmir_node.web.dicomweb.media_types import accepted, choose
from cbmir_node.web.dicomweb.parameter_values import wrong_value

_OFFERED = get_args(MediaType)
_LARGEST_SIDE = 16384
_LARGEST_NUMBER = _TO_THE_END = 1e9

_Size = tuple[int, int]
_Region = tuple[float, float, float, float]

Viewport = Annotated[
    str | None,
    Query(
        max_length=100,
        description="Columns and rows of the picture, as vw,vh, or with the region of the image "
        "to show, as vw,vh,sx,sy,sw,sh (8.3.5.1.3)",
        examples=["512,512"],
    ),
]


def read_rendering(
    request: Request,
    quality: Annotated[int, Query(ge=1, le=100, description="Of JPEG (8.3.5.1.2)")] = 90,
    viewport: Viewport = None,
    window: Annotated[
        str | None,
        Query(
            max_length=100,
            description="Centre, width and function: linear, linear-exact or sigmoid (8.3.5.1.4)",
            examples=["40,400,linear"],
        ),
    ] = None,
) -> Rendering:
    """Read how a picture is to look.

    Raises
    ------
    Problem
        400: a parameter has a value that it cannot have. 406: no offered media type is acceptable.
    """
    columns_and_rows, region = _read_viewport(viewport)
    return Rendering(
        cast(MediaType, choose(accepted(request), _OFFERED)),
        quality=quality,
        window=_read_window(window),
        viewport=columns_and_rows,
        region=region,
    )


HowRendered = Annotated[Rendering, Depends(read_rendering)]


def _read_viewport(text: str | None) -> tuple[_Size | None, _Region | None]:
    if text is None:
        return None, None
    fields = text.split(",")
    size = fields[:2]
    if len(fields) not in (2, 6) or not all(re.fullmatch(r"[0-9]{1,5}", one) for one in size):
        raise wrong_value("viewport", "must be vw,vh or vw,vh,sx,sy,sw,sh")
    columns, rows = (int(one) for one in size)
    if not (1 <= columns <= _LARGEST_SIDE and 1 <= rows <= _LARGEST_SIDE):
        raise wrong_value("viewport", f"must have sides of 1 to {_LARGEST_SIDE}")
    if len(fields) == 2:
        return (columns, rows), None
    left, top = (_number("viewport", one, empty=0.0) for one in fields[2:4])
    width, height = (_number("viewport", one, empty=_TO_THE_END) for one in fields[4:])
    if not (width and height):
        raise wrong_value("viewport", "must name a region with a width and a height")
    return (columns, rows), (left, top, width, height)


def _read_window(text: str | None) -> tuple[float, float, Function] | None:
    if text is None:
        return None
    fields = text.split(",")
    functions: dict[str, Function] = {
        "linear": "LINEAR",
        "linear-exact": "LINEAR_EXACT",
        "sigmoid": "SIGMOID",
    }
    if len(fields) != 3 or fields[2].lower() not in functions:
        raise wrong_value(
            "window", f"must be centre,width,function with one of {', '.join(functions)}"
        )
    centre, width = (_number("window", one) for one in fields[:2])
    function = functions[fields[2].lower()]
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise wrong_value("window", "must have a width above 0, for linear at least 1")
    return centre, width, function


def _number(name: str, text: str, empty: float | None = None) -> float:
    if text == "" and empty is not None:
        return empty
    try:
        number = float(text)
    except ValueError:
        raise wrong_value(name, "must be numbers") from None
    if not math.isfinite(number) or abs(number) > _LARGEST_NUMBER:
        raise wrong_value(name, "must be numbers of a reasonable size")
    return number
