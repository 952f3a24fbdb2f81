"""Reading the identifier of a request, and the keys of a C-FIND (PS3.4 C.2.2 and C.4.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from io import BytesIO

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from cbmir_node.answers.query_keys import QueryKeys, is_definite, tag_of
from cbmir_node.catalog.keys import LEVELS, SEQUENCE_BY_KEYWORD, UNIQUE_KEY, Level
from cbmir_node.catalog.query.conditions import is_universal
from cbmir_node.catalog.query.hierarchy import matched_keys, supported_keys
from cbmir_node.catalog.reception.records import attribute_text
from cbmir_node.dicom.statuses import RefusedRequestError, Status

_NOT_KEYS = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"})
_ALWAYS_ANSWERED = frozenset({"RetrieveAETitle", "InstanceAvailability"})


def decoded_identifier(encoded: BytesIO, syntax: UID) -> Dataset:
    """Decode the identifier of a request.

    Parameters
    ----------
    encoded : BytesIO
    syntax : UID
        Transfer syntax of its presentation context.

    Raises
    ------
    RefusedRequestError
        It cannot be read.
    """
    try:
        identifier: Dataset = decode(
            encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
        )
    except Exception as error:  # pydicom raises many kinds on hostile bytes
        raise RefusedRequestError(
            Status.UNABLE_TO_PROCESS, "the identifier cannot be read"
        ) from error
    return identifier


def read_keys(
    identifier: Dataset,
    levels: Collection[Level],
    extra: Collection[str] = (),
    *,
    relational: bool = False,
) -> QueryKeys:
    """Read a request's identifier; private elements are left to others.

    Parameters
    ----------
    identifier : Dataset
        As decoded; values that break their VR do no harm.
    levels : collection of str
        Query/Retrieve Levels of the information model.
    extra : collection of str
        Keywords supported at STUDY level besides the catalogue's.
    relational : bool
        Whether keys of levels below the query's are matched, too (PS3.4 C.4.1.3.2.1).

    Raises
    ------
    RefusedRequestError
        Query/Retrieve Level is missing or is none of `levels`, or a sequence has several items.
    """
    level = _level(identifier, levels)
    returned = {*supported_keys(level), *(extra if level == "STUDY" else ())}
    matched = matched_keys() if relational else matched_keys() & returned
    matching: dict[str, str] = {}
    requested: list[str] = []
    has_unsupported = False
    for path, text in _sent(identifier):
        if path in returned:
            requested.append(path)
        if path in matched and not is_universal(text):
            matching[path] = text
        has_unsupported |= path not in matched and not (path in returned and is_universal(text))
    return QueryKeys(level, matching, tuple(requested), has_unsupported, _character_set(identifier))


def pending_status(keys: QueryKeys) -> Status:
    """Return the status of each match (PS3.4 C.4.1.1.4)."""
    return Status.PENDING_UNSUPPORTED_KEYS if keys.has_unsupported else Status.PENDING


def require_unique_keys(keys: QueryKeys, root: Level) -> None:
    """Check that a hierarchical query names what it descends into (PS3.4 C.4.1.3.1.1).

    Raises
    ------
    RefusedRequestError
        The unique key of a level above the query's is missing or names more than one thing.
    """
    for level in LEVELS[LEVELS.index(root) : LEVELS.index(keys.level)]:
        keyword = UNIQUE_KEY[level]
        value = keys.matching.get(keyword, "")
        if not is_definite(keyword, value) or "\\" in value:
            raise RefusedRequestError(
                Status.IDENTIFIER_MISMATCH,
                f"a {keys.level} level query needs one {keyword}",
                tag_of(keyword),
            )


def _level(identifier: Dataset, levels: Collection[Level]) -> Level:
    asked = attribute_text(identifier, "QueryRetrieveLevel")
    for level in levels:
        if asked == level:
            return level
    raise RefusedRequestError(
        Status.IDENTIFIER_MISMATCH,
        f"QueryRetrieveLevel must be {', '.join(sorted(levels, key=LEVELS.index))}",
        tag_of("QueryRetrieveLevel"),
    )


def _sent(identifier: Dataset) -> Iterator[tuple[str, str]]:
    """Yield path and text of each standard key sent; an unknown one has an empty path."""
    for tag in sorted(identifier.keys()):
        keyword = keyword_for_tag(tag)
        if _is_ignored(tag, keyword):
            continue
        if keyword in SEQUENCE_BY_KEYWORD:
            yield from _sent_inside(identifier, keyword)
        else:
            yield keyword, attribute_text(identifier, keyword) if keyword else ""


def _sent_inside(identifier: Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    """Yield what the one item of a sequence has, or the sequence itself (PS3.4 C.2.2.2.6)."""
    item = _only_item(identifier, keyword)
    inside = [tag for tag in sorted(item.keys()) if not _is_ignored(tag, keyword_for_tag(tag))]
    if not inside:
        yield keyword, ""
    for tag in inside:
        name = keyword_for_tag(tag)
        yield f"{keyword}.{name}", attribute_text(item, name) if name else ""


def _only_item(identifier: Dataset, keyword: str) -> Dataset:
    try:
        items = [*(identifier[keyword].value or ())]
    except Exception as error:  # pydicom raises many kinds on what is no sequence
        raise _bad_sequence(keyword, "cannot be read") from error
    if not all(isinstance(item, Dataset) for item in items):
        raise _bad_sequence(keyword, "is sent with another VR than SQ")
    if len(items) > 1:
        raise _bad_sequence(keyword, f"has {len(items)} items; a key has one")
    return items[0] if items else Dataset()


def _bad_sequence(keyword: str, fault: str) -> RefusedRequestError:
    return RefusedRequestError(Status.IDENTIFIER_MISMATCH, f"{keyword} {fault}", tag_of(keyword))


def _is_ignored(tag: BaseTag, keyword: str) -> bool:
    """Tell whether an element is no key: private, a group length, or about the request."""
    return tag.is_private or tag.element == 0 or keyword in _NOT_KEYS | _ALWAYS_ANSWERED


def _character_set(identifier: Dataset) -> tuple[str, ...]:
    text = attribute_text(identifier, "SpecificCharacterSet")
    return tuple(part.strip(" ") for part in text.split("\\")) if text else ()
