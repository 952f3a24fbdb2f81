"""Frames of stored images."""

from __future__ import annotations

from fastapi import APIRouter, Response

from cbmir_node.web.api.fields import FrameNumber, Prediction
from cbmir_node.web.api.frames import (
    OVERLAY,
    PICTURE,
    VALUES,
    LongestSide,
    overlay_answer,
    picture_answer,
    predictions_answer,
    values_answer,
)
from cbmir_node.web.parameters import Uid
from cbmir_node.web.services import WebServices


def router(services: WebServices) -> APIRouter:
    """Build the routes of stored frames."""
    routes = APIRouter(prefix="/images/{sop_instance_uid}/frames/{frame_number}")

    @routes.get("/thumbnail", **PICTURE)
    def thumbnail(sop_instance_uid: Uid, frame_number: FrameNumber) -> Response:
        """Return a small picture of a frame."""
        return picture_answer(services.pictures.thumbnail(sop_instance_uid, frame_number))

    @routes.get("/values", **VALUES)
    def values(
        sop_instance_uid: Uid, frame_number: FrameNumber, longest_side: LongestSide = 1024
    ) -> Response:
        """Return a frame's values, for a viewer that changes the window itself."""
        return values_answer(services.pictures.values(sop_instance_uid, frame_number, longest_side))

    @routes.get("/saliency", **OVERLAY)
    def saliency(sop_instance_uid: Uid, frame_number: FrameNumber) -> Response:
        """Return where the model looked, to lay over the picture."""
        path = services.pictures.path(sop_instance_uid)
        return overlay_answer(services.explanations.saliency(path, frame_number))

    @routes.get("/predictions")
    def predictions(sop_instance_uid: Uid, frame_number: FrameNumber) -> list[Prediction]:
        """Return what the model takes a frame for, best first."""
        path = services.pictures.path(sop_instance_uid)
        return predictions_answer(services.explanations.predictions(path, frame_number))

    return routes
