"""C-FIND keys as SQL conditions (PS3.4 C.2.2.2): which kind of matching a key has, and sequences.

A key inside a sequence is named ``Sequence.Attribute``, as in PS3.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, true

from cbmir_node.catalog import schema
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, SEQUENCE_BY_KEYWORD, Key, Level, SequenceKey
from cbmir_node.catalog.query.text_matching import (
    fuzzy_name_condition,
    name_condition,
    text_condition,
)
from cbmir_node.catalog.query.time_matching import (
    can_be_combined,
    combined_condition,
    read_range,
    time_condition,
)
from cbmir_node.errors import QueryError

MATCHED_COMPUTED_KEYS = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}
"""Keys of a study that are matched in its series and instances."""

_TIME_VRS = frozenset({"DA", "TM", "DT"})
_MOST_UIDS = 10_000  # databases limit the parameters of a statement
_MOST_TEXTS = 50  # each is a few terms of an OR, and databases limit how many it may have
_LONGEST_TEXT = 1024  # characters; databases limit patterns, and long ones are slow


def level_of(keyword: str) -> Level:
    """Return the level at which a key is matched.

    Raises
    ------
    KeyError
        It cannot be matched.
    """
    sequence = SEQUENCE_BY_KEYWORD.get(keyword.partition(".")[0])
    if sequence is not None:
        return sequence.level
    return "STUDY" if keyword in MATCHED_COMPUTED_KEYS else KEY_BY_KEYWORD[keyword].level


def is_universal(value: str) -> bool:
    """Tell whether a key's value matches everything (PS3.4 C.2.2.2.3)."""
    return not value.strip("* ")


def condition(keyword: str, value: str, *, fuzzy_names: bool = False) -> ColumnElement[bool]:
    """Return the condition for one matching key outside sequences.

    Parameters
    ----------
    keyword : str
        A key of the catalogue, or one of `MATCHED_COMPUTED_KEYS`.
    value : str
        As sent: values joined by backslash; empty or ``*`` matches everything.
    fuzzy_names : bool
        See `conditions`.

    Raises
    ------
    QueryError
        The value does not fit the key's VR, or is too long, or has too many values.
    """
    if keyword in MATCHED_COMPUTED_KEYS:
        return true() if is_universal(value) else _in_some_series(keyword, value)
    key = KEY_BY_KEYWORD[keyword]
    return _condition(schema.TABLE_OF_LEVEL[key.level].c, key, value, fuzzy_names)


def conditions(
    keys: Mapping[str, str], *, combined_date_times: bool = False, fuzzy_names: bool = False
) -> ColumnElement[bool]:
    """Return the conjunction of all keys.

    Parameters
    ----------
    keys : mapping of str to str
        Keyword, or path of a key inside a sequence, to value.
    combined_date_times : bool
        Whether ranges of a date and of its time mean one range of points in time.
    fuzzy_names : bool
        Whether the words of a person's name are the beginnings of any of its components, in any
        order (PS3.4 C.2.2.2.1.1).

    Raises
    ------
    QueryError
        A value does not fit its key's VR, or is too long, or has too many values.
    """
    plain = {path: value for path, value in keys.items() if _sequence_of(path) is None}
    found = list(_combined(plain)) if combined_date_times else []
    found += [condition(key, value, fuzzy_names=fuzzy_names) for key, value in plain.items()]
    for sequence in SEQUENCE_BY_KEYWORD.values():
        inside = item_conditions(sequence, keys)
        if inside:
            owner = schema.TABLE_OF_LEVEL[sequence.level].c.id
            items = schema.SEQUENCE_ITEMS[sequence.keyword].c
            found.append(owner.in_(select(items.owner).where(*inside)))
    return and_(true(), *found)


def item_conditions(sequence: SequenceKey, keys: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return what one item of a sequence must fulfil; empty where any item does."""
    columns = schema.SEQUENCE_ITEMS[sequence.keyword].c
    asked = zip(sequence.items, (keys.get(path, "") for path in sequence.paths), strict=True)
    return [_condition(columns, key, value) for key, value in asked if not is_universal(value)]


def _sequence_of(path: str) -> SequenceKey | None:
    return SEQUENCE_BY_KEYWORD.get(path.partition(".")[0])


def _condition(
    columns: Any, key: Key, value: str, fuzzy_names: bool = False
) -> ColumnElement[bool]:
    """Match a key in the columns of a table."""
    if is_universal(value):
        return true()
    if key.vr in _TIME_VRS:
        return time_condition(columns, key, value)
    if key.vr == "PN":
        groups = [columns[form] for form in key.forms]
        matched = fuzzy_name_condition if fuzzy_names else name_condition
        return or_(*(matched(groups, one) for one in _texts(key, value)))
    if key.vr == "UI":
        column: ColumnElement[str] = columns[key.column]
        return column.in_(_uids(key, value))
    return text_condition(columns[key.column], key, _texts(key, value))


def _uids(key: Key, value: str) -> list[str]:
    uids = [uid.strip(" \0") for uid in value.split("\\")]
    if len(uids) > _MOST_UIDS:
        raise QueryError(f"{key.keyword}: at most {_MOST_UIDS} UIDs; ask in parts")
    return uids


def _texts(key: Key, value: str) -> list[str]:
    texts = value.split("\\")
    if len(texts) > _MOST_TEXTS:
        raise QueryError(f"{key.keyword}: at most {_MOST_TEXTS} values; ask in parts")
    if max(map(len, texts)) > _LONGEST_TEXT:
        raise QueryError(f"{key.keyword}: at most {_LONGEST_TEXT} characters; shorten it")
    return texts


def _in_some_series(keyword: str, value: str) -> ColumnElement[bool]:
    """Match a study of which at least one series (or instance) has the value."""
    matched = MATCHED_COMPUTED_KEYS[keyword]
    query = select(schema.series.c.study).where(condition(matched, value))
    if KEY_BY_KEYWORD[matched].level == "IMAGE":
        query = query.join(schema.instances, schema.instances.c.series == schema.series.c.id)
    # series and instances of its own, also where the statement around it has joined them
    return schema.studies.c.id.in_(query.correlate(None))


def _combined(keys: dict[str, str]) -> Iterator[ColumnElement[bool]]:
    """Take the pairs of a date and a time that are ranges of one form out of `keys`."""
    for keyword in [keyword for keyword in keys if keyword.endswith("Date")]:
        partner = f"{keyword.removesuffix('Date')}Time"
        if is_universal(keys[keyword]) or is_universal(keys.get(partner, "")):
            continue
        date, time = KEY_BY_KEYWORD[keyword], KEY_BY_KEYWORD[partner]
        dates, times = read_range(date, keys[keyword]), read_range(time, keys[partner])
        if can_be_combined(dates, times):
            del keys[keyword], keys[partner]
            columns = schema.TABLE_OF_LEVEL[date.level].c
            yield combined_condition(columns[date.column], columns[time.column], dates, times)
