"""The private C-FIND SOP class and the private elements of similarity (PS3.5 section 7.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.datadict import add_private_dict_entries
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from cbmir_node.dicom.statuses import RefusedRequestError, Status
from cbmir_node.search.query import METHODS, Method, SimilarityAnswer, SimilarMatch

SIMILARITY_FIND = UID("2.25.284295670403067781368888672978503516813")
"""Similarity Information Model – FIND: STUDY, SERIES and IMAGE level similarity."""

PRIVATE_CREATOR = "CBMIR-NODE 1.0"
PRIVATE_GROUP = 0x0079


@dataclass(frozen=True)
class PrivateElement:
    """An element of the private block; `offset` is the low byte of its number."""

    offset: int
    name: str
    vr: str
    vm: str

    @property
    def tag(self) -> int:
        """Tag in the first private block, 0x10; a peer may use another block."""
        return PRIVATE_GROUP << 16 | 0x1000 | self.offset


SIMILARITY = PrivateElement(0x01, "Similarity", "FD", "1")
RANK = PrivateElement(0x02, "Rank", "US", "1")
MATCHED_SOP_INSTANCE_UID = PrivateElement(0x03, "Matched SOP Instance UID", "UI", "1")
MATCHED_FRAME_NUMBER = PrivateElement(0x04, "Matched Frame Number", "US", "1")
RETRIEVAL_METHOD = PrivateElement(0x05, "Retrieval Method", "CS", "1")
RETRIEVAL_MODEL = PrivateElement(0x06, "Retrieval Model", "LO", "1")
PREDICTED_CLASS = PrivateElement(0x07, "Predicted Class", "LO", "1")
CLASS_PROBABILITY = PrivateElement(0x08, "Class Probability", "FD", "1")
MAXIMUM_RESULTS = PrivateElement(0x10, "Maximum Results", "US", "1")
MINIMUM_SIMILARITY = PrivateElement(0x11, "Minimum Similarity", "FD", "1")
POSITIVE_EXAMPLE_UIDS = PrivateElement(0x12, "Positive Example UIDs", "UI", "1-n")
NEGATIVE_EXAMPLE_UIDS = PrivateElement(0x13, "Negative Example UIDs", "UI", "1-n")
MINIMUM_AGE = PrivateElement(0x14, "Minimum Age", "FD", "1")
MAXIMUM_AGE = PrivateElement(0x15, "Maximum Age", "FD", "1")

ANSWERED = (
    SIMILARITY,
    RANK,
    MATCHED_SOP_INSTANCE_UID,
    MATCHED_FRAME_NUMBER,
    RETRIEVAL_METHOD,
    RETRIEVAL_MODEL,
    PREDICTED_CLASS,
    CLASS_PROBABILITY,
)
"""What an answer may carry."""

ASKED = (
    RETRIEVAL_METHOD,
    MAXIMUM_RESULTS,
    MINIMUM_SIMILARITY,
    POSITIVE_EXAMPLE_UIDS,
    MINIMUM_AGE,
    MAXIMUM_AGE,
)
"""What a request may set."""

RESERVED = (RETRIEVAL_MODEL, PREDICTED_CLASS, NEGATIVE_EXAMPLE_UIDS)
"""What a request may not set yet: choice of model, class restriction, negative examples."""

ELEMENTS = tuple(sorted({*ANSWERED, *ASKED, *RESERVED}, key=lambda element: element.offset))


def _register() -> None:
    """Make the SOP class known to pynetdicom and the elements to pydicom.

    Without the latter pydicom reads our elements as UN in Implicit VR.
    """
    if uid_to_service_class(SIMILARITY_FIND) is not QueryRetrieveServiceClass:
        register_uid(
            SIMILARITY_FIND,
            "SimilarityInformationModelFind",
            QueryRetrieveServiceClass,
            dimse_msg_type="C-FIND",
        )
    add_private_dict_entries(
        PRIVATE_CREATOR,
        {element.tag: (element.vr, element.vm, element.name, "") for element in ELEMENTS},
    )


_register()


@dataclass(frozen=True)
class PrivateRequest:
    """What a request asks by the private block.

    Attributes
    ----------
    requested : tuple of PrivateElement
        Elements of `ANSWERED` that are present in the request.
    positive_examples : tuple of str
        Further example UIDs of the query's level.
    """

    requested: tuple[PrivateElement, ...] = ()
    maximum_results: int | None = None
    minimum_similarity: float = 0.0
    method: Method | None = None
    positive_examples: tuple[str, ...] = ()
    minimum_age: float | None = None
    maximum_age: float | None = None


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
    similarity = _number(values, MINIMUM_SIMILARITY, 0, 1)
    return PrivateRequest(
        requested=tuple(element for element in ANSWERED if element in values),
        maximum_results=None if results is None else int(results),
        minimum_similarity=similarity or 0.0,
        method=_method(values),
        positive_examples=tuple(str(uid) for uid in values.get(POSITIVE_EXAMPLE_UIDS, []) if uid),
        minimum_age=_number(values, MINIMUM_AGE, 0, 200),
        maximum_age=_number(values, MAXIMUM_AGE, 0, 200),
    )


def add_private_block(
    answer: Dataset,
    elements: Sequence[PrivateElement],
    match: SimilarMatch,
    ranking: SimilarityAnswer,
) -> None:
    """Add `elements` of one match to its answer."""
    values: dict[PrivateElement, Any] = {
        SIMILARITY: match.similarity,
        RANK: min(match.rank, 65535),
        MATCHED_SOP_INSTANCE_UID: match.matched_sop_instance_uid,
        MATCHED_FRAME_NUMBER: min(match.matched_frame_number, 65535),
        RETRIEVAL_METHOD: ranking.method.upper(),
        RETRIEVAL_MODEL: ranking.model[:64],
        PREDICTED_CLASS: None if match.label is None else match.label[:64],
        CLASS_PROBABILITY: match.probability,
    }
    if elements:
        block = answer.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
        for element in elements:
            block.add_new(element.offset, element.vr, values[element])


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
    values: dict[PrivateElement, list[Any]], element: PrivateElement, low: float, high: float
) -> float | None:
    value = values.get(element)
    if not value:
        return None
    if len(value) > 1 or not isinstance(value[0], (int, float)):
        raise _wrong(element, "must be one number")
    if not low <= value[0] <= high:
        raise _wrong(element, f"must be in {low}-{high}")
    return value[0]


def _method(values: dict[PrivateElement, list[Any]]) -> Method | None:
    value = values.get(RETRIEVAL_METHOD)
    if not value:
        return None
    wanted = str(value[0]).strip().lower()
    for method in METHODS:
        if wanted == method:
            return method
    raise _wrong(RETRIEVAL_METHOD, f"must be {' or '.join(METHODS).upper()}")


def _wrong(element: PrivateElement, message: str) -> RefusedRequestError:
    return RefusedRequestError(Status.IDENTIFIER_MISMATCH, f"{element.name} {message}", element.tag)
