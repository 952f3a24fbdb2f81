"""What a query wishes, and what is configured where it wishes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.vectors import EMBEDDING
from cbmir_node.config import SearchSettings
from cbmir_node.errors import QueryError
from cbmir_node.search.query import METHODS, SAME_TAGS, Method, SameTag, SimilarityQuery


@dataclass(frozen=True)
class Choices:
    """A query's choices, complete and possible with the model.

    Attributes
    ----------
    k : int
        Answers at most.
    method : {"cosine", "euclidean", "hamming"}
    rerank : bool
        Only ever true with ``hamming``.
    space : str
        Whose vectors are compared; ``embedding`` where none are.
    trusted_probability : float
        From which on a predicted class counts, for `by_class`.
    same_age_years : float
        Difference that counts as the same age, for `same_tags`.
    """

    k: int
    method: Method
    rerank: bool
    space: str
    by_class: bool
    trusted_probability: float
    same_tags: tuple[SameTag, ...]
    same_age_years: float
    exclude_same_patient: bool


def choose(query: SimilarityQuery, settings: SearchSettings, model: InstalledModel) -> Choices:
    """Complete a query's choices.

    Raises
    ------
    QueryError
        A method, space, tag or number is not usable, or the model lacks what it takes.
    """
    k = settings.results if query.k is None else query.k
    if k < 1:
        raise QueryError("the number of results must be at least 1")
    method = query.method or settings.method
    rerank = method == "hamming" and _wish(query.rerank, settings.rerank)
    uses_vectors = method != "hamming" or rerank
    space = (query.space or settings.space) if uses_vectors else EMBEDDING
    problem = missing(model, method, space)
    if problem:
        raise QueryError(problem)
    same_tags = settings.same_tags if query.same_tags is None else tuple(query.same_tags)
    for tag in same_tags:
        if tag not in SAME_TAGS:
            raise QueryError(f"same_tags: {tag!r} is none of {', '.join(SAME_TAGS)}")
    return Choices(
        k=min(k, settings.max_results),
        method=method,
        rerank=rerank,
        space=space,
        by_class=_wish(query.by_class, settings.by_class),
        trusted_probability=settings.trusted_probability,
        same_tags=same_tags,
        same_age_years=settings.same_age_years,
        exclude_same_patient=_wish(query.exclude_same_patient, settings.exclude_same_patient),
    )


def missing(model: InstalledModel, method: Method, space: str) -> str:
    """Say what a model lacks for a method and space; empty when nothing."""
    if method not in METHODS:
        return f"unknown method {method!r}; choose from {', '.join(METHODS)}"
    name = f"{model.name}:{model.version}"
    if method == "hamming" and not model.code_bits:
        return f"the model {name} has no hash code; choose cosine or euclidean"
    if space not in model.spaces:
        known = ", ".join(sorted(model.spaces))
        return f"the model {name} has no vector space {space!r}; choose from: {known}"
    return ""


def _wish(wished: bool | None, configured: bool) -> bool:
    return configured if wished is None else wished
