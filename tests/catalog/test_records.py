"""What the catalogue derives from a received object's attributes."""

from __future__ import annotations

import pytest

from cbmir_node.catalog.records import age_in_years


@pytest.mark.parametrize(
    ("age", "birth_date", "study_date", "expected"),
    [
        ("045Y", "20010101", "20020101", 45),  # what is written wins over what can be counted
        ("018M", "", "", 1.5),
        ("", "20010101", "20020101", 1),
        ("", "20010101", "20011231", pytest.approx(1, abs=0.01)),
        ("", "19600615", "20250615", 65),
        ("", "20000229", "20010228", pytest.approx(1, abs=0.01)),
        ("", "20000229", "20010301", 1),
        ("", "20000229", "20040229", 4),
        ("", "20010101", "20010702", pytest.approx(0.5, abs=0.005)),
        ("", "20010101", "20010101", 0),
        ("", "19000101", "99991231", pytest.approx(8100, abs=0.01)),
        ("", "20020101", "20010101", None),
        ("45", "", "20010101", None),
    ],
)
def test_age(age: str, birth_date: str, study_date: str, expected: float | None) -> None:
    assert age_in_years(age, birth_date, study_date) == expected


@pytest.mark.parametrize("born", ["20000229", "20010101", "19991231"])
def test_no_day_before_a_birthday_counts_as_that_birthday(born: str) -> None:
    for year in range(2002, 2010):
        eve = {"0229": "0228", "0101": "1231", "1231": "1230"}[born[4:]]
        eve_year = year - 1 if born.endswith("0101") else year
        before = age_in_years("", born, f"{eve_year}{eve}")
        assert before is not None
        assert before < year - int(born[:4])
