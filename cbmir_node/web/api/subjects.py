"""What a stored study, series or image is, as the page shows it as the query's example."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from cbmir_node.catalog.query.covers import cover_image, first_object
from cbmir_node.catalog.query.images import describe_images, images_of_series
from cbmir_node.catalog.query.subjects import SubjectState, prediction_of, subject_state
from cbmir_node.errors import SelectionError
from cbmir_node.web.api.fields import Answer, Prediction, StoredImage
from cbmir_node.web.parameters import LEVEL_OF_NAME, LevelName, Uid
from cbmir_node.web.services import WebServices

_MOST_IMAGES = 20_000


class Subject(StoredImage):
    """A study, series or image, described by the image that stands for it.

    What has no image, as a report, is described by its first object; `images` is then 0 and there
    is no picture to ask for.
    """

    level: LevelName
    uid: str
    instances: int = Field(description="objects of the study or series; 1 for an image")
    images: int = Field(description="those of them that are images")
    embedded: bool = Field(description="whether it can be an example")
    state: Literal["", "pending", "no_pixels", "failed", "skipped"] = Field(
        description="why nothing of it has a vector of its own; empty when something has"
    )
    reason: str = Field(description="the same in words")
    predictions: list[Prediction] = Field(
        description="what the model takes that image for; the best class only"
    )


class PagedImage(Answer):
    """An image of a series."""

    sop_instance_uid: str
    instance_number: int | None
    number_of_frames: int
    kept: bool


def router(services: WebServices) -> APIRouter:
    """Build the routes that describe what is stored."""
    routes = APIRouter()

    @routes.get("/subjects/{level}/{uid}")
    def subject(
        level: Annotated[LevelName, Path(description="what `uid` names")], uid: Uid
    ) -> Subject:
        """Describe a stored study, series or image and the image that stands for it."""
        model = services.stores.registry.active().row
        state = subject_state(services.stores.catalog, model, LEVEL_OF_NAME[level], uid)
        if state is None:
            raise SelectionError(f"the node has no {level} {uid}; look for it by its patient")
        return _described(level, uid, state, model, services)

    @routes.get("/series/{series_instance_uid}/images")
    def series_images(series_instance_uid: Uid) -> list[PagedImage]:
        """List a series' images by Instance Number, for paging through them."""
        images = images_of_series(services.stores.catalog, series_instance_uid, _MOST_IMAGES)
        if not images:
            raise SelectionError(
                f"no images of series {series_instance_uid} are here; search again"
            )
        return [PagedImage(**vars(image)) for image in images]

    return routes


def _described(
    level: LevelName, uid: str, state: SubjectState, model: int, services: WebServices
) -> Subject:
    catalog = services.stores.catalog
    cover = cover_image(catalog, LEVEL_OF_NAME[level], uid)
    sop_instance_uid, frame_number = cover or (
        first_object(catalog, LEVEL_OF_NAME[level], uid) or "",
        1,
    )
    images = describe_images(catalog, [sop_instance_uid])
    if sop_instance_uid not in images:
        raise SelectionError(f"the {level} {uid} was removed just now; look for it again")
    prediction = prediction_of(catalog, model, sop_instance_uid, frame_number)
    return Subject(
        **vars(images[sop_instance_uid]),
        frame_number=frame_number,
        level=level,
        uid=uid,
        instances=state.instances,
        images=state.images,
        embedded=state.embedded > 0,
        state=state.state,
        reason=state.reason,
        predictions=[Prediction(label=prediction[0], probability=prediction[1])]
        if prediction
        else [],
    )
