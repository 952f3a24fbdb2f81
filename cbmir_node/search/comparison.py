"""One way to compare images: a method, and the vectors it compares."""

from __future__ import annotations

from dataclasses import dataclass

from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.rows import EMBEDDING
from cbmir_node.errors import QueryError
from cbmir_node.index import Float32Array, SpaceCache, VectorArray
from cbmir_node.search.query import Example, Method
from cbmir_node.search.ranking import pairwise_similarity, similarity_from_score


@dataclass(frozen=True)
class Comparison:
    """The parts that belong together.

    Attributes
    ----------
    method : {"cosine", "euclidean", "hamming"}
    cache : SpaceCache
        Index of the vectors or codes.
    lookup : VectorLookup
        Of the space whose rows hold them.
    """

    method: Method
    cache: SpaceCache
    lookup: VectorLookup

    def of_file(self, example: Example) -> VectorArray:
        """Return a file's vectors or codes [N, D].

        Raises
        ------
        QueryError
            It was embedded with another model, or lacks them.
        """
        identity = self.cache.identity
        if example.model_sha256 != identity.model_sha256:
            raise QueryError("the example was embedded with another model; embed it again")
        found: VectorArray | None = example.layers.get(identity.space)
        if self.method == "hamming":
            found = example.codes
        elif identity.space == EMBEDDING:
            found = example.vectors
        if found is None:
            kind = "hash codes" if self.method == "hamming" else f"vectors of {identity.space}"
            raise QueryError(f"the example has no {kind}; embed it again")
        return found

    def similarity(self, scores: Float32Array) -> Float32Array:
        """Map the index's scores to similarities, see `similarity_from_score`."""
        return similarity_from_score(scores, self.method, bits=8 * self.cache.identity.dimension)

    def pairwise(self, queries: VectorArray, candidates: VectorArray) -> Float32Array:
        """Return the similarity of every query to every candidate, float32 [M, N]."""
        return pairwise_similarity(queries, candidates, self.method)
