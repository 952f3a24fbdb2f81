"""Sending a study to another DICOM node at the push of a button."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cbmir_node.catalog.forwarding.overview import send_study
from cbmir_node.catalog.forwarding.resting_destinations import resting_destinations
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


class Resting(Answer):
    """Why nothing can be sent to a destination at the moment."""

    reason: str = Field(description="what the last try ended with")
    next_try: datetime


class Queued(Answer):
    """What is on its way."""

    objects: int = Field(ge=0, description="objects that were queued now; they wait their turn")
    waiting: int = Field(ge=0, description="objects that were queued before and still wait")
    resting: Resting | None = Field(
        description="set where the destination cannot be reached; the node keeps trying"
    )


def router(services: WebServices) -> APIRouter:
    """Build the route that sends studies on."""
    routes = APIRouter()

    @routes.post("/send", status_code=202)
    def send(asked: SendRequest) -> Queued:
        """Queue all kept objects of a study for another DICOM node, also once more."""
        catalog = services.stores.catalog
        queued = send_study(
            catalog, services.settings.peers, asked.destination, asked.study_instance_uid
        )
        resting = [
            Resting(reason=one.reason, next_try=datetime.fromtimestamp(one.due_at, UTC))
            for one in resting_destinations(catalog)
            if one.destination == asked.destination
        ]
        return Queued(
            objects=queued.new, waiting=queued.waiting, resting=resting[0] if resting else None
        )

    return routes
