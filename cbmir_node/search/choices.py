"""What a query wishes, and what is configured where it wishes nothing."""

from __future__ import annotations

import difflib

from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.vectors.rows import EMBEDDING
from cbmir_node.config import SearchSettings
from cbmir_node.errors import QueryError
from cbmir_node.search.query import (
    MAX_EXAMPLES,
    METHODS,
    SAME_TAGS,
    Choices,
    Method,
    SimilarityQuery,
)

_CLASSES_NAMED = 5


def choose(query: SimilarityQuery, settings: SearchSettings, model: InstalledModel) -> Choices:
    """Complete a query's choices.

    Raises
    ------
    QueryError
        A method, space, tag or number is not usable, the model lacks what it takes, or there are
        too many examples or one is both wanted and unwanted.
    """
    _check_examples(query)
    k = settings.results if query.k is None else query.k
    if k < 1:
        raise QueryError("the number of results must be at least 1", "k")
    method = query.method or settings.method
    if query.rerank and method != "hamming":
        raise QueryError("choose hamming: only hash codes are re-ranked", "rerank")
    rerank = method == "hamming" and _wish(query.rerank, settings.rerank)
    uses_vectors = method != "hamming" or rerank
    if query.space and not uses_vectors:
        raise QueryError("re-rank, or leave out the space: hash codes have none", "space")
    space = (query.space or settings.space) if uses_vectors else EMBEDDING
    problem = missing(model, method, space)
    if problem:
        raise problem
    by_class = _wish(query.by_class, settings.by_class)
    _check_classes(query.predicted_class, model.labels, by_class=by_class)
    same_tags = settings.same_tags if query.same_tags is None else tuple(query.same_tags)
    for tag in same_tags:
        if tag not in SAME_TAGS:
            raise QueryError(f"same_tags: {tag!r} is none of {', '.join(SAME_TAGS)}", "same_tags")
    return Choices(
        k=min(k, settings.max_results),
        method=method,
        rerank=rerank,
        space=space,
        by_class=by_class,
        predicted_class=query.predicted_class,
        trusted_probability=settings.trusted_probability,
        same_tags=same_tags,
        same_age_years=settings.same_age_years,
        exclude_same_patient=_wish(query.exclude_same_patient, settings.exclude_same_patient),
    )


def missing(model: InstalledModel, method: Method, space: str) -> QueryError | None:
    """Return what refuses a method and space that a model lacks; ``None`` when it has them."""
    if method not in METHODS:
        return QueryError(f"choose from {', '.join(METHODS)}: no method is {method!r}", "method")
    if method == "hamming" and not model.code_bits:
        problem = "choose cosine or euclidean: the model in use has no hash code"
        return QueryError(problem, "method")
    if space not in model.spaces:
        known = ", ".join(sorted(model.spaces))
        problem = f"choose from {known}: the model in use has no vector space {space!r}"
        return QueryError(problem, "space")
    return None


def _check_examples(query: SimilarityQuery) -> None:
    """Refuse more examples than a query may cost, and those that contradict each other."""
    for field, examples in (
        ("examples", query.examples),
        ("negative_examples", query.negative_examples),
    ):
        if len(examples) > MAX_EXAMPLES:
            kind = field.replace("_", " ")
            raise QueryError(f"name at most {MAX_EXAMPLES} {kind}, not {len(examples)}", field)
    positive = {(one.level, one.uid) for one in query.examples if one.vectors is None}
    for one in query.negative_examples:
        if one.vectors is None and (one.level, one.uid) in positive:
            problem = f"leave one out: {one.uid} is positive and negative example"
            raise QueryError(problem, "negative_examples")


def _check_classes(name: str | None, labels: tuple[str, ...] | None, *, by_class: bool) -> None:
    """Refuse what a model's classes cannot answer; ``None`` is a model whose file is not read."""
    if labels is None:
        return
    if not labels and by_class:
        problem = "turn class restriction off: the model in use has no classes"
        raise QueryError(problem, "by_class")
    if name is None or name in labels:
        return
    if not labels:
        problem = "leave out the predicted class: the model in use has no classes"
        raise QueryError(problem, "predicted_class")
    alike = {label.casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), alike, _CLASSES_NAMED, cutoff=0.3)
    named = ", ".join([alike[one] for one in near] or labels[:_CLASSES_NAMED])
    problem = f"choose from {named}: the model in use has no class {name!r}"
    raise QueryError(problem, "predicted_class")


def _wish(wished: bool | None, configured: bool) -> bool:
    return configured if wished is None else wished
