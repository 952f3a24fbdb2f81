"""Sending a study to another DICOM node at the push of a button."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cbmir_node.catalog.forwarding.overview import send_study
from cbmir_node.web.api.fields import Answer
from cbmir_node.web.parameters import Uid
from cbmir_node.web.services import WebServices


class SendRequest(BaseModel):
    """Which study goes where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study_instance_uid: Uid
    destination: str = Field(
        min_length=1, max_length=16, description="AE title, one of `destinations`"
    )


class Queued(Answer):
    """What is on its way."""

    objects: int = Field(ge=1, description="objects that are to be sent; they wait their turn")


def router(services: WebServices) -> APIRouter:
    """Build the route that sends studies on."""
    routes = APIRouter()

    @routes.post("/send", status_code=202)
    def send(asked: SendRequest) -> Queued:
        """Queue all kept objects of a study for another DICOM node, also once more."""
        objects = send_study(
            services.stores.catalog,
            services.settings.peers,
            asked.destination,
            asked.study_instance_uid,
        )
        return Queued(objects=objects)

    return routes
