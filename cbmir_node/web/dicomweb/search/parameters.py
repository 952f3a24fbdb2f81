"""Query parameters of a search (PS3.18 sections 8.3.4 and 10.6.1.2).

What is not supported is left out and told in a Warning header field; a wrong value is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from cbmir_node.answers.query_keys import QueryKeys, tag_of
from cbmir_node.catalog.keys import LEVELS, SEQUENCE_BY_KEYWORD, UNIQUE_KEY, Level
from cbmir_node.catalog.query.conditions import is_universal
from cbmir_node.catalog.query.hierarchy import matched_keys, supported_keys
from cbmir_node.web.dicomweb.parameter_values import Parameters, only_value, wrong_value
from cbmir_node.web.problems import Problem

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_TELLABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_PARAMETERS = 200
_MOST_TOLD = 10
_UTF_8 = ("ISO_IR 192",)

_NOT_ATTRIBUTES = frozenset(
    {"includefield", "limit", "offset", "fuzzymatching", "accept", "charset"}
)
_NOT_MATCHED = frozenset({"SpecificCharacterSet", "TimezoneOffsetFromUTC"})
"""Attributes of the query itself."""

_VRS_OF_LISTS = frozenset({"CS", "UI"})
"""Whose values never have a comma, so that it divides several (PS3.5 Table 6.2-1)."""

_DEFAULT_KEYS: Mapping[Level, tuple[str, ...]] = {
    "PATIENT": (),
    "STUDY": (
        *("StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy"),
        *("ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries"),
        *("NumberOfStudyRelatedInstances", "StudyDescription"),
    ),
    "SERIES": (
        *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber"),
        *("NumberOfSeriesRelatedInstances", "PerformedProcedureStepStartDate"),
        *("PerformedProcedureStepStartTime", "RequestAttributesSequence"),
    ),
    "IMAGE": (
        *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated"),
        "NumberOfFrames",
    ),
}
"""What is returned unasked, by the level that it describes (Tables 10.6.3-3 to 10.6.3-5)."""


@dataclass(frozen=True)
class SearchParameters:
    """A search, read.

    Attributes
    ----------
    keys : QueryKeys
    limit : int or None
        Results at most, where the client says.
    offset : int
        Results to leave out first.
    fuzzy_names : bool
    others : dict of str to list of str
        Parameters that are no attributes and none of 8.3.4, by name: those of extensions.
    warnings : list of str
        What the client must be told.
    """

    keys: QueryKeys
    limit: int | None = None
    offset: int = 0
    fuzzy_names: bool = False
    others: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_search_parameters(
    parameters: Iterable[tuple[str, str]],
    level: Level,
    above: Mapping[str, str] | None = None,
    *,
    extensions: frozenset[str] = frozenset(),
    extra: Sequence[str] = (),
) -> SearchParameters:
    """Read the query component of a search.

    Parameters
    ----------
    parameters : iterable of (str, str)
        Decoded, in their order.
    level : {"STUDY", "SERIES", "IMAGE"}
        What is searched for.
    above : mapping of str to str, optional
        Unique keys that the path names.
    extensions : frozenset of str
        Names for `SearchParameters.others`.
    extra : sequence of str
        Keywords to return besides the defaults, of whatever level.

    Raises
    ------
    Problem
        400: a supported parameter has a value that it cannot have.
    """
    by_name = _by_name(parameters)
    attributes, unknown = _attributes(by_name, extensions)
    returned = {*supported_keys(level), *extra}
    matching = {**_matching(attributes), **(above or {})}
    unmatched = [path for path in attributes if path not in matched_keys() | _NOT_MATCHED]
    included = _included(by_name.get("includefield", []), level)
    wanted = {*_defaults(level, above or {}), *attributes, *included, *extra} & returned
    keys = QueryKeys(level, matching, _in_order(wanted), character_set=_UTF_8)
    return SearchParameters(
        keys,
        _number(by_name, "limit"),
        _number(by_name, "offset") or 0,
        _flag(by_name, "fuzzymatching"),
        {name: values for name, values in by_name.items() if name in extensions},
        [*_told("ignored", unknown), *_told("not matched", unmatched)],
    )


def _by_name(parameters: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values of each parameter; refuse what no search can have."""
    sent = list(parameters)
    if len(sent) > _MOST_PARAMETERS:
        raise Problem(400, f"send at most {_MOST_PARAMETERS} query parameters")
    if any("\0" in value for _, value in sent):  # which no database can look for
        raise Problem(400, "send no value with a NUL character")
    by_name: dict[str, list[str]] = {}
    for name, value in sent:
        by_name.setdefault(name, []).append(value)
    return by_name


