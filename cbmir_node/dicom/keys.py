"""Reading the identifier of a C-FIND request (PS3.4 C.2.2 and C.4.1)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from cbmir_node.catalog.hierarchy import COMPUTED_KEYS, supported_keys
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, LEVELS, UNIQUE_KEY, Level
from cbmir_node.catalog.records import attribute_text
from cbmir_node.dicom.statuses import RefusedRequestError, Status

_NOT_KEYS = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC"})
_ALWAYS_ANSWERED = frozenset({"RetrieveAETitle", "InstanceAvailability"})
_MATCHED_COMPUTED = frozenset({"ModalitiesInStudy", "SOPClassesInStudy"})


@dataclass(frozen=True)
class FindKeys:
    """What a C-FIND request asks.

    Attributes
    ----------
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
        Query/Retrieve Level.
    matching : dict of str to str
        Keyword to text of each supported key that restricts the answer.
    requested : tuple of str
        Keywords of all supported keys present, in the order of their tags.
    has_unsupported : bool
        Whether a standard key was asked for that is not supported at this level.
    """

    level: Level
    matching: dict[str, str]
    requested: tuple[str, ...]
    has_unsupported: bool

    @property
    def pending_status(self) -> Status:
        """The status of each match (PS3.4 C.4.1.1.4)."""
        return Status.PENDING_UNSUPPORTED_KEYS if self.has_unsupported else Status.PENDING


def read_keys(
    identifier: Dataset, levels: Collection[Level], extra: Collection[str] = ()
) -> FindKeys:
    """Read a request's identifier; private elements are left to others.

    Parameters
    ----------
    identifier : Dataset
        As decoded; values that break their VR do no harm.
    levels : collection of str
        Query/Retrieve Levels of the information model.
    extra : collection of str
        Keywords supported at STUDY level besides the catalogue's.

    Raises
    ------
    RefusedRequestError
        Query/Retrieve Level is missing or is none of `levels`.
    """
    level = _level(identifier, levels)
    supported = {*_supported(level), *(extra if level == "STUDY" else ())}
    requested: list[str] = []
    has_unsupported = False
    for tag in sorted(identifier.keys()):
        keyword = keyword_for_tag(tag)
        if tag.is_private or tag.element == 0 or keyword in _NOT_KEYS | _ALWAYS_ANSWERED:
            continue
        if keyword in supported:
            requested.append(keyword)
        else:
            has_unsupported = True
    matching = {}
    for keyword in requested:
        text = attribute_text(identifier, keyword)
        if text.strip("* ") and _is_matched(keyword):
            matching[keyword] = text
    return FindKeys(level, matching, tuple(requested), has_unsupported)


def require_unique_keys(keys: FindKeys, root: Level) -> None:
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


def is_definite(keyword: str, value: str) -> bool:
    """Tell whether a key's value names something, rather than matching a pattern or anything."""
    if dictionary_VR(keyword) == "UI":
        return bool(value.strip("* "))
    return bool(value) and not any(sign in value for sign in "*?")


def tag_of(keyword: str) -> int:
    """Return the tag of a standard keyword."""
    tag = tag_for_keyword(keyword)
    assert tag is not None  # noqa: S101  keywords come from the catalogue's table
    return tag


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


def _supported(level: Level) -> set[str]:
    """Return the keywords handled at `level`; what is counted is counted at its own level only."""
    above = {name for part in LEVELS if part != level for name in COMPUTED_KEYS[part]}
    return set(supported_keys(level)) - above


def _is_matched(keyword: str) -> bool:
    return keyword in KEY_BY_KEYWORD or keyword in _MATCHED_COMPUTED
