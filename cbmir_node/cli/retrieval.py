"""Options that choose how a query is answered, each as configured unless given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import click

from cbmir_node.cli.options import Function
from cbmir_node.search.query import METHODS, Choices, Method, SameTag

_SAME_TAGS: Mapping[str, SameTag] = {
    "modality": "Modality",
    "body-part": "BodyPartExamined",
    "sex": "PatientSex",
    "age": "PatientAge",
}
_NO_TAGS = "none"


class RetrievalWishes(TypedDict):
    """What the options gave, as fields of a `SimilarityQuery`; ``None`` is as configured."""

    method: Method | None
    rerank: bool | None
    space: str | None
    by_class: bool | None
    predicted_class: str | None
    same_tags: tuple[SameTag, ...] | None


def retrieval_options(function: Function) -> Function:
    """Add the options; the command gets `RetrievalWishes` as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def described(choices: Choices) -> str:
    """Say in one line how a query compared what with what."""
    if choices.method != "hamming":
        parts = [f"{choices.method} of {choices.space}"]
    else:
        reranked = f"hamming, re-ranked by cosine of {choices.space}"
        parts = [reranked if choices.rerank else "hamming"]
    if choices.by_class:
        parts.append("by class")
    if choices.predicted_class:
        parts.append(f"class {choices.predicted_class}")
    if choices.same_tags:
        parts.append(f"same {', '.join(choices.same_tags)}")
    return "; ".join(parts)


def _same_tags(
    _context: click.Context, _option: click.Parameter, same: tuple[str, ...]
) -> tuple[SameTag, ...] | None:
    if not same:
        return None
    if _NO_TAGS not in same:
        return tuple(_SAME_TAGS[name] for name in dict.fromkeys(same))
    if len(set(same)) > 1:
        raise click.BadParameter(f"--same {_NO_TAGS} goes with no other --same")
    return ()


_OPTIONS = (
    click.option(
        "--method",
        type=click.Choice(METHODS),
        help="Distance; hamming compares hash codes.  [default: search.method]",
    ),
    click.option(
        "--rerank/--no-rerank",
        default=None,
        help="With hamming, order the nearest codes by the cosine of their embeddings.  "
        "[default: search.rerank]",
    ),
    click.option(
        "--space",
        metavar="NAME",
        help="Vectors compared: embedding, or embedding.LAYER where the model has it.  "
        "[default: search.space]",
    ),
    click.option(
        "--by-class/--no-by-class",
        default=None,
        help="Leave out what the model surely takes for another class than the examples.  "
        "[default: search.by_class]",
    ),
    click.option(
        "--class", "predicted_class", metavar="NAME", help="Only what the model takes for this."
    ),
    click.option(
        "--same",
        "same_tags",
        multiple=True,
        callback=_same_tags,
        type=click.Choice([*_SAME_TAGS, _NO_TAGS]),
        help="Only what shares this tag with the examples, empty tags pass; 'none' lifts what is "
        "configured. Repeatable.  [default: search.same_tags]",
    ),
)
