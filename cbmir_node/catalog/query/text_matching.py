"""Text keys as SQL conditions: single values, wild cards, person names (PS3.4 C.2.2.2.1 and .4).

Indexes serve single values and wild cards at the end of a value, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.datadict import dictionary_VM
from sqlalchemy import Boolean, ColumnElement, and_, literal, or_, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from cbmir_node.catalog.keys import Key
from cbmir_node.catalog.query.person_names import folded
from cbmir_node.errors import QueryError

_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_WILDCARDS = re.compile(r"[*?]")
_BETWEEN_WORDS = re.compile(r"[\s^=,-]+")
_MOST_WORDS = 16  # each is a dozen terms of a statement
_ABSENT_COMPONENTS = re.compile(r"(\^\*?)+$")


def text_condition(
    column: ColumnElement[str], key: Key, values: Sequence[str]
) -> ColumnElement[bool]:
    """Match any of `values` with regard to case; of several stored, any may match (C.2.2.3)."""
    values = [value.strip(" ") for value in values]
    if dictionary_VM(key.keyword) != "1":
        return or_(*(_Like("\\" + column + "\\", f"*\\{value}\\*") for value in values))
    has_wildcards = key.vr in _WILDCARD_VRS
    patterns = [value for value in values if has_wildcards and _WILDCARDS.search(value)]
    exact = [value for value in values if value not in patterns]
    found = [_Like(column, pattern) for pattern in patterns]
    return or_(column.in_(exact), *found) if exact else or_(*found)


def name_condition(columns: Sequence[ColumnElement[str]], value: str) -> ColumnElement[bool]:
    """Match a person name regardless of case, accents and width.

    Parameters
    ----------
    columns : sequence of ColumnElement
        The folded component groups: alphabetic, ideographic, phonetic.
    value : str
        As sent. Groups divided by ``=`` are each matched with their own; what names one group
        only may be any of them, since many clients have one field for a name.
    """
    groups = value.split("=")
    if len(groups) == 1:
        return or_(*(_group_condition(column, folded(value)) for column in columns))
    pairs = zip(columns, groups, strict=False)
    return and_(*(_group_condition(column, folded(group)) for column, group in pairs))


def fuzzy_name_condition(columns: Sequence[ColumnElement[str]], value: str) -> ColumnElement[bool]:
    """Match words of a person name that begin its components, in any order and any group.

    Parameters are those of `name_condition`; ``Jane Do`` finds ``Doe^Mary Jane``.

    Raises
    ------
    QueryError
        There are more words than any name has.
    """
    words = [word for word in _BETWEEN_WORDS.split(folded(value)) if word.strip("*")]
    if len(words) > _MOST_WORDS:
        raise QueryError(f"a name has at most {_MOST_WORDS} words; shorten it")
    return and_(true(), *(or_(*_begin_a_word(columns, word)) for word in words))


def _begin_a_word(columns: Sequence[ColumnElement[str]], word: str) -> Iterator[_Like]:
    for column in columns:
        yield _Like(column, f"{word}*")
        yield from (_Like(column, f"*{mark}{word}*") for mark in "^ -")


def _group_condition(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Match one component group; components that are left out at its end match anything."""
    name = _ABSENT_COMPONENTS.sub("", name)
    if not name.strip("*"):
        return true()
    if name.endswith("*"):
        return _Like(column, name)
    named = _Like(column, name) if _WILDCARDS.search(name) else column == name
    return or_(named, _Like(column, f"{name}^*"))


class _Like(FunctionElement[bool]):
    """Match DICOM's wild cards with regard to case, which LIKE has in PostgreSQL, not in SQLite."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[str], pattern: str) -> None:
        # GLOB shares the wild cards of DICOM and has one more, the bracket
        glob = pattern.replace("[", "[[]")
        like = re.sub(r"([!%_])", r"!\1", pattern).replace("*", "%").replace("?", "_")
        super().__init__(column, literal(like), literal(glob))

    def self_group(self, against: Any = None) -> _Like:
        """Stand as it is between AND and OR: as ``… = 1`` no index of SQLite would serve it."""
        return self


@compiles(_Like)
def _like(element: _Like, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern, _ = element.clauses
    return compiler.process(column.like(pattern, escape="!"), **options)


@compiles(_Like, "sqlite")
def _glob(element: _Like, compiler: SQLCompiler, **options: Any) -> str:
    column, _, pattern = element.clauses
    return compiler.process(column.op("GLOB")(pattern), **options)
