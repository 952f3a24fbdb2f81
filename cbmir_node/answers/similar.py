"""Similar studies, series and images as data sets, whichever protocol asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from cbmir_node.answers.data_sets import make_answer
from cbmir_node.answers.private_elements import PrivateElement, add_private_block
from cbmir_node.answers.query_keys import QueryKeys
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import UNIQUE_KEY
from cbmir_node.catalog.query.hierarchy import Match, find, rows_by_number
from cbmir_node.config import Settings
from cbmir_node.search.query import SimilarityAnswer, SimilarityQuery, SimilarMatch

SERIES_KEYS_OF_STUDY = ("Modality", "BodyPartExamined")
"""Series level keys that filter, and describe the matched image, at STUDY level: our extension."""

_LENGTH_OF_VR = {"SH": 16, "LO": 64}


class SimilaritySearcher(Protocol):
    """What the similarity services need of the search."""

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        """Rank by similarity; `QueryError` and its kinds say why that is not possible."""
        ...

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return the UID of the newest study that matches ordinary keys, embedded ones first."""
        ...


def similar_answers(
    ranking: SimilarityAnswer,
    keys: QueryKeys,
    elements: Sequence[PrivateElement],
    catalog: Catalog,
    settings: Settings,
) -> Iterator[Dataset]:
    """Yield a data set for each match of a ranking, best first.

    Parameters
    ----------
    ranking : SimilarityAnswer
    keys : QueryKeys
        What to return of each match.
    elements : sequence of PrivateElement
        Of the private block; none leaves it out.
    """
    described = _described(keys, ranking, catalog)
    for match in ranking.matches:
        if match.row not in described:  # removed since it was ranked
            continue
        found = described[match.row]
        _add_rank(found.values, keys, match, settings.dicom.rank_in)
        answer = make_answer(found, keys, settings)
        add_private_block(answer, elements, match, ranking)
        yield answer


def _described(keys: QueryKeys, ranking: SimilarityAnswer, catalog: Catalog) -> dict[int, Match]:
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


def _add_rank(values: dict[str, str], keys: QueryKeys, match: SimilarMatch, keyword: str) -> None:
    """Put rank and similarity in front of the configured text, where it was asked for."""
    if keyword in keys.requested:
        text = f"#{match.rank} {match.similarity:.2f} {values.get(keyword, '')}".strip()
        values[keyword] = text[: _LENGTH_OF_VR[dictionary_VR(keyword)]]
