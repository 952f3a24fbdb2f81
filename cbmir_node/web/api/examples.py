"""Files that are dropped in as examples, and stored only when asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from pydantic import Field
from starlette.requests import ClientDisconnect

from cbmir_node.catalog.query.images import describe_images
from cbmir_node.errors import UploadError
from cbmir_node.presentation.examples import LIFETIME_S, TemporaryExample
from cbmir_node.presentation.uploads import Upload
from cbmir_node.web.access.callers import CallerName, may_reject
from cbmir_node.web.access.rights import MAY_STORE
from cbmir_node.web.api.fields import Answer, FrameNumber, PatientAndStudy, Prediction, Token
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
from cbmir_node.web.openapi import file_body
from cbmir_node.web.parameters import ModalityOfPictures
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

FileName = Annotated[str, Query(max_length=256, description="what the user calls the file")]


class DroppedFile(PatientAndStudy):
    """A file that was dropped in, and what the model takes it for."""

    token: str = Field(description="names it in the requests about it")
    name: str
    kind: Literal["dicom", "png", "jpeg"]
    study_description: str
    series_description: str
    accession_number: str
    series_instance_uid: str
    frame_numbers: list[int] = Field(description="the frames that were embedded")
    predictions: list[Prediction] = Field(description="most probable classes, best first")
    known: bool = Field(description="whether the node has stored this object")
    expires_in_s: float = Field(description="when it is forgotten unless it is used")


class StoredFile(Answer):
    """What became of a file that was to be stored."""

    sop_instance_uid: str
    study_instance_uid: str
    outcome: str = Field(description="stored, or that it was here before")


def router(services: WebServices) -> APIRouter:
    """Build the routes of dropped files."""
    routes = APIRouter(prefix="/examples")

    @routes.post("", status_code=201, openapi_extra=_BODY, responses=_REFUSALS)
    async def drop(
        request: Request,
        caller: CallerName,
        name: FileName = "",
        modality: ModalityOfPictures = "",
    ) -> DroppedFile:
        """Take a DICOM, PNG or JPEG file as an example; it is embedded and not stored."""
        async with contextmanager_in_threadpool(services.examples.receive()) as upload:
            await _write_body(request, upload)
            dropped = await run_in_threadpool(
                services.examples.add, upload.path, name, modality, caller
            )
        return await run_in_threadpool(_described, dropped, services)

    @routes.get("/{token}")
    def dropped_file(token: Token, caller: CallerName) -> DroppedFile:
        """Describe a dropped file."""
        return _described(services.examples.get(token, caller), services)

    @routes.delete("/{token}", status_code=204)
    def forget(token: Token, caller: CallerName) -> None:
        """Forget a dropped file."""
        services.examples.remove(token, caller)

    @routes.post("/{token}/store", dependencies=[MAY_STORE])
    def store(request: Request, token: Token, caller: CallerName) -> StoredFile:
        """Store a dropped file for good, as if it had been sent."""
        study = services.examples.get(token, caller).attributes.get("StudyInstanceUID", "")
        receipt = services.examples.store(
            token, services.intake, caller, may_reject=may_reject(request)
        )
        return StoredFile(
            sop_instance_uid=receipt.sop_instance_uid,
            study_instance_uid=study,
            outcome=receipt.outcome,
        )

    _add_frames(routes, services)
    return routes


def _add_frames(routes: APIRouter, services: WebServices) -> None:
    """Add what shows single frames."""

    @routes.get("/{token}/frames/{frame_number}/thumbnail", **PICTURE)
    def thumbnail(token: Token, frame_number: FrameNumber, caller: CallerName) -> Response:
        """Return a small picture of a frame."""
        return picture_answer(services.examples.thumbnail(token, frame_number, caller))

    @routes.get("/{token}/frames/{frame_number}/values", **VALUES)
    def values(
        token: Token,
        frame_number: FrameNumber,
        caller: CallerName,
        longest_side: LongestSide = 1024,
    ) -> Response:
        """Return a frame's values, for a viewer that changes the window itself."""
        return values_answer(services.examples.values(token, frame_number, longest_side, caller))

    @routes.get("/{token}/frames/{frame_number}/saliency", **OVERLAY)
    def saliency(token: Token, frame_number: FrameNumber, caller: CallerName) -> Response:
        """Return where the model looked, to lay over the picture."""
        path = services.examples.get(token, caller).path
        return overlay_answer(services.explanations.saliency(path, frame_number))

    @routes.get("/{token}/frames/{frame_number}/predictions")
    def predictions(
        token: Token, frame_number: FrameNumber, caller: CallerName
    ) -> list[Prediction]:
        """Return what the model takes a frame for, best first."""
        path = services.examples.get(token, caller).path
        return predictions_answer(services.explanations.predictions(path, frame_number))


async def _write_body(request: Request, upload: Upload) -> None:
    """Write a request's body into a file as it comes, never held in memory.

    How long it may be and take is `web.safety.request_bodies`' matter.
    """
    try:
        async for part in request.stream():
            await run_in_threadpool(upload.write, part)  # a slow disk delays nobody else
    except ClientDisconnect as error:
        raise Problem(400, "the upload broke off; send the file again") from error
    if not upload.size:
        raise UploadError("the file is empty; send a DICOM, PNG or JPEG file")


def _described(dropped: TemporaryExample, services: WebServices) -> DroppedFile:
    text = dropped.attributes
    uid = text.get("SOPInstanceUID", "")
    return DroppedFile(
        token=dropped.token,
        name=dropped.name,
        kind=dropped.kind,
        patient_id=text.get("PatientID", ""),
        patient_name=text.get("PatientName", ""),
        patient_sex=text.get("PatientSex", ""),
        age_years=dropped.age_years,
        study_date=text.get("StudyDate", ""),
        modality=text.get("Modality", ""),
        body_part_examined=text.get("BodyPartExamined", ""),
        study_description=text.get("StudyDescription", ""),
        series_description=text.get("SeriesDescription", ""),
        accession_number=text.get("AccessionNumber", ""),
        study_instance_uid=text.get("StudyInstanceUID", ""),
        series_instance_uid=text.get("SeriesInstanceUID", ""),
        sop_instance_uid=uid,
        number_of_frames=dropped.number_of_frames,
        frame_numbers=list(dropped.frame_numbers),
        predictions=predictions_answer(dropped.predictions),
        known=bool(describe_images(services.stores.catalog, [uid])),
        expires_in_s=LIFETIME_S,
    )


_MEDIA_TYPES = ("application/octet-stream", "application/dicom", "image/png", "image/jpeg")
_BODY = file_body("the file, as it is", _MEDIA_TYPES)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"description": "The file is larger than http.max_example_mib"},
    422: {"description": "Its pixels cannot be decoded"},
    507: {"description": "The disk reserve is reached"},
}
