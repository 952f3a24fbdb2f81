"""Options that choose how a query is answered, each as configured unless given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypedDict, Unpack

import click

from cbmir_node.cli.options import Function
from cbmir_node.config import SearchSettings
from cbmir_node.search.query import METHODS, Method, SameTag

_SAME_TAGS: Mapping[str, SameTag] = {
    "modality": "Modality",
    "body-part": "BodyPartExamined",
    "sex": "PatientSex",
    "age": "PatientAge",
}
_NO_TAGS = "none"


class RetrievalWishes(TypedDict):
    """What the options gave; ``None``, or no tag, is as configured."""

    method: Method | None
    rerank: bool | None
    space: str | None
    by_class: bool | None
    predicted_class: str | None
    same: tuple[str, ...]


class RetrievalChoices(TypedDict):
    """The same fields of a `SimilarityQuery`, configured ones filled in."""

    method: Method
    rerank: bool
    space: str
    by_class: bool
    predicted_class: str | None
    same_tags: tuple[SameTag, ...]


def retrieval_options(function: Function) -> Function:
    """Add the options; the command gets `RetrievalWishes` as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def retrieval_choices(
    configured: SearchSettings, **wishes: Unpack[RetrievalWishes]
) -> RetrievalChoices:
    """Fill in what is configured.

    Raises
    ------
    click.UsageError
        A wish would have no effect, or contradicts another.
    """
    rerank, by_class, same = wishes["rerank"], wishes["by_class"], wishes["same"]
    method = wishes["method"] or configured.method
    choices = RetrievalChoices(
        method=method,
        rerank=method == "hamming" and (configured.rerank if rerank is None else rerank),
        space=wishes["space"] or configured.space,
        by_class=configured.by_class if by_class is None else by_class,
        predicted_class=wishes["predicted_class"],
        same_tags=_same_tags(same) if same else configured.same_tags,
    )
    if rerank and method != "hamming":
        raise click.UsageError(
            f"--rerank orders what hash codes found, but the method is {method}: "
            "add --method hamming"
        )
    if wishes["space"] and method == "hamming" and not choices["rerank"]:
        raise click.UsageError(
            "--space has no effect on hash codes: add --rerank, or --method cosine"
        )
    return choices


def described(choices: RetrievalChoices) -> str:
    """Say in one line how a query compared what with what."""
    method, space = choices["method"], choices["space"]
    if method != "hamming":
        parts = [f"{method} of {space}"]
    else:
        parts = [f"hamming, re-ranked by cosine of {space}" if choices["rerank"] else "hamming"]
    if choices["by_class"]:
        parts.append("by class")
    if choices["predicted_class"]:
        parts.append(f"class {choices['predicted_class']}")
    if choices["same_tags"]:
        parts.append(f"same {', '.join(choices['same_tags'])}")
    return "; ".join(parts)


def _space(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"embedding(\..+)?", name):
        raise click.BadParameter("must be embedding or embedding.LAYER; 'model info' lists them")
    return name


def _same_tags(same: tuple[str, ...]) -> tuple[SameTag, ...]:
    if _NO_TAGS not in same:
        return tuple(_SAME_TAGS[name] for name in dict.fromkeys(same))
    if len(set(same)) > 1:
        raise click.UsageError(f"--same {_NO_TAGS} goes with no other --same")
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
        callback=_space,
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
        multiple=True,
        type=click.Choice([*_SAME_TAGS, _NO_TAGS]),
        help="Only what shares this tag with the examples, empty tags pass; 'none' lifts what is "
        "configured. Repeatable.  [default: search.same_tags]",
    ),
)
