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
from cbmir_node.search.query import Method, SimilarityQuery, SimilarMatch
from cbmir_node.search.ranking import (
    pairwise_similarity,
    rank,
    score_groups,
    similarity_from_score,
)


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
        """Return the vectors of the examples' own studies or patients."""
        group: Group = "patient" if self.exclude_same_patient else "study"
        own = {int(row) for example in examples for row in example.places.group(group)}
        return self.lookup.in_groups(group, sorted(own)).vector

    def _candidates(self, examples: list[ResolvedExample]) -> Places:
        """Return all images of the groups that the nearest images belong to.

        Many near images may belong to few studies, so the net is cast wider until it holds
        enough of them, or everything.
        """
        allowed, excluded = self._allowed(), self._excluded(examples)
        group = GROUP_OF_LEVEL[self.query.level]
        vectors = np.concatenate([example.vectors for example in examples])
        enough = max(3 * self.k, 30)
        reach = 4 * enough
        while True:
            reach = max(1, min(len(self.cache), reach))
            near = self.cache.search(vectors, reach, allowed=allowed, excluded=excluded)
            places = self.lookup.of_vectors(near.ids[near.ids >= 0].tolist())
            similarities = similarity_from_score(near.scores, self.method)
            groups = nearest_groups(near.ids, similarities, places, group, 2 * enough)
            if len(groups) >= enough or reach >= len(self.cache):
                break
            reach *= 4
        members = self.lookup.in_groups(group, groups.tolist())
        if allowed is not None:
            members = members.take(np.isin(members.vector, allowed))
        members = members.take(~np.isin(members.vector, excluded))
        return standing_for(members, group)

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
        rows, best = scores[0].groups, candidates.vector[scores[0].best]
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
