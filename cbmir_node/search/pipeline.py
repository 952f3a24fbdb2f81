"""One similarity query: examples → near images → candidate groups → ranking.

Two stages. The index finds the images nearest to the examples' images; then the studies (series,
images) these belong to are compared with each example as a whole, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbmir_node.catalog.vector_lookup import Group, Int64Array, Places, VectorLookup
from cbmir_node.index import SpaceCache
from cbmir_node.search.examples import (
    GROUP_OF_LEVEL,
    ResolvedExample,
    nearest_groups,
    resolve,
    standing_for,
)
from cbmir_node.search.query import Float32Array, Method, SimilarityQuery, SimilarMatch
from cbmir_node.search.ranking import (
    pairwise_similarity,
    rank,
    score_groups,
    similarity_from_score,
)

_NEIGHBOURS_AT_ONCE = 65_536
"""Neighbours asked of the index in one search, over all example images: bounds the memory."""


@dataclass(frozen=True)
class Pipeline:
    """The parts a query runs over.

    Attributes
    ----------
    query : SimilarityQuery
    method : {"cosine", "euclidean"}
    k : int
        Answers at most.
    exclude_same_patient : bool
    lookup : VectorLookup
    cache : SpaceCache
        Caught up.
    """

    query: SimilarityQuery
    method: Method
    k: int
    exclude_same_patient: bool
    lookup: VectorLookup
    cache: SpaceCache

    def run(self) -> list[SimilarMatch]:
        """Return the ranking, best first."""
        examples = [resolve(example, self.lookup, self.cache) for example in self.query.examples]
        candidates = self._candidates(examples)
        return self._ranked(examples, candidates) if len(candidates) else []

    def _allowed(self) -> Int64Array | None:
        """Return the vectors that pass the filters; ``None`` when there is no filter."""
        query = self.query
        if not query.filters and query.minimum_age is None and query.maximum_age is None:
            return None
        return self.lookup.matching(query.filters, query.minimum_age, query.maximum_age)

    def _excluded(self, examples: list[ResolvedExample]) -> Int64Array:
        """Return the vectors of the examples' own studies and, unless wished for, patients."""
        groups: list[Group] = ["study"]
        if self.exclude_same_patient:
            groups.append("patient")
        own = [
            self.lookup.in_groups(group, [row for one in examples for row in one.own[group]]).vector
            for group in groups
        ]
        return np.unique(np.concatenate(own))

    def _candidates(self, examples: list[ResolvedExample]) -> Places:
        """Return the images to compare with: those of few groups all, else of the nearest."""
        allowed, excluded = self._allowed(), self._excluded(examples)
        group = GROUP_OF_LEVEL[self.query.level]
        if allowed is not None:
            allowed = np.setdiff1d(allowed, excluded)
        groups = self._few_groups(allowed, group)
        if groups is None:
            vectors = np.concatenate([example.vectors for example in examples])
            groups = self._near_groups(vectors, allowed, excluded, group)
        members = self.lookup.in_groups(group, groups.tolist())
        if allowed is not None:
            members = members.take(np.isin(members.vector, allowed))
        members = members.take(~np.isin(members.vector, excluded))
        # the catalogue may have newer vectors than the index, and damaged ones
        members = members.take(self.cache.holds(members.vector))
        return standing_for(members, group)

    @property
    def _enough(self) -> int:
        """Number of groups to rank: more than are wanted, since the ranking may turn them round."""
        return max(3 * self.k, 30)

    def _few_groups(self, allowed: Int64Array | None, group: Group) -> Int64Array | None:
        """Return all groups where they are so few that finding the nearest saves nothing."""
        if allowed is None:
            groups = self.lookup.groups(group, self._enough + 1)
            return groups if len(groups) <= self._enough else None
        if len(allowed) <= 4 * self._enough:
            return np.unique(self.lookup.of_vectors(allowed.tolist()).group(group))
        return None

    def _near_groups(
        self,
        vectors: Float32Array,
        allowed: Int64Array | None,
        excluded: Int64Array,
        group: Group,
    ) -> Int64Array:
        """Return the groups of the nearest images, nearest first.

        Many near images may belong to few groups. Then these are set aside and the next nearest
        are looked for, until there are enough: every look finds at least one and costs the same.
        """
        reach = max(1, min(4 * self._enough, _NEIGHBOURS_AT_ONCE // len(vectors)))
        found: list[int] = []
        while len(found) < self._enough:
            near = self.cache.search(vectors, reach, allowed=allowed, excluded=excluded)
            places = self.lookup.of_vectors(near.ids[near.ids >= 0].tolist())
            similarities = similarity_from_score(near.scores, self.method)
            groups = nearest_groups(near.ids, similarities, places, group, 2 * self._enough)
            if not len(groups):
                break
            found += groups.tolist()
            excluded = np.union1d(excluded, self.lookup.in_groups(group, groups.tolist()).vector)
        return np.asarray(found[: 2 * self._enough], dtype=np.int64)

    def _ranked(self, examples: list[ResolvedExample], candidates: Places) -> list[SimilarMatch]:
        """Score every candidate group against every example and order them by the mean."""
        vectors = self.cache.vectors(candidates.vector)
        groups = candidates.group(GROUP_OF_LEVEL[self.query.level])
        scores = [
            score_groups(
                pairwise_similarity(example.vectors, vectors, self.method),
                groups,
                mutual=self.query.level != "IMAGE",
            )
            for example in examples
        ]
        similarity = np.mean([score.similarity for score in scores], axis=0)
        rows = scores[0].groups
        closest = np.argmax([score.best_similarity for score in scores], axis=0)
        best = candidates.vector[
            np.stack([score.best for score in scores])[closest, np.arange(len(rows))]
        ]
        order = rank(similarity, rows)
        order = order[similarity[order] >= self.query.minimum_similarity][: self.k]
        frames = self.lookup.frames(best[order].tolist())
        return [
            SimilarMatch(
                rank=number,
                row=int(rows[position]),
                similarity=float(similarity[position]),
                matched_sop_instance_uid=frame.sop_instance_uid,
                matched_frame_number=frame.frame_number,
                label=frame.label,
                probability=frame.probability,
            )
            for number, position in enumerate(order, start=1)
            if (frame := frames.get(int(best[position]))) is not None
        ]
