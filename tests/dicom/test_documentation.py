"""docs/dicom.md says what the code does."""

from __future__ import annotations

import re

from cbmir_node.answers.private_elements import (
    ANSWERED,
    ANSWERED_WHEN_ASKED,
    ASKED,
    ELEMENTS,
    PRIVATE_CREATOR,
    PRIVATE_GROUP,
    RESERVED,
)
from cbmir_node.dicom.private_request import (
    FLAG_VALUES,
    METHOD_VALUES,
    NO_TAGS,
    SAME_TAG_VALUES,
)
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "dicom.md").read_text(encoding="utf-8")


def cells(first: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches a pattern."""
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if re.fullmatch(first, row[0].strip())]


def test_private_elements() -> None:
    rows = cells(rf"\({PRIVATE_GROUP:04X},xx[0-9A-F]{{2}}\)")
    written = [(row[0], row[1], row[2], row[3]) for row in rows]
    assert written == [
        (f"({PRIVATE_GROUP:04X},xx{element.offset:02X})", element.name, element.vr, element.vm)
        for element in ELEMENTS
    ]
    by_name = {row[1]: row for row in rows}
    assert {name for name, row in by_name.items() if row[4] == "reserved"} == {
        element.name for element in RESERVED
    }
    assert {name for name, row in by_name.items() if row[4] not in ("", "reserved")} == {
        element.name for element in ASKED
    }
    assert {name for name, row in by_name.items() if row[5]} == {
        element.name for element in (*ANSWERED, *ANSWERED_WHEN_ASKED)
    }


def test_values_of_code_strings() -> None:
    (same_tags,) = (row for row in cells(r"\(0079,xx19\)"))
    assert set(re.findall(r"[A-Z_]{3,}", same_tags[4])) == {*SAME_TAG_VALUES, NO_TAGS}
    (method,) = (row for row in cells(r"\(0079,xx05\)"))
    assert set(re.findall(r"[A-Z]{3,}", method[4])) == set(METHOD_VALUES)
    for value in (*SAME_TAG_VALUES, NO_TAGS, *METHOD_VALUES, *FLAG_VALUES):
        assert re.fullmatch(r"[A-Z0-9_ ]{1,16}", value)  # PS3.5 6.2, VR CS


def test_sop_class_and_creator() -> None:
    assert f"`{SIMILARITY_FIND}`" in PAGE
    assert f"`{PRIVATE_CREATOR}`" in PAGE
