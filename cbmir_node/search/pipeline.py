"""One similarity query: examples → near images → candidate groups → ranking.

Two stages. The index finds the images nearest to the positive examples' images; then the studies
(series, images) these belong to are compared with each example as a whole, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbmir_node.catalog.vectors.candidates import CandidateConditions
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.places import Group, Int64Array, Places
from cbmir_node.index import VectorArray
from cbmir_node.search.comparison import Comparison
from cbmir_node.search.examples import (
    GROUP_OF_LEVEL,
    ResolvedExample,
    images_of_each,
    nearest_groups,
    resolve,
    standing_for,
)
from cbmir_node.search.feedback import fused_similarity, similarity_to_positive
from cbmir_node.search.query import Choices, Example, SimilarityQuery, SimilarMatch
from cbmir_node.search.ranking import GroupScores, rank, score_groups
from cbmir_node.search.restrictions import candidate_conditions

_NEIGHBOURS_AT_ONCE = 65_536
"""Neighbours asked of the index in one search, over all example images: bounds the memory."""


_REACH = 3
_RERANK_REACH = 10
"""Groups found by the index, as a multiple of the answers wanted: the ranking may turn them round,
and all the more where it compares other vectors than the index did, or negative examples too."""

_FEWEST = 10
"""Answers for which there is always reach."""


@dataclass(frozen=True)
class Pipeline:
    """The parts a query runs over.

    Attributes
    ----------
    query : SimilarityQuery
    choices : Choices
    near, final : Comparison
        What finds near images and what ranks; the same object unless codes are re-ranked. Their
        caches are caught up.
    """

    query: SimilarityQuery
    choices: Choices
    near: Comparison
    final: Comparison

    def run(self) -> list[SimilarMatch]:
        """Return the ranking, best first."""
        examples = self._resolved(self.query.examples)
        negative = self._resolved(self.query.negative_examples, "negative_examples")
        candidates = self._candidates(examples, negative)
        return self._ranked(examples, negative, candidates) if len(candidates) else []

    def _resolved(self, examples: Sequence[Example], field: str = "") -> list[ResolvedExample]:
        """Find the vectors of the examples that a field of the query names."""
        images = images_of_each(len(self.query.examples) + len(self.query.negative_examples))
        return [resolve(one, self.near, self.final, images, field) for one in examples]

    def _filters(
        self,
        examples: list[ResolvedExample],
        negative: list[ResolvedExample],
        wanted: CandidateConditions,
        lookup: VectorLookup,
    ) -> tuple[Int64Array | None, Int64Array]:
        """Return the vectors that may be candidates, ``None`` for all, and those that may not."""
        excluded = self._excluded(examples, negative, lookup)
        if not wanted.restrict:
            return None, excluded
        return np.setdiff1d(lookup.matching(wanted), excluded), excluded

    def _excluded(
        self,
        examples: list[ResolvedExample],
        negative: list[ResolvedExample],
        lookup: VectorLookup,
    ) -> Int64Array:
        """Return the vectors that are no candidates.

        Those of the examples' own studies and, unless wished for, patients; of negative examples
        what they name and no more: another series of the study may be what is looked for.
        """
        groups: list[Group] = ["study"]
        if self.choices.exclude_same_patient:
            groups.append("patient")
        left_out: dict[Group, list[int]] = {
            group: [row for one in examples for row in one.own[group]] for group in groups
        }
        for one in negative:
            group, rows = one.named(self.query.level)
            left_out.setdefault(group, []).extend(rows)
        own = [lookup.in_groups(group, rows).vector for group, rows in left_out.items()]
        return np.unique(np.concatenate(own))

    def _candidates(
        self, examples: list[ResolvedExample], negative: list[ResolvedExample]
    ) -> Places:
        """Return the images to compare with: those of few groups all, else of the nearest."""
        near, final = self.near.lookup, self.final.lookup
        wanted = candidate_conditions(self.query, self.choices, examples, near)
        allowed, excluded = self._filters(examples, negative, wanted, near)
        group = GROUP_OF_LEVEL[self.query.level]
        groups = self._few_groups(allowed, group)
        if groups is None:
            vectors = np.concatenate([example.near for example in examples])
            groups = self._near_groups(vectors, allowed, excluded, group)
        if final is not near:  # another vector space has other rows
            allowed, excluded = self._filters(examples, negative, wanted, final)
        members = final.in_groups(group, groups.tolist())
        if allowed is not None:
            members = members.take(np.isin(members.vector, allowed))
        members = members.take(~np.isin(members.vector, excluded))
        # the catalogue may have newer vectors than the index, and damaged ones
        members = members.take(self.final.cache.holds(members.vector))
        return standing_for(members, group)

    @property
    def _enough(self) -> int:
        """Number of groups to rank, more than are wanted."""
        far = self.choices.rerank or self.query.negative_examples
        return (_RERANK_REACH if far else _REACH) * max(self.choices.k, _FEWEST)

    def _few_groups(self, allowed: Int64Array | None, group: Group) -> Int64Array | None:
        """Return all groups where they are so few that finding the nearest saves nothing."""
        if allowed is None:
            groups = self.near.lookup.groups(group, self._enough + 1)
            return groups if len(groups) <= self._enough else None
        if len(allowed) <= 4 * self._enough:
            return np.unique(self.near.lookup.of_vectors(allowed.tolist()).group(group))
        return None

    def _near_groups(
        self,
        vectors: VectorArray,
        allowed: Int64Array | None,
        excluded: Int64Array,
        group: Group,
    ) -> Int64Array:
        """Return the groups of the nearest images, nearest first.

        Many near images may belong to few groups. Then these are set aside and the next nearest
        are looked for, until there are enough: every look finds at least one and costs the same.
        """
        reach = max(1, min(4 * self._enough, _NEIGHBOURS_AT_ONCE // len(vectors)))
        lookup, found = self.near.lookup, list[int]()
        while True:
            near = self.near.cache.search(vectors, reach, allowed=allowed, excluded=excluded)
            similarities = self.near.similarity(near.scores)
            groups = nearest_groups(near.ids, similarities, lookup, group, 2 * self._enough)
            if not len(groups):
                break
            found += groups.tolist()
            if len(found) >= self._enough:
                break  # what these hold is read once, by those who compare it
            excluded = np.union1d(excluded, lookup.in_groups(group, groups.tolist()).vector)
        return np.asarray(found[: 2 * self._enough], dtype=np.int64)

    def _scored(
        self, examples: list[ResolvedExample], vectors: VectorArray, groups: Int64Array
    ) -> list[GroupScores]:
        """Score every candidate group against every example."""
        return [
            score_groups(
                self.final.pairwise(example.final, vectors),
                groups,
                mutual=self.query.level != "IMAGE",
            )
            for example in examples
        ]

    def _ranked(
        self,
        examples: list[ResolvedExample],
        negative: list[ResolvedExample],
        candidates: Places,
    ) -> list[SimilarMatch]:
        """Order the candidate groups by their similarity to all examples."""
        vectors = self.final.cache.vectors(candidates.vector)
        groups = candidates.group(GROUP_OF_LEVEL[self.query.level])
        scores = self._scored(examples, vectors, groups)
        towards = similarity_to_positive([score.similarity for score in scores])
        similarity = fused_similarity(
            towards,
            [score.similarity for score in self._scored(negative, vectors, groups)],
        )
        rows = scores[0].groups
        closest = np.argmax([score.best_similarity for score in scores], axis=0)
        best = candidates.vector[
            np.stack([score.best for score in scores])[closest, np.arange(len(rows))]
        ]
        order = rank(similarity, rows)
        least = np.float32(self.query.minimum_similarity)  # in the precision of what it limits
        order = order[towards[order] >= least][: self.choices.k]
        frames = self.final.lookup.frames(best[order].tolist())
        return [
            SimilarMatch(
                rank=number,
                row=int(rows[position]),
                similarity=float(similarity[position]),
                similarity_to_examples=float(towards[position]),
                matched_sop_instance_uid=frame.sop_instance_uid,
                matched_frame_number=frame.frame_number,
                label=frame.label,
                probability=frame.probability,
            )
            for number, position in enumerate(order, start=1)
            if (frame := frames.get(int(best[position]))) is not None
        ]
