"""The kinds of matching of PS3.4 C.2.2.2, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import Level
from cbmir_node.catalog.query.conditions import condition
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.config import Settings
from cbmir_node.errors import QueryError
from tests.catalog.test_catalog import record, store

Keys = Mapping[str, str]


WILD_CARDS = [
    ("BodyPartExamined", "CH*", "a"),
    ("BodyPartExamined", "ch*", ""),
    ("BodyPartExamined", "CHEST", "a"),
    ("BodyPartExamined", "chest", ""),
    ("BodyPartExamined", "?HE[S]T", ""),  # a bracket is no wild card
    ("BodyPartExamined", "CHE?T*", "a"),
    ("BodyPartExamined", "C_EST*", ""),
    ("BodyPartExamined", "*%*", ""),
    ("BodyPartExamined", "", "ab"),
    ("BodyPartExamined", "**", "ab"),
    ("StationName", "CT[1*", "a"),
    ("StationName", "ct[1*", ""),
    ("Laterality", "[R?", "a"),
    ("StudyDescription", "100%_done*", "a"),
    ("StudyDescription", "100%?done today!", "a"),
    ("StudyDescription", "100!%*", ""),
    ("PatientID", "Pat_1", "a"),
    ("PatientID", "PAT_1", ""),
    ("PatientID", "Pat?1", "a"),
    ("PatientID", "x\\Pat_1 \\y", "a"),
    ("PatientID", "x\\?at_1\\y", "a"),
    ("PatientAge", "045Y", "a"),
    ("PatientAge", "04?Y", ""),  # AS has no wild cards
    ("StudyInstanceUID", "1.2*", ""),  # nor has UI
    ("ImageType", "AXIAL", "a"),  # any of its values
    ("ImageType", "AXIA", ""),
    ("ImageType", "axial", ""),
    ("ImageType", "AX*", "a"),
    ("ImageType", "PRIMARY\\LOCALIZER", "a"),  # any of several asked for
    ("ImageType", "*\\AX?AL", "ab"),
    ("ImageType", "M_SE", "a"),
    ("ImageType", "DER?VED", "b"),
]
TIMES = [
    ("StudyDate", "20060706", "b"),
    ("StudyDate", "2006.07.06", "b"),
    ("StudyDate", "20060705-20060706", "ab"),
    ("StudyDate", "20060706 - 20060706", "b"),
    ("StudyDate", "20060707-", "ce"),
    ("StudyDate", "-20060706", "ab"),
    ("StudyDate", "20060708-20060705", ""),
    ("StudyTime", "2230", "a"),  # that minute
    ("StudyTime", "22:30:00", "a"),
    ("StudyTime", "223000.0000", "a"),
    ("StudyTime", "03", "be"),
    ("StudyTime", "030000.25", "be"),  # the stored 0300 may be
    ("StudyTime", "030100", ""),
    ("StudyTime", "030000.251-", "abc"),
    ("StudyTime", "-030000.2", "be"),
    ("StudyTime", "1400-2230", "ac"),
    ("StudyTime", "-1400", "bce"),
    ("StudyTime", "0301-", "ac"),
]


def found(catalog: Catalog, keys: Keys, level: Level = "STUDY", **how: Any) -> str:
    """Return the study IDs of all matches, in alphabetical order."""
    matches = find(catalog, level, keys, ["StudyID"], 100, **how)
    return "".join(sorted(match.values["StudyID"] for match in matches))


def answers(
    catalog: Catalog, cases: list[tuple[str, str, str]], level: Level = "STUDY"
) -> list[tuple[str, str, str]]:
    """Return the cases (key, value, study IDs) with what is really found."""
    return [(key, value, found(catalog, {key: value}, level)) for key, value, _ in cases]


def item(**attributes: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on the hostile code string
def test_case_and_wild_cards(catalog: Catalog) -> None:
    store(
        catalog,
        record(
            StudyID="a",
            PatientID="Pat_1",
            BodyPartExamined="CHEST",
            StationName="CT[1]X",
            Laterality="[R]",
            StudyDescription="100%_done today!",
            PatientAge="045Y",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "M_SE"],
        ),
        record(StudyID="b", ImageType=["DERIVED"], StudyDescription="", PatientAge=None),
    )
    assert answers(catalog, WILD_CARDS, "IMAGE") == WILD_CARDS


def test_lists_of_uids(catalog: Catalog) -> None:
    store(catalog, *(record(StudyID=name, StudyInstanceUID=f"1.{name}") for name in "12"))
    assert found(catalog, {"StudyInstanceUID": "1.1\\1.9\\1.2 "}) == "12"
    assert found(catalog, {"StudyInstanceUID": "1.2"}) == "2"
    with pytest.raises(QueryError, match="StudyInstanceUID: at most"):
        found(catalog, {"StudyInstanceUID": "\\".join(f"1.{n}" for n in range(20_000))})


def test_lists_of_texts_are_short(catalog: Catalog) -> None:
    """Each is part of an OR, and a database refuses long ones."""
    store(catalog, record(StudyID="1", PatientName="Doe^Jane"))
    nobody = [f"Nobody{number}" for number in range(49)]
    assert found(catalog, {"PatientName": "\\".join([*nobody, "doe"])}) == "1"
    for values in ([*nobody, "doe", "Nobody"], ["*" * 1024 + "doe"]):
        for keyword in ("PatientName", "PatientID", "ImageType"):
            with pytest.raises(QueryError, match=f"{keyword}: at most"):
                found(catalog, {keyword: "\\".join(values)})


def test_as_many_queries_at_once_as_associations(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with ExitStack() as transactions:
        for _ in range(Settings().dicom.max_associations):
            transactions.enter_context(catalog.read())
    catalog.close()


def test_dates_and_times(catalog: Catalog) -> None:
    store(
        catalog,
        record(StudyID="a", StudyDate="20060705", StudyTime="223000"),
        record(StudyID="b", StudyDate="20060706", StudyTime="0300"),
        record(StudyID="c", StudyDate="2006.07.07", StudyTime="14:00:00"),
        record(StudyID="d", StudyDate="", StudyTime="", PatientBirthDate=""),
        record(StudyID="e", StudyDate="20060708", StudyTime="030000.250"),
    )
    assert answers(catalog, TIMES) == TIMES


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("StudyDate", "2006"),
        ("StudyDate", "20061301"),
        ("StudyDate", "20060732-"),
        ("StudyDate", "2006-07-05"),
        ("StudyDate", "20060705-20060706-"),
        ("StudyDate", "-"),
        ("StudyDate", "2006070*"),
        ("StudyTime", "2460"),
        ("StudyTime", "10-12-14"),
        ("StudyTime", "1015.5"),
        ("AcquisitionDateTime", "yesterday"),
        ("AcquisitionDateTime", "20060231-"),
        ("AcquisitionDateTime", "2006070510+2500"),
        ("AcquisitionDateTime", "-9999-1200"),
    ],
)
def test_bad_times_are_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(QueryError, match=f"{key}: "):
        condition(key, value)


def test_date_times(catalog: Catalog) -> None:
    written = {
        "a": "19980128103000",
        "b": "19980128073000.000000-0300",  # the same moment
        "c": "199801",
        "d": "19980128",
        "e": "19980128190000+0900",  # 10:00
        "f": "",
        "g": "nonsense",
        "h": "19980131230000-0200",  # February
    }
    store(
        catalog,
        *(record(StudyID=name, AcquisitionDateTime=text) for name, text in written.items()),
    )
    key = "AcquisitionDateTime"
    expected = [
        ("19980128103000.0000", "abcd"),
        ("19980128073000-0300", "abcd"),
        ("1998012810", "abcde"),
        ("199801281030-199801281031", "abcd"),
        ("19980128103001-", "cdh"),
        ("-19980128095959", "cd"),
        ("-19980128095959-0030", "cde"),
        ("19980128063000-0330-19980128064500-0330", "cde"),
        ("199802", "h"),
        ("1998-1998", "abcdeh"),
        ("1999-", ""),
    ]
    cases = [(key, value, names) for value, names in expected]
    assert answers(catalog, cases, "IMAGE") == cases


def test_date_and_time_as_one_point_in_time(catalog: Catalog) -> None:
    """The example of PS3.4 C.2.2.2.5.4."""
    times = {
        "a": ("20060705", "0959"),
        "b": ("20060705", "1000"),
        "c": ("20060706", "0300"),
        "d": ("20060707", "180059"),
        "e": ("20060707", "1801"),
        "f": ("20060705", ""),
        "g": ("20060708", "1200"),
        "h": ("", "1200"),
    }
    store(
        catalog,
        *(record(StudyID=key, StudyDate=day, StudyTime=at) for key, (day, at) in times.items()),
    )
    both = {"StudyDate": "20060705-20060707", "StudyTime": "1000-1800"}
    assert found(catalog, both) == "bd"
    assert found(catalog, both, combined_date_times=True) == "bcdf"
    after = {"StudyDate": "20060705-", "StudyTime": "1000-"}
    assert found(catalog, after, combined_date_times=True) == "bcdefg"
    before = {"StudyDate": "-20060707", "StudyTime": "-1800"}
    assert found(catalog, before, combined_date_times=True) == "abcdf"
    other_form = {"StudyDate": "20060705-", "StudyTime": "1000-1800"}
    assert found(catalog, other_form, combined_date_times=True) == "bdg"
    assert found(catalog, {"StudyDate": "20060706"}, combined_date_times=True) == "c"


def test_sequences(catalog: Catalog) -> None:
    chest = item(CodeValue="C1", CodingSchemeDesignator="99A", CodeMeaning="Thorax")
    head = item(CodeValue="H1", CodingSchemeDesignator="99B", CodeMeaning="Kopf")
    series = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "StudyID": "a"}
    store(catalog, record(**series))
    store(
        catalog,
        record(
            **series,
            ProcedureCodeSequence=[chest, head],
            RequestAttributesSequence=[item(RequestedProcedureID="R1")],
        ),
        record(StudyID="b", ProcedureCodeSequence=[head]),
        record(StudyID="c", ProcedureCodeSequence=[]),
    )
    # the first object that has the sequence describes the study
    store(catalog, record(**series, ProcedureCodeSequence=[item(CodeValue="X")]))
    code, scheme = "ProcedureCodeSequence.CodeValue", "ProcedureCodeSequence.CodingSchemeDesignator"
    assert found(catalog, {code: "H1"}) == "ab"
    assert found(catalog, {code: "C?"}) == "a"
    assert found(catalog, {code: "h1"}) == ""
    assert found(catalog, {code: "X"}) == ""
    assert found(catalog, {code: "C1", scheme: "99B"}) == ""  # of one item
    assert found(catalog, {code: "", scheme: "*"}) == "abc"
    assert found(catalog, {"RequestAttributesSequence.RequestedProcedureID": "R1"}, "SERIES") == "a"
    (match,) = find(catalog, "SERIES", {code: "C1"}, [code, "RequestAttributesSequence"], 10)
    assert match.items == {
        "ProcedureCodeSequence": [
            {"CodeValue": "C1", "CodingSchemeDesignator": "99A", "CodeMeaning": "Thorax"}
        ],
        "RequestAttributesSequence": [
            {"RequestedProcedureID": "R1", "ScheduledProcedureStepID": "", "AccessionNumber": ""}
        ],
    }
    whole = {
        match.values["StudyID"]: len(match.items["ProcedureCodeSequence"])
        for match in find(catalog, "STUDY", {}, ["StudyID", "ProcedureCodeSequence"], 10)
    }
    assert whole == {"a": 2, "b": 1, "c": 0}


def test_keys_of_lower_levels_match_what_is_below(catalog: Catalog) -> None:
    """As relational queries want it (PS3.4 C.4.1.3.2.1)."""
    first = {"PatientID": "P", "StudyID": "a", "StudyInstanceUID": "1.1"}
    store(catalog, record(**first, Modality="CT", SeriesNumber="001", InstanceNumber=7))
    store(catalog, record(**first, Modality="MR", SeriesNumber=2, InstanceNumber=8))
    store(catalog, record(PatientID="P", StudyID="b", Modality="MR", InstanceNumber=7))
    assert found(catalog, {"Modality": "CT"}) == "a"
    assert found(catalog, {"Modality": "CT", "SeriesNumber": "1"}) == "a"
    assert found(catalog, {"Modality": "CT", "SeriesNumber": "2"}) == ""  # of one series
    assert found(catalog, {"Modality": "MR", "InstanceNumber": "8"}) == "a"
    assert found(catalog, {"Modality": "MR", "InstanceNumber": "7"}) == "b"
    assert len(find(catalog, "PATIENT", {"InstanceNumber": "7"}, [], 10)) == 1
    assert len(find(catalog, "PATIENT", {"ModalitiesInStudy": "CT", "StudyID": "a"}, [], 10)) == 1
    assert len(find(catalog, "PATIENT", {"ModalitiesInStudy": "CT", "StudyID": "b"}, [], 10)) == 0
    assert len(find(catalog, "SERIES", {"InstanceNumber": "7"}, [], 10)) == 2
    # a study's list of modalities is the study's at any level
    assert len(find(catalog, "SERIES", {"ModalitiesInStudy": "CT"}, [], 10)) == 2
    assert len(find(catalog, "IMAGE", {"SOPClassesInStudy": "1.2\\1.3"}, [], 10)) == 0


def test_computed_keys_at_every_level(catalog: Catalog) -> None:
    study = {"PatientID": "P", "StudyInstanceUID": "1.1"}
    store(catalog, record(**study, SeriesInstanceUID="1.2", Modality="CT"))
    store(catalog, record(**study, SeriesInstanceUID="1.3", Modality="SR"))
    store(catalog, record(**study, SeriesInstanceUID="1.3", Modality="SR"))
    store(catalog, record(PatientID="P", StudyInstanceUID="1.4", Modality=""))
    counts = {
        "NumberOfPatientRelatedStudies": "2",
        "NumberOfPatientRelatedSeries": "3",
        "NumberOfPatientRelatedInstances": "4",
        "NumberOfStudyRelatedSeries": "2",
        "NumberOfStudyRelatedInstances": "3",
        "ModalitiesInStudy": "CT\\SR",
        "SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2",
        "NumberOfSeriesRelatedInstances": "2",
    }
    (match,) = find(catalog, "PATIENT", {}, list(counts), 10)
    assert match.values == dict(list(counts.items())[:3])
    (match,) = find(catalog, "STUDY", {"StudyInstanceUID": "1.1"}, list(counts), 10)
    assert match.values == dict(list(counts.items())[:7])
    images = find(catalog, "IMAGE", {"SeriesInstanceUID": "1.3"}, list(counts), 10)
    assert [image.values for image in images] == [counts, counts]
    (other,) = find(catalog, "STUDY", {"StudyInstanceUID": "1.4"}, ["ModalitiesInStudy"], 10)
    assert other.values == {"ModalitiesInStudy": ""}


def test_what_is_not_kept_is_told_at_every_level(catalog: Catalog) -> None:
    study = {"PatientID": "P", "StudyInstanceUID": "1.1"}
    gone = record(**study, SeriesInstanceUID="1.2")
    store(catalog, gone, record(**study, SeriesInstanceUID="1.3"), record(PatientID="P"))

    def kept(level: Level) -> list[bool]:
        return sorted(match.kept for match in find(catalog, level, {}, [], 10))

    assert kept("PATIENT") == [True]
    with catalog.write() as connection:
        is_gone = schema.instances.c.sop_instance_uid == gone.sop_instance_uid
        connection.execute(schema.instances.update().where(is_gone).values(path=""))
    assert kept("PATIENT") == [False]
    assert kept("STUDY") == [False, True]
    assert kept("SERIES") == kept("IMAGE") == [False, True, True]
