"""The study, series and instance resources (PS3.18 section 10.1.1) and what they name here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request, Response

from cbmir_node.catalog.keys import StudyRootLevel
from cbmir_node.catalog.query.retrieval import StoredObject, stored_objects
from cbmir_node.presentation.pictures import not_kept
from cbmir_node.web.problems import Problem
from cbmir_node.web.services import WebServices

ROOT = "/dicom-web"
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True)
class Resource:
    """A study, series or instance that a path names."""

    study: str
    series: str = ""
    instance: str = ""

    @property
    def level(self) -> StudyRootLevel:
        """Query/Retrieve Level."""
        return "IMAGE" if self.instance else "SERIES" if self.series else "STUDY"

    @property
    def uid(self) -> str:
        """UID at its level."""
        return self.instance or self.series or self.study

    def keys(self) -> dict[str, str]:
        """Return the unique keys that name it."""
        return {
            keyword: uid
            for keyword, uid in (
                ("StudyInstanceUID", self.study),
                ("SeriesInstanceUID", self.series),
                ("SOPInstanceUID", self.instance),
            )
            if uid
        }


def service_url(request: Request) -> str:
    """Return the URL of the service as the client sees it, without a slash at its end."""
    url = request.base_url
    _, port = request.scope.get("server") or ("", None)
    is_loopback = url.scheme == "http" and _LOOPBACK.fullmatch(url.hostname or "")
    if url.port is None and port not in (None, 80) and is_loopback:
        url = url.replace(port=port)  # dicomweb-client names the host alone
    return f"{str(url).rstrip('/')}{ROOT}"


def resource_url(service: str, study: str, series: str = "", instance: str = "") -> str:
    """Return the URL of a study, series or instance."""
    url = f"{service}/studies/{study}"
    url += f"/series/{series}" if series else ""
    return url + (f"/instances/{instance}" if instance else "")


@dataclass(frozen=True)
class NamedObjects:
    """The objects below a resource.

    Attributes
    ----------
    kept : sequence of StoredObject
        Those with a file here, at least one.
    missing : int
        How many have none (any more).
    elsewhere : str
        AE title of who has them; empty when nobody is known.
    """

    kept: Sequence[StoredObject]
    missing: int
    elsewhere: str

    @property
    def warning(self) -> str:
        """What a client must be told of those that are missing; empty when none are."""
        if not self.missing:
            return ""
        source = f"; retrieve them from {self.elsewhere}" if self.elsewhere else ""
        return f"{self.missing} instances are not kept here{source}"


def named_objects(services: WebServices, resource: Resource) -> NamedObjects:
    """Return the objects of a resource.

    Raises
    ------
    Problem
        404: the node does not know it.
    NotKeptError
        Nothing of it is kept here.
    """
    objects = stored_objects(services.stores.catalog, resource.level, resource.keys())
    if not objects:
        raise unknown(resource)
    kept = [stored for stored in objects if stored.path]
    elsewhere = services.settings.retention.retrieve_from or ""
    if not kept:
        raise not_kept(services.settings)
    return NamedObjects(kept, len(objects) - len(kept), elsewhere)


def unknown(resource: Resource) -> Problem:
    """Return the problem of a resource that is not in the catalogue."""
    kind = {"STUDY": "study", "SERIES": "series", "IMAGE": "instance"}[resource.level]
    return Problem(404, f"the node has no such {kind}: {resource.uid}; search for it")


def warning_header(service: str, texts: Sequence[str]) -> dict[str, str]:
    """Return the header field with warnings (PS3.18 section 8.3.4), none where there are none."""
    told = ", ".join(f'299 {service} "{text}"' for text in texts if text)
    return {"Warning": told} if told else {}


def entity_tag(objects: Sequence[StoredObject], *parts: str) -> str:
    """Return a validator (RFC 9110 section 8.8.3): a file of the archive never changes."""
    digest = hashlib.sha256("\0".join(parts).encode())
    for stored in objects:
        digest.update(f"\0{stored.path}".encode())
    return f'"{digest.hexdigest()[:32]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """Return 304 where the client has what `tag` validates (RFC 9110 section 13.1.2)."""
    sent = {one.strip().removeprefix("W/") for one in _if_none_match(request)}
    return Response(status_code=304, headers=validator(tag)) if {tag, "*"} & sent else None


def validator(tag: str) -> Mapping[str, str]:
    """Return the header fields that let a client ask whether what it has is still current."""
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept"}


def _if_none_match(request: Request) -> list[str]:
    return ",".join(request.headers.getlist("if-none-match")).split(",")
