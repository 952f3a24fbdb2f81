"""What the catalogue derives from a received object's attributes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from cbmir_node.catalog.query.moments import moments
from cbmir_node.catalog.reception.records import (
    age_in_years,
    attribute_text,
    read_attributes,
    read_items,
)
from tests.objects import make_object

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"


def received(dataset: Dataset) -> Dataset:
    """Return a data set as it is read from a file."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit_VR=False, is_little_endian=True)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], JAPANESE),
        (
            ["ISO 2022 IR 6", "ISO 2022 IR 87"],
            "Haru^Hajime=春^初=はる^はじめ",
        ),  # 春 has a 0x3D, "="
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], KOREAN),
        ("ISO_IR 192", JAPANESE),
        ("ISO_IR 192", KOREAN),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GB18030", "Yun^X=運丂^乗"),  # 運 has a 0x5C, the backslash
        ("GBK", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 100", "Müller^Änne"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_are_read_in_every_character_set(character_set: Any, name: str) -> None:
    dataset = make_object(SpecificCharacterSet=character_set, PatientName=name)
    columns = read_attributes(received(dataset))["PATIENT"]
    _, ideographic, phonetic, *_ = [*name.split("="), "", ""]
    assert columns["patient_name"] == name
    assert columns["patient_name_ideographic"] == ideographic
    assert columns["patient_name_phonetic"] == phonetic


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("StudyDate", "2006.07.05", "20060705"),
        ("StudyTime", "10:15:30.5", "101530.5"),
        ("StudyTime", "10:1", "10:1"),
        ("SeriesNumber", "+007", "7"),
        ("SeriesNumber", "1_0", "1_0"),
        ("SeriesNumber", "1.5", "1.5"),
        ("PatientName", "Doe^Jane^^^=^", "Doe^Jane="),
    ],
)
def test_values_are_written_plainly(keyword: str, value: str, text: str) -> None:
    dataset = Dataset()
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, None, len(value), value.encode(), 0, True, True)
    assert attribute_text(dataset, keyword) == text


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2020", "20200101000000000000", "20201231235959999999"),
        ("202002", "20200201000000000000", "20200229235959999999"),
        ("202012", "20201201000000000000", "20201231235959999999"),
        ("20200101-0500", "20200101050000000000", "20200102045959999999"),
        ("2020010110+0130", "20200101083000000000", "20200101092959999999"),
        ("20200101101560", "20200101101559000000", "20200101101559999999"),
        ("20200101101530.25", "20200101101530250000", "20200101101530259999"),
        ("20200101101530.123456+0000", "20200101101530123456", "20200101101530123456"),
    ],
)
def test_moments_of_a_date_time(text: str, first: str, last: str) -> None:
    assert moments(text) == (first, last)


@pytest.mark.parametrize(
    "text", ["", "20", "20201301", "20200230", "2020010124", "20200101+05", "0001+0100", "x"]
)
def test_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match=r"date-time|month|day|hour|calendar"):
        moments(text)
    columns = read_attributes(make_object(AcquisitionDateTime=text))["IMAGE"]
    assert columns["acquisition_date_time_first"] == columns["acquisition_date_time_last"] == ""


def test_items_of_sequences() -> None:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "C1", "太郎"
    dataset = make_object(
        SpecificCharacterSet="ISO_IR 192",
        ProcedureCodeSequence=[code, Dataset()],
        RequestAttributesSequence=[],
    )
    written = {"code_value": "C1", "coding_scheme_designator": "", "code_meaning": "太郎"}
    assert read_items(received(dataset)) == {"ProcedureCodeSequence": [written]}
    dataset["ProcedureCodeSequence"].is_undefined_length = True
    assert read_items(received(dataset)) == {"ProcedureCodeSequence": [written]}
    assert read_items(make_object()) == {}


@pytest.mark.parametrize(
    "value",
    [
        b"no sequence at all",
        b"\xfe\xff\x00\xe0\xff\x00\x00\x00",  # an item that ends too early
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 100_000,  # more than is worth reading
    ],
)
def test_hostile_sequences_are_left_out(value: bytes) -> None:
    dataset = make_object()
    tag = Tag("ProcedureCodeSequence")
    dataset[tag] = RawDataElement(tag, "SQ", len(value), value, 0, False, True)
    assert read_items(dataset) == {}


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
