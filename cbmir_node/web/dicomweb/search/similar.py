"""Similarity as an extension of QIDO-RS: ``/studies?similar-to=<UID>`` (PS3.18 section 8.3).

Results are ordered, best first, and carry the private block of `answers.private_elements`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from fastapi import Request, Response

from cbmir_node.answers.private_elements import ANSWERED, ANSWERED_WHEN_ASKED
from cbmir_node.answers.similar import SERIES_KEYS_OF_STUDY, similar_answers
from cbmir_node.archive.header import is_uid
from cbmir_node.catalog.keys import Level
from cbmir_node.search.query import (
    MAX_EXAMPLES,
    METHODS,
    SAME_TAGS,
    Example,
    Method,
    SameTag,
    SimilarityLevel,
    SimilarityQuery,
)
from cbmir_node.web.dicomweb.media_types import JSON_TYPES, accepted, choose
from cbmir_node.web.dicomweb.parameter_values import Parameters, only_value, wrong_value
from cbmir_node.web.dicomweb.search.parameters import SearchParameters, read_search_parameters
from cbmir_node.web.dicomweb.search.results import results_response
from cbmir_node.web.services import WebServices

EXAMPLES = frozenset({"similar-to", "not-similar-to"})
CHOICES = frozenset(
    {
        *("k", "method", "rerank", "space", "by-class", "predicted-class", "same-tags"),
        *("same-patient", "minimum-age", "maximum-age", "minimum-similarity"),
    }
)
"""Parameters that choose how is searched; each leaves its matter as configured when absent."""

_MOST_RESULTS = 65535
_NO_TAGS = "none"
_NO_FUZZY = "fuzzymatching is not supported with similarity; only literal matching was performed"


def search_similar(
    services: WebServices, request: Request, level: Level, above: Mapping[str, str]
) -> Response:
    """Answer a search with the images, series or studies that are like those it names.

    Raises
    ------
    Problem
        A parameter has a value that it cannot have, or nothing is acceptable.
    QueryError
        The query cannot be answered.
    """
    asked = read_similarity_parameters(request, level, above)
    return similar_response(services, request, asked, similarity_query(asked))


def read_similarity_parameters(
    request: Request,
    level: Level,
    above: Mapping[str, str] | None = None,
    extensions: frozenset[str] = EXAMPLES | CHOICES,
) -> SearchParameters:
    """Read the query component of a search by similarity; raises as `search_similar`."""
    return read_search_parameters(
        request.query_params.multi_items(),
        level,
        above,
        extensions=extensions,
        extra=SERIES_KEYS_OF_STUDY,
    )


def similar_response(
    services: WebServices, request: Request, asked: SearchParameters, query: SimilarityQuery
) -> Response:
    """Rank by similarity and answer as a search does.

    Parameters
    ----------
    services : WebServices
    request : Request
    asked : SearchParameters
        Of `read_similarity_parameters`.
    query : SimilarityQuery
        Of `similarity_query`.

    Raises
    ------
    Problem, QueryError
        As `search_similar`.
    """
    media_type = choose(accepted(request), JSON_TYPES)
    ranking = services.search.answer(query)
    end = None if asked.limit is None else asked.offset + asked.limit
    ranking = replace(ranking, matches=ranking.matches[asked.offset : end])
    elements = (*ANSWERED, *ANSWERED_WHEN_ASKED)
    answers = similar_answers(
        *(ranking, asked.keys, elements, services.stores.catalog, services.settings)
    )
    warnings = [*asked.warnings, _NO_FUZZY if asked.fuzzy_names else ""]
    return results_response(request, answers, media_type, warnings)


def similarity_query(asked: SearchParameters) -> SimilarityQuery:
    """Return the query with the examples that are named by UID; raises as `search_similar`."""
    others = asked.others
    minimum_similarity = _number(others, "minimum-similarity", 0, 1)
    same_patient = _flag(others, "same-patient")
    return SimilarityQuery(
        examples=_named(asked, "similar-to"),
        negative_examples=_named(asked, "not-similar-to"),
        level=cast(SimilarityLevel, asked.keys.level),
        k=_results(asked),
        method=cast(Method | None, _one_of(others, "method", METHODS)),
        rerank=_flag(others, "rerank"),
        space=_text(others, "space"),
        by_class=_flag(others, "by-class"),
        predicted_class=_text(others, "predicted-class"),
        same_tags=_same_tags(others),
        filters=asked.keys.matching,
        minimum_age=_number(others, "minimum-age", 0, 200),
        maximum_age=_number(others, "maximum-age", 0, 200),
        minimum_similarity=minimum_similarity or 0.0,
        exclude_same_patient=None if same_patient is None else not same_patient,
    )


def _results(asked: SearchParameters) -> int | None:
    """Return how many are ranked: `k`, or else what a limit reaches."""
    k = _number(asked.others, "k", 1, _MOST_RESULTS)
    if k is not None:
        if k != int(k):
            raise wrong_value("k", "must be a whole number")
        return int(k)
    if asked.limit is None:
        return None
    return max(1, min(asked.offset + asked.limit, _MOST_RESULTS))


def _named(asked: SearchParameters, name: str) -> list[Example]:
    sent = [uid.strip() for value in asked.others.get(name, []) for uid in value.split(",")]
    uids = list(dict.fromkeys(uid for uid in sent if uid))
    if any(not is_uid(uid) for uid in uids):
        raise wrong_value(name, "must be a list of UIDs, separated by commas")
    if len(uids) > MAX_EXAMPLES:
        raise wrong_value(name, f"takes {MAX_EXAMPLES} examples at most")
    return [Example(cast(SimilarityLevel, asked.keys.level), uid) for uid in uids]


def _text(others: Parameters, name: str) -> str | None:
    return (only_value(others, name) or "").strip() or None


def _number(others: Parameters, name: str, low: float, high: float) -> float | None:
    text = _text(others, name)
    if text is None:
        return None
    number = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?", text) else math.nan
    if not low <= number <= high:
        raise wrong_value(name, f"must be a number in {low}-{high}")
    return number


def _flag(others: Parameters, name: str) -> bool | None:
    text = _one_of(others, name, ("true", "false"))
    return None if text is None else text == "true"


def _one_of(others: Parameters, name: str, values: Sequence[str]) -> str | None:
    text = _text(others, name)
    if text is not None and text not in values:
        raise wrong_value(name, f"must be one of {', '.join(values)}")
    return text


def _same_tags(others: Parameters) -> tuple[SameTag, ...] | None:
    names = [name for value in others.get("same-tags", []) for name in value.split(",") if name]
    if names == [_NO_TAGS]:
        return ()
    if any(name not in SAME_TAGS for name in names):
        raise wrong_value("same-tags", f"must be of {', '.join(SAME_TAGS)}, or {_NO_TAGS}")
    return tuple(cast(SameTag, name) for name in dict.fromkeys(names)) or None
