"""C-FIND keys as SQL conditions (PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, func, literal, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from cbmir_node.catalog import schema
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, Key
from cbmir_node.errors import QueryError

_DATE_VRS = {"DA", "TM", "DT"}
_NO_WILDCARD_VRS = {"DA", "TM", "DT", "UI", "US", "SS", "UL", "SL", "FL", "FD", "OB", "OW", "UN"}
_DATE = re.compile(r"\d{8}|\d{4}\.\d{2}\.\d{2}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")


def condition(keyword: str, value: str) -> ColumnElement[bool]:
    """Return the condition for one matching key.

    Parameters
    ----------
    keyword : str
        A key of the catalogue, or ``ModalitiesInStudy`` / ``SOPClassesInStudy``.
    value : str
        As sent: values joined by backslash; empty or ``*`` matches everything.

    Raises
    ------
    QueryError
        The value does not fit the key's VR.
    """
    if not value.strip("* "):
        return true()
    if keyword == "ModalitiesInStudy":
        return _some_series("Modality", value)
    if keyword == "SOPClassesInStudy":
        return _some_series("SOPClassUID", value)
    key = KEY_BY_KEYWORD[keyword]
    column = schema.TABLE_OF_LEVEL[key.level].c[key.column]
    if key.vr in _DATE_VRS:
        return _range(column, key, value)
    if key.vr == "UI":
        return column.in_(value.split("\\"))
    return or_(*(_text(column, key, item) for item in value.split("\\")))


def conditions(keys: Mapping[str, str]) -> ColumnElement[bool]:
    """Return the conjunction of all keys."""
    return and_(true(), *(condition(keyword, value) for keyword, value in keys.items()))


def _some_series(keyword: str, value: str) -> ColumnElement[bool]:
    """Match a study of which at least one series (or instance) has the value."""
    query = select(schema.series.c.study).where(condition(keyword, value))
    if KEY_BY_KEYWORD[keyword].level == "IMAGE":
        query = query.join(schema.instances, schema.instances.c.series == schema.series.c.id)
    return schema.studies.c.id.in_(query)


def _text(column: ColumnElement[str], key: Key, value: str) -> ColumnElement[bool]:
    """Match text: wildcards ``*`` and ``?``; names and descriptions regardless of case."""
    value = value.strip(" ")
    folded = key.vr in ("PN", "LO", "LT", "ST", "SH", "UC", "UT")

    # the database folds both sides: SQLite knows the case of ASCII letters only
    def same(text: str) -> ColumnElement[bool]:
        return func.lower(column) == func.lower(text) if folded else column == text

    def like(pattern: str) -> ColumnElement[bool]:
        if folded:
            return func.lower(column).like(func.lower(_like_pattern(pattern)), escape="!")
        return _SameCaseLike(column, pattern)

    if key.vr in _NO_WILDCARD_VRS or not re.search(r"[*?]", value):
        if key.vr == "PN":
            # a name without its empty trailing components, or one writing of several
            return or_(same(value), like(f"{value}^*"))
        if key.keyword == "ImageType":
            return like(f"*{value}*")
        return same(value)
    return like(value)


def _like_pattern(pattern: str) -> str:
    """Return DICOM wildcards as those of LIKE, with ``!`` before a literal one."""
    return re.sub(r"([!%_])", r"!\1", pattern).replace("*", "%").replace("?", "_")


class _SameCaseLike(FunctionElement[bool]):
    """Match DICOM wildcards with regard to case, which LIKE has in PostgreSQL, not in SQLite."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[str], pattern: str) -> None:
        # GLOB shares the wildcards of DICOM and has one more, the bracket
        glob = pattern.replace("[", "[[]")
        super().__init__(column, literal(_like_pattern(pattern)), literal(glob))


@compiles(_SameCaseLike)
def _like(element: _SameCaseLike, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern, _ = element.clauses
    return compiler.process(column.like(pattern, escape="!"), **options)


@compiles(_SameCaseLike, "sqlite")
def _glob(element: _SameCaseLike, compiler: SQLCompiler, **options: Any) -> str:
    column, _, pattern = element.clauses
    return compiler.process(column.op("GLOB")(pattern), **options)


def _range(column: ColumnElement[str], key: Key, value: str) -> ColumnElement[bool]:
    """Match a date or time, or a range of them, open ends included (PS3.4 C.2.2.2.5)."""
    first, dash, last = value.partition("-")
    bounds = [_bound(key, part.strip(), value) for part in (first, last)]
    if not any(bounds):
        raise QueryError(f"{key.keyword}: {value!r} is not a date or range of dates")
    if not dash:
        # a time given to the minute means that whole minute
        return column.like(f"{bounds[0]}%") if key.vr == "TM" else column == bounds[0]
    limits = [column != ""]
    if bounds[0]:
        limits.append(column >= bounds[0])
    if bounds[1]:
        limits.append(or_(column <= bounds[1], column.like(f"{bounds[1]}%")))
    return and_(*limits)


def _bound(key: Key, text: str, value: str) -> str:
    pattern = _DATE if key.vr == "DA" else _TIME
    plain = text.replace(":", "") if key.vr == "TM" else text
    if plain and not pattern.fullmatch(plain):
        kind = "date YYYYMMDD" if key.vr == "DA" else "time HHMMSS"
        raise QueryError(f"{key.keyword}: {value!r} is not a {kind} or a range of them")
    return plain.replace(".", "") if key.vr == "DA" else plain
