"""The images that stand for an example or a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.places import Group, Int64Array, Places
from cbmir_node.errors import NotEmbeddedError, UnknownExampleError
from cbmir_node.index import VectorArray
from cbmir_node.search.comparison import Comparison
from cbmir_node.search.query import Example, Float32Array, SameTag, SimilarityLevel
from cbmir_node.search.ranking import spread

EXAMPLE_IMAGES = 64
"""Images that stand for one example, evenly spread over it, where there are few examples."""
IMAGES_OF_ALL_EXAMPLES = 1024
"""Images that stand for all examples of a query together: bounds what they cost."""
IMAGES_PER_SERIES = 32
"""Images of one series that take part in a comparison, evenly spread over it."""
IMAGES_PER_GROUP = 512
"""Images of one candidate that take part, evenly spread over its series."""

_OWNERS: tuple[Group, ...] = ("instance", "series", "study", "patient")

GROUP_OF_LEVEL: dict[SimilarityLevel, Group] = {
    "STUDY": "study",
    "SERIES": "series",
    "IMAGE": "instance",
}


@dataclass(frozen=True)
class ResolvedExample:
    """An example with what is known of it.

    Attributes
    ----------
    near, final : float32 [M, D] or uint8 [M, B / 8]
        Vectors or codes of the images that stand for it: those the index looks for, and those
        that the answers are ranked by.
    group : {"study", "series", "instance"}
        What it is; for a file its study, of whose other images the node may know.
    own : mapping of {"instance", "series", "study", "patient"} to list of int
        Rows of what it is, is in, and consists of. Of a file study and patient, empty where the
        node lacks them.
    images : list of int
        Rows of the vectors that stand for it; none for a file.
    file : Example or None
        A file speaks for itself.
    """

    near: VectorArray
    final: VectorArray
    group: Group
    own: Mapping[Group, list[int]]
    images: Sequence[int] = ()
    file: Example | None = None

    def predictions(self, lookup: VectorLookup) -> list[tuple[str | None, float | None]]:
        """Return what the model takes each of its images for, and how surely."""
        if self.file is not None:
            return list(self.file.predictions[:EXAMPLE_IMAGES])
        frames = lookup.frames(self.images).values()
        return [(frame.label, frame.probability) for frame in frames]

    def tag_values(self, tag: SameTag, lookup: VectorLookup) -> set[str]:
        """Return the values of a tag that its images have, as far as they have one."""
        if self.file is None:
            return lookup.tag_values(tag, self.own["series"])
        value = self.file.tags.get(tag)
        return {value} if value else set()

    def ages(self, lookup: VectorLookup) -> set[float]:
        """Return the patient's age, years, if known."""
        if self.file is None:
            return lookup.ages(self.own["series"])
        return set() if self.file.age_years is None else {self.file.age_years}

    def named(self, level: SimilarityLevel) -> tuple[Group, list[int]]:
        """Return what a judgement of it is about among results of a level, and its rows.

        That is what it is, or the wider result that it is in: of an image among studies its study.
        """
        group = max(self.group, GROUP_OF_LEVEL[level], key=_OWNERS.index)
        return group, self.own[group]


