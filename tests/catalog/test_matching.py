"""Matching of codes, whose case counts (PS3.4 C.2.2.2.4), on SQLite and PostgreSQL alike."""

from __future__ import annotations

import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.hierarchy import find
from tests.catalog.test_catalog import record, store


@pytest.mark.parametrize(
    ("key", "value", "matches"),
    [
        ("BodyPartExamined", "CH*", True),
        ("BodyPartExamined", "ch*", False),
        ("BodyPartExamined", "?HE[S]T", False),  # a bracket is no wildcard
        ("BodyPartExamined", "CHE?T*", True),
        ("BodyPartExamined", "*che?t", False),
        ("BodyPartExamined", "C_EST*", False),
        ("BodyPartExamined", "*%*", False),
        ("StationName", "ct[1*", True),  # SH: regardless of case
        ("StationName", "CT[1]?", True),
        ("Laterality", "[R?", True),
        ("Laterality", "[r?", False),
        ("ImageType", "AXIAL", True),
        ("ImageType", "axial", False),
        ("ImageType", "PRIMARY\\LOCALIZER", True),  # any of several values
        ("ImageType", "*\\AX?AL", True),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on the hostile code string
def test_case_and_wildcards(catalog: Catalog, key: str, value: str, matches: bool) -> None:
    store(
        catalog,
        record(
            BodyPartExamined="CHEST",
            StationName="CT[1]X",
            Laterality="[R]",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        ),
    )
    assert len(find(catalog, "IMAGE", {key: value}, [], 10)) == int(matches)
