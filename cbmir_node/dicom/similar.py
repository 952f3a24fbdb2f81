"""Similar studies, series and images as a C-FIND answers them.

On the standard Study Root class at STUDY level of the similarity view, so that any viewer can ask,
and on the private class at every level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydicom import Dataset

from cbmir_node.answers.private_elements import ANSWERED, ANSWERED_WHEN_ASKED
from cbmir_node.answers.query_keys import QueryKeys, is_definite, tag_of
from cbmir_node.answers.similar import (
    SERIES_KEYS_OF_STUDY,
    SimilaritySearcher,
    similar_answers,
)
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import UNIQUE_KEY
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.config import Settings
from cbmir_node.dicom.keys import pending_status, read_keys
from cbmir_node.dicom.private_request import PrivateRequest, read_private_request
from cbmir_node.dicom.statuses import RefusedRequestError, Status
from cbmir_node.errors import UnknownExampleError
from cbmir_node.search.query import (
    MAX_EXAMPLES,
    Example,
    SimilarityLevel,
    SimilarityQuery,
)

_EXAMPLE_KEYS = ("AccessionNumber", "PatientID")


def similar_matches(
    identifier: Dataset,
    catalog: Catalog,
    search: SimilaritySearcher,
    settings: Settings,
    *,
    private_class: bool,
) -> Iterator[tuple[Status, Dataset]]:
    """Yield status and identifier of each similar study, series or image, best first.

    Parameters
    ----------
    identifier : Dataset
        The request's; the example is named by the level's unique key or by the private block, at
        STUDY level also by AccessionNumber or by PatientID (its newest study).
    private_class : bool
        Whether it came by the private SOP class: all levels, and the private block in every
        answer. Otherwise only the private elements asked for are returned (PS3.4 C.4.1.1.3.2).

    Raises
    ------
    RefusedRequestError
        The request is malformed.
    QueryError
        It names no usable example.
    """
    levels: tuple[SimilarityLevel, ...] = (
        ("STUDY", "SERIES", "IMAGE") if private_class else ("STUDY",)
    )
    keys = read_keys(identifier, levels, extra=SERIES_KEYS_OF_STUDY)
    private = read_private_request(identifier)
    level = cast(SimilarityLevel, keys.level)
    ranking = search.answer(
        SimilarityQuery(
            examples=_examples(keys, private, catalog, search),
            negative_examples=[Example(level, uid) for uid in private.negative_examples],
            level=level,
            k=private.maximum_results,
            method=private.method,
            rerank=private.rerank,
            space=private.space,
            by_class=private.by_class,
            predicted_class=private.predicted_class,
            same_tags=private.same_tags,
            filters=_filters(keys),
            minimum_age=private.minimum_age,
            maximum_age=private.maximum_age,
            minimum_similarity=private.minimum_similarity,
        )
    )
    elements = [
        element
        for element in (*ANSWERED, *ANSWERED_WHEN_ASKED)
        if element in private.present or (private_class and element in ANSWERED)
    ]
    status = pending_status(keys)
    for answer in similar_answers(ranking, keys, elements, catalog, settings):
        yield status, answer


def _examples(
    keys: QueryKeys, private: PrivateRequest, catalog: Catalog, search: SimilaritySearcher
) -> list[Example]:
    level = cast(SimilarityLevel, keys.level)
    unique = UNIQUE_KEY[level]
    named = keys.matching.get(unique, "")
    uids = [uid for uid in named.split("\\") if is_definite(unique, uid)]
    uids = [uid.strip() for uid in (*uids, *private.positive_examples)]
    if not uids and level == "STUDY":
        uids = _studies_named_otherwise(keys, catalog, search)
    if not uids:
        ways = f"{unique}, {' or '.join(_EXAMPLE_KEYS)}" if level == "STUDY" else unique
        raise RefusedRequestError(
            Status.IDENTIFIER_MISMATCH, f"name an example: {ways}", tag_of(unique)
        )
    return [Example(level, uid) for uid in dict.fromkeys(uids)]


def _studies_named_otherwise(
    keys: QueryKeys, catalog: Catalog, search: SimilaritySearcher
) -> list[str]:
    """Return the studies of an accession number, or the newest usable one of a patient."""
    names = {key: keys.matching[key] for key in _EXAMPLE_KEYS if _names_example(keys, key)}
    if not names:
        return []
    if "IssuerOfPatientID" in keys.matching and "PatientID" in names:
        names["IssuerOfPatientID"] = keys.matching["IssuerOfPatientID"]
    if "AccessionNumber" in names:
        found = find(catalog, "STUDY", names, [UNIQUE_KEY["STUDY"]], MAX_EXAMPLES)
        uids = [match.values[UNIQUE_KEY["STUDY"]] for match in found]
    else:
        newest = search.newest_study(names)
        uids = [] if newest is None else [newest]
    if not uids:
        raise UnknownExampleError(f"the node has no study with this {' and '.join(names)}")
    return uids


def _filters(keys: QueryKeys) -> dict[str, str]:
    """Return the keys that restrict the candidates: all but those that name an example.

    The unique keys never do: a viewer repeats those of the levels above the example's.
    """
    named = {key for key in _EXAMPLE_KEYS if _names_example(keys, key)}
    if "PatientID" in named:
        named.add("IssuerOfPatientID")
    named |= {UNIQUE_KEY["STUDY"], UNIQUE_KEY["SERIES"], UNIQUE_KEY["IMAGE"]}
    return {keyword: text for keyword, text in keys.matching.items() if keyword not in named}


def _names_example(keys: QueryKeys, keyword: str) -> bool:
    return is_definite(keyword, keys.matching.get(keyword, ""))
