"""What the page has to know of the node before it asks anything."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter, Request
from pydantic import Field

from cbmir_node import __version__
from cbmir_node.catalog.query.images import stored_modalities
from cbmir_node.config import Right, SearchSettings
from cbmir_node.errors import CbmirError
from cbmir_node.search.query import METHODS, Method, SameTag
from cbmir_node.web.access.callers import Caller, caller_of
from cbmir_node.web.api.fields import Answer
from cbmir_node.web.parameters import LevelName
from cbmir_node.web.services import WebServices

_USUAL_MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA")
_MODALITIES_KEPT_S = 60.0
_NOBODY = Caller("", frozenset())


class User(Answer):
    """Who asks."""

    name: str = Field(description="empty where nobody has to log in")
    rights: list[Right] = Field(description="none implies another")


class ModelInUse(Answer):
    """The model that answers queries."""

    name: str
    version: str
    labels: list[str] = Field(description="its classes; none for some models")
    spaces: list[str]
    code_bits: int = Field(description="0: it has no hash code, so hamming is not possible")
    has_saliency: bool


class Defaults(Answer):
    """What a query without wishes means."""

    results: int
    max_results: int
    method: Method
    rerank: bool
    space: str
    by_class: bool
    same_tags: list[SameTag]
    same_patient: bool
    level: LevelName


class Viewer(Answer):
    """A link to another viewer."""

    name: str
    url: str = Field(description="with {StudyInstanceUID} to be replaced")


class NodeDescription(Answer):
    """The node, as its page needs to know it."""

    version: str
    user: User
    login_required: bool = Field(description="whether people log in here at all")
    csrf_token: str | None = Field(description="goes into X-CSRF-Token of unsafe requests")
    model: ModelInUse
    defaults: Defaults
    methods: list[Method] = Field(description="possible with the model")
    viewers: list[Viewer]
    destinations: list[str] = Field(description="AE titles that a study can be sent to")
    max_example_bytes: int
    modalities: list[str] = Field(description="that occur, and the usual ones")


def router(services: WebServices) -> APIRouter:
    """Build the route that describes the node."""
    routes = APIRouter()
    modalities = _Modalities(services)
    http = services.settings.http

    @routes.get("/node")
    def node(request: Request) -> NodeDescription:
        """Describe the node: who asks, the model, what can be chosen."""
        caller = caller_of(request) or _NOBODY  # MAY_READ has refused strangers
        model = _model(services)
        return NodeDescription(
            version=__version__,
            user=User(name=caller.name, rights=sorted(caller.rights)),
            login_required=bool(http.users),
            csrf_token=caller.csrf_token,
            model=model,
            defaults=_defaults(services.settings.search),
            methods=[method for method in METHODS if method != "hamming" or model.code_bits],
            viewers=[Viewer(name=name, url=url) for name, url in http.viewers.items()],
            destinations=sorted(services.settings.peers),
            max_example_bytes=http.max_example_mib << 20,
            modalities=modalities.get(),
        )

    return routes


class _Modalities:
    """The modalities of the catalogue, read once a minute: a million series are many to look at."""

    def __init__(self, services: WebServices) -> None:
        self._catalog = services.stores.catalog
        self._lock = threading.Lock()
        self._found: list[str] = []
        self._until = 0.0

    def get(self) -> list[str]:
        with self._lock:
            if time.monotonic() > self._until:
                self._found = sorted({*stored_modalities(self._catalog), *_USUAL_MODALITIES})
                self._until = time.monotonic() + _MODALITIES_KEPT_S
            return self._found


def _model(services: WebServices) -> ModelInUse:
    model = services.stores.registry.active()
    try:
        has_saliency = services.network.get().description.has_saliency
    except CbmirError:  # searching goes on without the network in this process
        has_saliency = False
    return ModelInUse(
        name=model.name,
        version=model.version,
        labels=list(model.labels or ()),
        spaces=sorted(model.spaces),
        code_bits=model.code_bits,
        has_saliency=has_saliency,
    )


def _defaults(search: SearchSettings) -> Defaults:
    return Defaults(
        results=search.results,
        max_results=search.max_results,
        method=search.method,
        rerank=search.rerank,
        space=search.space,
        by_class=search.by_class,
        same_tags=list(search.same_tags),
        same_patient=not search.exclude_same_patient,
        level="study",
    )