def _attributes(
    parameters: Parameters, extensions: frozenset[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of each attribute by its path, and the names that mean nothing."""
    attributes: dict[str, list[str]] = {}
    unknown = []
    for name, values in parameters.items():
        if name not in _NOT_ATTRIBUTES | extensions:
            if path := _attribute_path(name):
                attributes.setdefault(path, []).extend(values)
            else:
                unknown.append(name)
    return attributes, unknown


def _attribute_path(name: str) -> str:
    """Return the path of keywords that an attribute's name means; empty when it means none.

    Parameters
    ----------
    name : str
        A keyword, a tag of eight hexadecimal digits, or several joined by full stops for what is
        inside a sequence (8.3.4.1).
    """
    parts = []
    for part in name.split("."):
        keyword = keyword_for_tag(int(part, 16)) if _TAG.fullmatch(part) else part
        if not keyword or tag_for_keyword(keyword) is None:
            return ""
        parts.append(keyword)
    return ".".join(parts)


def _matching(attributes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the keys that restrict the answer, as the catalogue wants them."""
    known = matched_keys()
    matching = {}
    for path, values in attributes.items():
        is_list = dictionary_VR(path.rpartition(".")[2]) in _VRS_OF_LISTS
        if len(values) > 1 and not is_list:
            raise wrong_value(path, "name it once")
        text = "\\".join(filter(None, ",".join(values).split(","))) if is_list else values[0]
        if path in known and not is_universal(text):
            matching[path] = text
    return matching


def _included(values: Sequence[str], level: Level) -> set[str]:
    names = [name.strip() for value in values for name in value.split(",")]
    if "all" in names:
        everything = supported_keys(level)
        return {path for path in everything if path.partition(".")[0] not in SEQUENCE_BY_KEYWORD}
    return {_attribute_path(name) for name in names}


def _defaults(level: Level, above: Mapping[str, str]) -> set[str]:
    """Return what is returned unasked: of the levels that the path does not name, too."""
    within = LEVELS[: LEVELS.index(level) + 1]
    found = {UNIQUE_KEY[part] for part in within if part != "PATIENT"}
    for part in within:
        if part == level or UNIQUE_KEY[part] not in above:
            found.update(_DEFAULT_KEYS[part])
    return found


def _in_order(paths: set[str]) -> tuple[str, ...]:
    """Return paths in the order of their tags; a sequence alone stands for all of its items."""
    whole = {path for path in paths if "." not in path}
    kept = [path for path in paths if path in whole or path.partition(".")[0] not in whole]
    return tuple(sorted(kept, key=lambda path: [tag_of(part) for part in path.split(".")]))


def _number(parameters: Parameters, name: str) -> int | None:
    text = only_value(parameters, name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise wrong_value(name, "must be a whole number from 0")
    return int(text)


def _flag(parameters: Parameters, name: str) -> bool:
    text = only_value(parameters, name)
    if text not in (None, "true", "false"):
        raise wrong_value(name, "must be true or false")
    return text == "true"


def _told(what: str, names: Sequence[str]) -> list[str]:
    """Return a warning about parameters, without what a header field could not hold."""
    tellable = [name for name in dict.fromkeys(names) if _TELLABLE.fullmatch(name)][:_MOST_TOLD]
    rest = len(set(names)) - len(tellable)
    listed = [*tellable, *([f"{rest} more"] if rest else [])]
    return [f"query parameters {what}: {' '.join(listed)}"] if names else []
