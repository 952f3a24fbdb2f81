"""Single frames as the page shows them: a thumbnail, values to window, an overlay, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import Query, Response

from cbmir_node.imaging.frame_values import FrameValues
from cbmir_node.presentation.explanations import Prediction as FramePrediction
from cbmir_node.web.api.fields import Prediction
from cbmir_node.web.openapi import BINARY
from cbmir_node.web.problems import Problem

_PRIVATE = {"Cache-Control": "private, max-age=600", "Vary": "Cookie"}
"""A reader goes back and forth between pictures; none is shown on after the session has ended."""

LongestSide = Annotated[
    int, Query(ge=16, le=4096, description="pixels; larger frames are reduced, none is enlarged")
]


def _binary(media_type: str, **more: Any) -> dict[str, Any]:
    content = {media_type: BINARY}
    described = {"description": "Successful Response", "content": content, **more}
    return {"response_class": Response, "responses": {200: described}}


def _number(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "number"}}


PICTURE = _binary("image/jpeg")
"""How FastAPI is told of a route that answers with a picture."""

OVERLAY = _binary("image/png")
"""Likewise with an overlay."""

VALUES = _binary(
    "application/octet-stream",
    headers={
        "Cbmir-Rows": _number("of the body"),
        "Cbmir-Columns": _number("of the body"),
        "Cbmir-Samples": _number("1: little endian uint16 per pixel; 3: bytes red, green, blue"),
        "Cbmir-Minimum": _number("modality value (PS3.3 C.11.1) of the stored 0"),
        "Cbmir-Step": _number("modality value per unit"),
        "Cbmir-Window-Center": _number("that the thumbnail is shown with"),
        "Cbmir-Window-Width": _number("likewise"),
        "Cbmir-Inverted": _number("1 when low values are bright (MONOCHROME1), else 0"),
        "Cbmir-Number-Of-Frames": _number("of the object"),
        "Cbmir-Original-Rows": _number("of the frame as it is stored"),
        "Cbmir-Original-Columns": _number("likewise"),
    },
)
"""Likewise with values."""


def picture_answer(jpeg: bytes) -> Response:
    """Return a JPEG."""
    return Response(jpeg, media_type="image/jpeg", headers=_PRIVATE)


def overlay_answer(png: bytes | None) -> Response:
    """Return an overlay.

    Raises
    ------
    Problem
        404: the model has none.
    """
    if png is None:
        raise Problem(404, "the model in use has no saliency; the picture stands alone")
    return Response(png, media_type="image/png", headers=_PRIVATE)


def values_answer(frame: FrameValues) -> Response:
    """Return a frame's values as bytes, and in headers what is needed to show them."""
    values = frame.values
    samples = 1 if values.ndim == 2 else values.shape[2]
    body = values.astype("<u2" if samples == 1 else np.uint8, copy=False).tobytes()
    described = {
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "Samples": samples,
        "Minimum": float(frame.minimum),
        "Step": float(frame.step),
        "Window-Center": float(frame.window_center),
        "Window-Width": float(frame.window_width),
        "Inverted": int(frame.inverted),
        "Number-Of-Frames": frame.number_of_frames,
        "Original-Rows": frame.rows,
        "Original-Columns": frame.columns,
    }
    headers = {f"Cbmir-{name}": repr(value) for name, value in described.items()}
    return Response(body, media_type="application/octet-stream", headers={**headers, **_PRIVATE})


def predictions_answer(predictions: Sequence[FramePrediction]) -> list[Prediction]:
    """Return classes and probabilities, best first."""
    return [Prediction(label=one.label, probability=one.probability) for one in predictions]