def images_of_each(examples: int) -> int:
    """Return how many images may stand for each of a number of examples."""
    return min(EXAMPLE_IMAGES, max(1, IMAGES_OF_ALL_EXAMPLES // max(1, examples)))


def resolve(
    example: Example,
    near: Comparison,
    final: Comparison,
    images: int = EXAMPLE_IMAGES,
    field: str = "",
) -> ResolvedExample:
    """Find an example's vectors.

    Parameters
    ----------
    example : Example
    near, final : Comparison
        What finds near images, and what ranks.
    images : int
        How many may stand for it at most.
    field : str
        Where the query names it, for errors.

    Raises
    ------
    UnknownExampleError, NotEmbeddedError
        It is not in the catalogue, or has no vector.
    QueryError
        A file was embedded with another model, or lacks what is compared.
    """
    lookup = near.lookup
    if example.vectors is not None:
        own: dict[Group, list[int]] = {
            "study": lookup.rows_of("study", example.study_instance_uid),
            "patient": lookup.rows_of("patient", example.patient_identity),
        }
        vectors, ranked = (one.of_file(example)[:images] for one in (near, final))
        return ResolvedExample(vectors, ranked, "study", own, file=example)
    group = GROUP_OF_LEVEL[example.level]
    rows = lookup.rows_of(group, example.uid)
    if not rows:
        raise UnknownExampleError(f"the node has no {group} {example.uid}", field)
    places = _searched(near, example, rows, field)
    ranked_places = places if final is near else _searched(final, example, rows, field)
    if not len(places) or not len(ranked_places):
        raise NotEmbeddedError(f"{_why_not(example, lookup)} ({group} {example.uid})", field)
    chosen = _evenly(places, group, images)
    own = {owner: np.unique(places.group(owner)).tolist() for owner in _OWNERS}
    if group == "instance":
        own[group] = rows  # an image that others stand for is none of these others
    return ResolvedExample(
        near=near.cache.vectors(chosen),
        final=final.cache.vectors(_evenly(ranked_places, group, images)),
        group=group,
        own=own,
        images=chosen.tolist(),
    )


def _why_not(example: Example, lookup: VectorLookup) -> str:
    """Return why an example has no vector, and what to do about it."""
    found = lookup.state(example.level, example.uid)
    if found is None or not found.state:  # embedded, or removed, since its vectors were looked for
        return "it changed just now; ask again in a moment"
    if found.state == "failed":
        return (
            f"it could not be embedded: {found.reason}; when that is mended, try it again on the"
            " administration page or by 'cbmir-node reindex --failed'"
        )
    if found.state == "skipped":
        return "the images of its series that stood for it are gone; run 'cbmir-node reindex'"
    return found.reason


def _searched(comparison: Comparison, example: Example, rows: list[int], field: str) -> Places:
    """Return the places of an example's vectors, but for damaged ones, which are in no index."""
    group = GROUP_OF_LEVEL[example.level]
    places = comparison.lookup.in_groups(group, rows)
    if group == "instance" and not len(places):
        places = comparison.lookup.in_stand_ins(rows)
    usable = places.take(comparison.cache.holds(places.vector))
    if len(places) and not len(usable):
        raise NotEmbeddedError(
            f"run 'cbmir-node verify --repair': the {comparison.method} index holds no vector of "
            f"{group} {example.uid}",
            field,
        )
    return usable


def _evenly(places: Places, group: Group, images: int) -> Int64Array:
    """Return the vectors of the images that stand for an example."""
    chosen = standing_for(places, group)
    return chosen.vector[spread(np.zeros(len(chosen), dtype=np.int64), images)]


def standing_for(places: Places, group: Group) -> Places:
    """Choose the images that stand for each group.

    Localizers, derived images and secondary captures do so only where a group has nothing else;
    of each series at most `IMAGES_PER_SERIES` take part and of each group `IMAGES_PER_GROUP`, so
    that a comparison's cost is bounded.
    """
    groups = places.group(group)
    represented = np.unique(groups[places.representative])
    usable = np.flatnonzero(places.representative | ~np.isin(groups, represented))
    usable = usable[spread(places.series[usable], IMAGES_PER_SERIES)]
    return places.take(usable[spread(groups[usable], IMAGES_PER_GROUP)])


def nearest_groups(
    ids: Int64Array, similarities: Float32Array, lookup: VectorLookup, group: Group, most: int
) -> Int64Array:
    """Return the groups of the nearest images, nearest first, at most `most`.

    Only as many neighbours are looked up as it takes to find that many.

    Parameters
    ----------
    ids : int64 [M, k]
        Neighbours of each example image, -1 where there are fewer.
    similarities : float32 [M, k]
    lookup : VectorLookup
        Of the space that they were found in.
    """
    ranked = ids.ravel()[np.argsort(-similarities, axis=None, kind="stable")]
    ranked = _first_of_each(ranked[ranked >= 0])
    groups = np.empty(0, dtype=np.int64)
    for start in range(0, len(ranked), 2 * most):
        part = ranked[start : start + 2 * most]
        places = lookup.of_vectors(part.tolist())
        part = part[np.isin(part, places.vector)]
        found = places.group(group)[np.searchsorted(places.vector, part)]
        groups = _first_of_each(np.concatenate([groups, found]))
        if len(groups) >= most:
            break
    return groups[:most]


def _first_of_each(values: Int64Array) -> Int64Array:
    """Return the values without those that came before, in their order."""
    return values[np.sort(np.unique(values, return_index=True)[1])]
