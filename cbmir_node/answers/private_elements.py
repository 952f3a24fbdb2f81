"""The private elements of similarity (PS3.5 section 7.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.datadict import add_private_dict_entries

from cbmir_node.answers.character_sets import UTF_8
from cbmir_node.search.query import SimilarityAnswer, SimilarMatch

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
CLASS_RESTRICTION = PrivateElement(0x16, "Class Restriction", "CS", "1")
RE_RANK = PrivateElement(0x17, "Re-rank", "CS", "1")
VECTOR_SPACE = PrivateElement(0x18, "Vector Space", "LO", "1")
SAME_TAGS = PrivateElement(0x19, "Same Tags", "CS", "1-n")

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
"""What every answer by the private SOP class carries."""

ANSWERED_WHEN_ASKED = (RE_RANK, VECTOR_SPACE)
"""What an answer carries only where the request has the element."""

ASKED = (
    RETRIEVAL_METHOD,
    PREDICTED_CLASS,
    MAXIMUM_RESULTS,
    MINIMUM_SIMILARITY,
    POSITIVE_EXAMPLE_UIDS,
    NEGATIVE_EXAMPLE_UIDS,
    MINIMUM_AGE,
    MAXIMUM_AGE,
    CLASS_RESTRICTION,
    RE_RANK,
    VECTOR_SPACE,
    SAME_TAGS,
)
"""What a request may set."""

RESERVED = (RETRIEVAL_MODEL,)
"""What a request may not set yet: choice of model."""

ELEMENT_OF_FIELD: Mapping[str, PrivateElement] = {
    "k": MAXIMUM_RESULTS,
    "method": RETRIEVAL_METHOD,
    "rerank": RE_RANK,
    "space": VECTOR_SPACE,
    "by_class": CLASS_RESTRICTION,
    "predicted_class": PREDICTED_CLASS,
    "same_tags": SAME_TAGS,
    "negative_examples": NEGATIVE_EXAMPLE_UIDS,
}
"""Field of a `SimilarityQuery` to the element that sets it."""

ELEMENTS = tuple(
    sorted({*ANSWERED, *ANSWERED_WHEN_ASKED, *ASKED, *RESERVED}, key=lambda element: element.offset)
)


def _register() -> None:
    """Make the elements known to pydicom, which reads them as UN in Implicit VR otherwise."""
    add_private_dict_entries(
        PRIVATE_CREATOR,
        {element.tag: (element.vr, element.vm, element.name, "") for element in ELEMENTS},
    )


_register()


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
        RE_RANK: "YES" if ranking.choices.rerank else "NO",
        VECTOR_SPACE: ranking.space[:64],
    }
    if elements:
        block = answer.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
        for element in elements:
            value = values[element]
            block.add_new(element.offset, element.vr, value)
            if isinstance(value, str) and not value.isascii():
                answer.SpecificCharacterSet = UTF_8
