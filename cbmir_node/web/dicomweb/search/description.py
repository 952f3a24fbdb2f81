"""What the OpenAPI description says of searches.

The functions are dependencies of routes that read the query component themselves, where it also
may have any attribute.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query

from cbmir_node.search.query import Method

_UIDS = r"^[0-9.]+(,[0-9.]+)*$"
_Flag = Literal["true", "false"]
_MOST_UIDS_LENGTH = 6500

ATTRIBUTES: dict[str, Any] = {
    "parameters": [
        {
            "name": "attributes",
            "in": "query",
            "description": "Any attribute by keyword or tag, as PatientID=P1: what results match "
            "(8.3.4.1); what is not supported is named in the header field Warning",
            "style": "form",
            "explode": True,
            "schema": {
                "type": "object",
                "maxProperties": 200,
                "additionalProperties": {"type": "string", "maxLength": 65536},
            },
        }
    ]
}
"""Parameters for ``openapi_extra``."""


def describe_search(
    limit: Annotated[
        int | None, Query(ge=0, le=10**17, description="Results at most (8.3.4.4)")
    ] = None,
    offset: Annotated[
        int | None, Query(ge=0, le=10**17, description="Results to leave out first (8.3.4.4)")
    ] = None,
    fuzzymatching: Annotated[
        _Flag | None, Query(description="Words of a name begin any of its components (8.3.4.2)")
    ] = None,
    includefield: Annotated[
        list[Annotated[str, Query(max_length=4096)]] | None,
        Query(max_length=200, description="Attributes to return besides, or all (8.3.4.3)"),
    ] = None,
) -> None:
    """Describe the parameters of PS3.18 section 8.3.4."""


def describe_similarity(
    similar_to: Annotated[
        str | None,
        Query(
            alias="similar-to",
            json_schema_extra={"pattern": _UIDS},
            max_length=_MOST_UIDS_LENGTH,
            description="UIDs of examples of the level that is searched; results are ranked by "
            "their similarity to them",
        ),
    ] = None,
    not_similar_to: Annotated[
        str | None,
        Query(
            alias="not-similar-to",
            json_schema_extra={"pattern": _UIDS},
            max_length=_MOST_UIDS_LENGTH,
            description="UIDs of what the results should not look like",
        ),
    ] = None,
    k: Annotated[int | None, Query(ge=1, le=65535, description="Results at most")] = None,
    method: Annotated[Method | None, Query(description="How images are compared")] = None,
    rerank: Annotated[
        _Flag | None, Query(description="With hamming: order what is near by cosine")
    ] = None,
    space: Annotated[
        str | None, Query(max_length=256, description="Which of the model's vectors are compared")
    ] = None,
    by_class: Annotated[
        _Flag | None,
        Query(alias="by-class", description="Leave out what the model takes for another class"),
    ] = None,
    predicted_class: Annotated[
        str | None,
        Query(
            alias="predicted-class",
            max_length=256,
            description="Only what the model takes for this class",
        ),
    ] = None,
    same_tags: Annotated[
        str | None,
        Query(
            alias="same-tags",
            max_length=256,
            description="Tags that results share with an example, separated by commas, or none",
        ),
    ] = None,
    same_patient: Annotated[
        _Flag | None,
        Query(alias="same-patient", description="Whether the examples' patients may be results"),
    ] = None,
    minimum_age: Annotated[
        float | None, Query(alias="minimum-age", ge=0, le=200, description="Years, included")
    ] = None,
    maximum_age: Annotated[
        float | None, Query(alias="maximum-age", ge=0, le=200, description="Years, included")
    ] = None,
    minimum_similarity: Annotated[
        float | None, Query(alias="minimum-similarity", ge=0, le=1, description="Included")
    ] = None,
) -> None:
    """Describe the parameters of a search by similarity."""
