"""What a request asks by the private block.

An element that is absent or empty leaves its matter as configured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydicom import Dataset
from pydicom.multival import MultiValue

from cbmir_node.answers.private_elements import (
    CLASS_RESTRICTION,
    ELEMENTS,
    MAXIMUM_AGE,
    MAXIMUM_RESULTS,
    MINIMUM_AGE,
    MINIMUM_SIMILARITY,
    NEGATIVE_EXAMPLE_UIDS,
    POSITIVE_EXAMPLE_UIDS,
    PREDICTED_CLASS,
    PRIVATE_CREATOR,
    PRIVATE_GROUP,
    RE_RANK,
    RESERVED,
    RETRIEVAL_METHOD,
    SAME_TAGS,
    VECTOR_SPACE,
    PrivateElement,
)
from cbmir_node.dicom.statuses import RefusedRequestError, Status
from cbmir_node.search.query import METHODS, Method, SameTag

_Value = TypeVar("_Value")

METHOD_VALUES: Mapping[str, Method] = {method.upper(): method for method in METHODS}
FLAG_VALUES: Mapping[str, bool] = {"YES": True, "NO": False}
SAME_TAG_VALUES: Mapping[str, SameTag] = {
    "MODALITY": "Modality",
    "BODY_PART": "BodyPartExamined",
    "SEX": "PatientSex",
    "AGE": "PatientAge",
}
NO_TAGS = "NONE"
"""Value of Same Tags that lifts what is configured."""


@dataclass(frozen=True)
class PrivateRequest:
    """The private elements of a request; ``None`` is as configured.

    Attributes
    ----------
    present : frozenset of PrivateElement
        Elements of the block that the request has, empty ones included.
    positive_examples, negative_examples : tuple of str
        Further example UIDs of the query's level, and what the answers should not look like.
    """

    present: frozenset[PrivateElement] = frozenset()
    maximum_results: int | None = None
    minimum_similarity: float = 0.0
    positive_examples: tuple[str, ...] = ()
    negative_examples: tuple[str, ...] = ()
    minimum_age: float | None = None
    maximum_age: float | None = None
    method: Method | None = None
    rerank: bool | None = None
    space: str | None = None
    by_class: bool | None = None
    predicted_class: str | None = None
    same_tags: tuple[SameTag, ...] | None = None


def read_private_request(identifier: Dataset) -> PrivateRequest:
    """Read our private block of a request; other creators' elements are ignored.

    Raises
    ------
    RefusedRequestError
        A value is out of range, or asks for what is not supported yet.
    """
    values = _values(identifier)
    for element in RESERVED:
        if values.get(element):
            raise RefusedRequestError(
                Status.NOT_SUPPORTED_YET, f"{element.name} is not supported yet", element.tag
            )
    results = _number(values, MAXIMUM_RESULTS, 1, 65535)
    return PrivateRequest(
        present=frozenset(values),
        maximum_results=None if results is None else int(results),
        minimum_similarity=_number(values, MINIMUM_SIMILARITY, 0, 1) or 0.0,
        positive_examples=_uids(values, POSITIVE_EXAMPLE_UIDS),
        negative_examples=_uids(values, NEGATIVE_EXAMPLE_UIDS),
        minimum_age=_number(values, MINIMUM_AGE, 0, 200),
        maximum_age=_number(values, MAXIMUM_AGE, 0, 200),
        method=_choice(values, RETRIEVAL_METHOD, METHOD_VALUES),
        rerank=_choice(values, RE_RANK, FLAG_VALUES),
        space=_text(values, VECTOR_SPACE),
        by_class=_choice(values, CLASS_RESTRICTION, FLAG_VALUES),
        predicted_class=_text(values, PREDICTED_CLASS),
        same_tags=_same_tags(values),
    )


def _values(identifier: Dataset) -> dict[PrivateElement, list[Any]]:
    """Return the elements of our block that are present, each with its values."""
    try:
        block = identifier.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    except KeyError:
        return {}
    values: dict[PrivateElement, list[Any]] = {}
    for element in ELEMENTS:
        if element.offset not in block:
            continue
        try:
            value = block[element.offset].value
        except Exception as error:  # pydicom raises many kinds on values that break their VR
            raise _wrong(element, "cannot be read") from error
        several = isinstance(value, (MultiValue, list))
        values[element] = list(value) if several else [] if value in (None, "", b"") else [value]
    return values


def _number(
    values: Mapping[PrivateElement, list[Any]], element: PrivateElement, low: float, high: float
) -> float | None:
    value = values.get(element)
    if not value:
        return None
    if len(value) > 1 or not isinstance(value[0], (int, float)):
        raise _wrong(element, "must be one number")
    if not low <= value[0] <= high:
        raise _wrong(element, f"must be in {low}-{high}")
    return value[0]


def _text(values: Mapping[PrivateElement, list[Any]], element: PrivateElement) -> str | None:
    """Return an element's only value, ``None`` where there is none."""
    texts = _texts(values, element)
    if len(texts) > 1:
        raise _wrong(element, "must be one value")
    return texts[0] if texts else None


def _uids(values: Mapping[PrivateElement, list[Any]], element: PrivateElement) -> tuple[str, ...]:
    """Return each of an element's UIDs once."""
    texts = (str(uid).strip() for uid in values.get(element, []))
    return tuple(dict.fromkeys(text for text in texts if text))


def _texts(values: Mapping[PrivateElement, list[Any]], element: PrivateElement) -> list[str]:
    """Return an element's values without padding; code strings are upper case (PS3.5 6.2)."""
    texts = [str(text).strip() for text in values.get(element, [])]
    return [text.upper() if element.vr == "CS" else text for text in texts if text]


def _choice(
    values: Mapping[PrivateElement, list[Any]],
    element: PrivateElement,
    meanings: Mapping[str, _Value],
) -> _Value | None:
    text = _text(values, element)
    if text is None:
        return None
    if text not in meanings:
        raise _wrong(element, f"must be {_either(list(meanings))}")
    return meanings[text]


def _same_tags(values: Mapping[PrivateElement, list[Any]]) -> tuple[SameTag, ...] | None:
    texts = _texts(values, SAME_TAGS)
    if texts == [NO_TAGS]:
        return ()
    if any(text not in SAME_TAG_VALUES for text in texts):
        raise _wrong(SAME_TAGS, f"must be of {', '.join(SAME_TAG_VALUES)}, or {NO_TAGS}")
    return tuple(SAME_TAG_VALUES[text] for text in dict.fromkeys(texts)) or None


def _either(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def _wrong(element: PrivateElement, message: str) -> RefusedRequestError:
    return RefusedRequestError(Status.IDENTIFIER_MISMATCH, f"{element.name} {message}", element.tag)
