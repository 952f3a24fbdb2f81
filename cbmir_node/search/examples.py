"""The images that stand for an example or a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbmir_node.catalog.vector_lookup import Group, Int64Array, Places, VectorLookup
from cbmir_node.errors import NotEmbeddedError, QueryError, UnknownExampleError
from cbmir_node.index import SpaceCache
from cbmir_node.search.query import Example, Float32Array, SimilarityLevel
from cbmir_node.search.ranking import spread

EXAMPLE_IMAGES = 64
"""Images that stand for one example, evenly spread over it."""
IMAGES_PER_SERIES = 32
"""Images of one series that take part in a comparison, evenly spread over it."""

_OWNERS: tuple[Group, ...] = ("study", "patient")

GROUP_OF_LEVEL: dict[SimilarityLevel, Group] = {
    "STUDY": "study",
    "SERIES": "series",
    "IMAGE": "instance",
}


@dataclass(frozen=True)
class ResolvedExample:
    """An example with its vectors.

    Attributes
    ----------
    vectors : float32 [M, D]
        Of the images that stand for it.
    own : mapping of {"study", "patient"} to list of int
        Rows of its study and patient; empty for a file whose study or patient the node lacks.
    """

    vectors: Float32Array
    own: Mapping[Group, list[int]]


def resolve(example: Example, lookup: VectorLookup, cache: SpaceCache) -> ResolvedExample:
    """Find an example's vectors.

    Raises
    ------
    UnknownExampleError, NotEmbeddedError
        It is not in the catalogue, or has no vector.
    QueryError
        A file was embedded with another model.
    """
    if example.vectors is not None:
        if example.model_sha256 != cache.identity.model_sha256:
            raise QueryError("the example was embedded with another model; embed it again")
        own: dict[Group, list[int]] = {
            "study": lookup.rows_of("study", example.study_instance_uid),
            "patient": lookup.rows_of("patient", example.patient_identity),
        }
        return ResolvedExample(example.vectors[:EXAMPLE_IMAGES], own)
    group = GROUP_OF_LEVEL[example.level]
    rows = lookup.rows_of(group, example.uid)
    if not rows:
        raise UnknownExampleError(f"the node has no {group} {example.uid}")
    places = lookup.in_groups(group, rows)
    places = places.take(cache.holds(places.vector))  # a damaged vector is in no index
    if not len(places):
        raise NotEmbeddedError(
            f"{group} {example.uid} has no vector: it is pending, failed or without pixels; "
            "'cbmir-node status --failures' says which"
        )
    chosen = standing_for(places, group)
    evenly = spread(np.zeros(len(chosen), dtype=np.int64), EXAMPLE_IMAGES)
    own = {owner: np.unique(places.group(owner)).tolist() for owner in _OWNERS}
    return ResolvedExample(cache.vectors(chosen.take(evenly).vector), own)


def standing_for(places: Places, group: Group) -> Places:
    """Choose the images that stand for each group.

    Localizers, derived images and secondary captures do so only where a group has nothing else;
    of each series at most `IMAGES_PER_SERIES` take part, so that a comparison's cost is bounded.
    """
    groups = places.group(group)
    represented = np.unique(groups[places.representative])
    usable = np.flatnonzero(places.representative | ~np.isin(groups, represented))
    return places.take(usable[spread(places.series[usable], IMAGES_PER_SERIES)])


def nearest_groups(
    ids: Int64Array, similarities: Float32Array, places: Places, group: Group, most: int
) -> Int64Array:
    """Return the groups of the nearest images, nearest first, at most `most`.

    Parameters
    ----------
    ids : int64 [M, k]
        Neighbours of each example image, -1 where there are fewer.
    similarities : float32 [M, k]
    places : Places
        Of the neighbours.
    """
    order = np.argsort(-similarities, axis=None, kind="stable")
    ranked = ids.ravel()[order]
    ranked = ranked[np.isin(ranked, places.vector)]
    groups = places.group(group)[np.searchsorted(places.vector, ranked)]
    _, first = np.unique(groups, return_index=True)
    return groups[np.sort(first)[:most]]
