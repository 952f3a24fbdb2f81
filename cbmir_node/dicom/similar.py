"""Similar studies, series and images as a C-FIND answers them.

On the standard Study Root class at STUDY level of the similarity view, so that any viewer can ask,
and on the private class at every level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, cast

from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import UNIQUE_KEY
from cbmir_node.catalog.query.hierarchy import Match, find, rows_by_number
from cbmir_node.config import Settings
from cbmir_node.dicom.answers import make_answer
from cbmir_node.dicom.keys import FindKeys, is_definite, read_keys, tag_of
from cbmir_node.dicom.private import ANSWERED, ANSWERED_WHEN_ASKED, add_private_block
from cbmir_node.dicom.private_request import PrivateRequest, read_private_request
from cbmir_node.dicom.statuses import RefusedRequestError, Status
from cbmir_node.errors import UnknownExampleError
from cbmir_node.search.query import (
    Example,
    SimilarityAnswer,
    SimilarityLevel,
    SimilarityQuery,
    SimilarMatch,
)

SERIES_KEYS_OF_STUDY = ("Modality", "BodyPartExamined")
"""Series level keys that filter, and describe the matched image, at STUDY level: our extension."""

_EXAMPLE_KEYS = ("AccessionNumber", "PatientID")
_MAX_EXAMPLES = 100
_LENGTH_OF_VR = {"SH": 16, "LO": 64}


class SimilarAnswers(Protocol):
    """What the similarity services need of the search."""

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        """Rank by similarity; `QueryError` and its kinds say why that is not possible."""
        ...

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return the UID of the newest study that matches ordinary keys, embedded ones first."""
        ...


def similar_matches(
    identifier: Dataset,
    catalog: Catalog,
    search: SimilarAnswers,
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
    ranking = search.answer(
        SimilarityQuery(
            examples=_examples(keys, private, catalog, search),
            level=cast(SimilarityLevel, keys.level),
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
    described = _described(keys, ranking, catalog)
    for match in ranking.matches:
        if match.row not in described:  # removed since it was ranked
            continue
        found = described[match.row]
        _add_rank(found.values, keys, match, settings.dicom.rank_in)
        answer = make_answer(found, keys, settings)
        add_private_block(answer, elements, match, ranking)
        yield keys.pending_status, answer


def _examples(
    keys: FindKeys, private: PrivateRequest, catalog: Catalog, search: SimilarAnswers
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


def _studies_named_otherwise(keys: FindKeys, catalog: Catalog, search: SimilarAnswers) -> list[str]:
    """Return the studies of an accession number, or the newest usable one of a patient."""
    names = {key: keys.matching[key] for key in _EXAMPLE_KEYS if _names_example(keys, key)}
    if not names:
        return []
    if "IssuerOfPatientID" in keys.matching and "PatientID" in names:
        names["IssuerOfPatientID"] = keys.matching["IssuerOfPatientID"]
    if "AccessionNumber" in names:
        found = find(catalog, "STUDY", names, [UNIQUE_KEY["STUDY"]], _MAX_EXAMPLES)
        uids = [match.values[UNIQUE_KEY["STUDY"]] for match in found]
    else:
        newest = search.newest_study(names)
        uids = [] if newest is None else [newest]
    if not uids:
        raise UnknownExampleError(f"the node has no study with this {' and '.join(names)}")
    return uids


def _filters(keys: FindKeys) -> dict[str, str]:
    """Return the keys that restrict the candidates: all but those that name an example.

    The unique keys never do: a viewer repeats those of the levels above the example's.
    """
    named = {key for key in _EXAMPLE_KEYS if _names_example(keys, key)}
    if "PatientID" in named:
        named.add("IssuerOfPatientID")
    named |= {UNIQUE_KEY["STUDY"], UNIQUE_KEY["SERIES"], UNIQUE_KEY["IMAGE"]}
    return {keyword: text for keyword, text in keys.matching.items() if keyword not in named}


def _names_example(keys: FindKeys, keyword: str) -> bool:
    return is_definite(keyword, keys.matching.get(keyword, ""))


def _described(keys: FindKeys, ranking: SimilarityAnswer, catalog: Catalog) -> dict[int, Match]:
    """Return what was asked for of each answer, by row number."""
    rows = [match.row for match in ranking.matches]
    found = rows_by_number(catalog, keys.level, rows, keys.requested, keys.matching)
    wanted = [key for key in SERIES_KEYS_OF_STUDY if key in keys.requested]
    if keys.level == "STUDY" and wanted and rows:
        images = _matched_images(ranking, wanted, catalog)
        for match in ranking.matches:
            if match.row in found:
                found[match.row].values |= images.get(match.matched_sop_instance_uid, {})
    return found


def _matched_images(
    ranking: SimilarityAnswer, wanted: list[str], catalog: Catalog
) -> dict[str, dict[str, str]]:
    unique = UNIQUE_KEY["IMAGE"]
    uids = "\\".join(match.matched_sop_instance_uid for match in ranking.matches)
    images = find(catalog, "IMAGE", {unique: uids}, [unique, *wanted], len(ranking.matches))
    return {image.values.pop(unique): image.values for image in images}


def _add_rank(values: dict[str, str], keys: FindKeys, match: SimilarMatch, keyword: str) -> None:
    """Put rank and similarity in front of the configured text, where it was asked for."""
    if keyword in keys.requested:
        text = f"#{match.rank} {match.similarity:.2f} {values.get(keyword, '')}".strip()
        values[keyword] = text[: _LENGTH_OF_VR[dictionary_VR(keyword)]]
