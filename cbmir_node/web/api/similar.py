"""Similar studies, series and images, described for a page in one answer."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cbmir_node.catalog.query.conditions import conditions
from cbmir_node.catalog.query.hierarchy import matched_keys
from cbmir_node.catalog.query.images import describe_images
from cbmir_node.catalog.vectors.thumbnails import read_thumbnails
from cbmir_node.errors import QueryError
from cbmir_node.search.query import (
    MAX_EXAMPLES,
    Choices,
    Example,
    Method,
    SameTag,
    SimilarityAnswer,
    SimilarityQuery,
)
from cbmir_node.web.access.callers import CallerName
from cbmir_node.web.api.fields import Answer, StoredImage, Token
from cbmir_node.web.parameters import LEVEL_OF_NAME, LevelName, Uid
from cbmir_node.web.services import WebServices

_MOST_FILTERS = 32

Age = Annotated[float, Field(ge=0, le=200, allow_inf_nan=False, description="years, included")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredExample(_Asked):
    """Something in the node."""

    level: LevelName
    uid: Uid


class DroppedExample(_Asked):
    """A file that was dropped in."""

    token: Token


class SimilarRequest(_Asked):
    """A question for similar cases; what is left out is as configured."""

    examples: list[StoredExample | DroppedExample] = Field(
        min_length=1, max_length=MAX_EXAMPLES, description="what the answers shall look like"
    )
    negative_examples: list[StoredExample | DroppedExample] = Field(
        default=[], max_length=MAX_EXAMPLES, description="what they shall not look like"
    )
    level: LevelName = Field("study", description="what is ranked")
    k: int | None = Field(None, ge=1, le=10_000, description="results at most")
    method: Method | None = Field(None, description="how images are compared")
    rerank: bool | None = Field(None, description="with hamming: order what is near by cosine")
    space: str | None = Field(None, max_length=256, description="one of the model's `spaces`")
    by_class: bool | None = Field(
        None, description="leave out what the model takes for another class than the examples"
    )
    predicted_class: str | None = Field(
        None, max_length=256, description="only what the model takes for this class"
    )
    same_tags: list[SameTag] | None = Field(
        None, max_length=4, description="tags that results share with an example"
    )
    same_patient: bool | None = Field(
        None, description="whether other studies of the examples' patients may be results"
    )
    filters: dict[str, Annotated[str, StringConstraints(max_length=65_536)]] = Field(
        default={},
        max_length=_MOST_FILTERS,
        description="keyword → value as in QIDO-RS: wildcards, date ranges, several by backslash",
        examples=[{"Modality": "CT", "StudyDate": "20200101-"}],
    )
    minimum_age: Age | None = None
    maximum_age: Age | None = None
    minimum_similarity: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="limits `similarity_to_examples`"
    )
    thumbnails: bool = Field(
        False, description="whether results bring their thumbnail along, which spares as many calls"
    )


class SimilarResult(StoredImage):
    """A similar case, described by its image that is most like the examples."""

    rank: int = Field(ge=1)
    similarity: float = Field(
        ge=0, le=1, description="what is ranked by; on a scale of its own with negative examples"
    )
    similarity_to_examples: float = Field(
        ge=0, le=1, description="to `examples` alone; the same without negative examples"
    )
    label: str | None = Field(description="what the model takes the image for")
    probability: float | None
    thumbnail: str | None = Field(
        None, description="JPEG in base64, where it is asked for and kept; else call for it"
    )


class ChoicesMade(Answer):
    """The choices that the ranking was made with."""

    k: int
    method: Method
    rerank: bool
    space: str
    by_class: bool
    predicted_class: str | None
    trusted_probability: float
    same_tags: list[SameTag]
    same_age_years: float
    same_patient: bool


class SimilarAnswer(Answer):
    """A ranking, best first."""

    level: LevelName
    model: str = Field(description="name:version")
    choices: ChoicesMade
    seconds: float = Field(description="time the node took")
    results: list[SimilarResult]


def router(services: WebServices) -> APIRouter:
    """Build the route of similarity queries."""
    routes = APIRouter()

    @routes.post("/similar")
    def similar(asked: SimilarRequest, caller: CallerName) -> SimilarAnswer:
        """Find the studies, series or images most like the examples."""
        started = time.perf_counter()
        ranking = services.search.answer(_query(asked, services, caller))
        return SimilarAnswer(
            level=asked.level,
            model=ranking.model,
            choices=_made(ranking.choices),
            results=_results(ranking, services, thumbnails=asked.thumbnails),
            seconds=round(time.perf_counter() - started, 4),
        )

    return routes


def _query(asked: SimilarRequest, services: WebServices, caller: str) -> SimilarityQuery:
    _check(asked.filters)
    return SimilarityQuery(
        examples=[_example(one, services, caller) for one in asked.examples],
        negative_examples=[_example(one, services, caller) for one in asked.negative_examples],
        level=LEVEL_OF_NAME[asked.level],
        k=asked.k,
        method=asked.method,
        rerank=asked.rerank,
        space=asked.space or None,
        by_class=asked.by_class,
        predicted_class=asked.predicted_class or None,
        same_tags=asked.same_tags,
        filters=asked.filters,
        minimum_age=asked.minimum_age,
        maximum_age=asked.maximum_age,
        minimum_similarity=asked.minimum_similarity,
        exclude_same_patient=None if asked.same_patient is None else not asked.same_patient,
    )


def _example(named: StoredExample | DroppedExample, services: WebServices, caller: str) -> Example:
    if isinstance(named, DroppedExample):
        return services.examples.get(named.token, caller).example
    return Example(LEVEL_OF_NAME[named.level], named.uid)


def _check(filters: dict[str, str]) -> None:
    """Name the filter that is at fault; the search would tell of the first in its own order."""
    for keyword, value in filters.items():
        if keyword not in matched_keys():
            raise QueryError(
                f"filters: {keyword[:64]!r} cannot be matched; leave it out", "filters"
            )
        try:
            conditions({keyword: value})
        except QueryError as error:
            raise QueryError(str(error), f"filters.{keyword}") from error


def _made(choices: Choices) -> ChoicesMade:
    made = asdict(choices)
    return ChoicesMade(same_patient=not made.pop("exclude_same_patient"), **made)


def _results(
    ranking: SimilarityAnswer, services: WebServices, *, thumbnails: bool
) -> list[SimilarResult]:
    catalog = services.stores.catalog
    images = describe_images(catalog, [match.matched_sop_instance_uid for match in ranking.matches])
    frames = [
        (match.matched_sop_instance_uid, match.matched_frame_number) for match in ranking.matches
    ]
    pictures = read_thumbnails(catalog, frames) if thumbnails else {}
    return [
        SimilarResult(
            **vars(images[match.matched_sop_instance_uid]),
            frame_number=match.matched_frame_number,
            rank=match.rank,
            similarity=min(1.0, max(0.0, match.similarity)),
            similarity_to_examples=min(1.0, max(0.0, match.similarity_to_examples)),
            label=match.label,
            probability=match.probability,
            thumbnail=b64encode(pictures[frame]).decode() if frame in pictures else None,
        )
        for match, frame in zip(ranking.matches, frames, strict=True)
        if match.matched_sop_instance_uid in images  # removed since it was ranked
    ]
