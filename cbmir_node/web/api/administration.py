"""What an administrator sees and sets going again."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cbmir_node.catalog.work.requests import request_failed_again
from cbmir_node.web.access.rights import MAY_ADMINISTER
from cbmir_node.web.api.fields import Answer
from cbmir_node.web.node_report import NodeReport
from cbmir_node.web.services import WebServices


class RetryRequest(BaseModel):
    """Which failed instances are tried again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str | None = Field(
        None, max_length=4096, description="only those that failed for this reason"
    )


class Retried(Answer):
    """What waits by that."""

    instances: int


def router(services: WebServices) -> APIRouter:
    """Build the routes of the administration page."""
    routes = APIRouter(prefix="/administration", dependencies=[MAY_ADMINISTER])

    @routes.get("")
    def report() -> NodeReport:
        """Describe the whole node: what it holds, does and lacks."""
        return services.health.report()

    @routes.post("/retry")
    def retry(asked: RetryRequest) -> Retried:
        """Let the worker try failed instances again; those without pixels here wait on."""
        return Retried(instances=request_failed_again(services.stores.catalog, asked.reason))

    return routes
