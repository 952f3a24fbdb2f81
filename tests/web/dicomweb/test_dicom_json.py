"""DICOM JSON: what is read without pydicom is what pydicom reads, and it is JSON."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cbmir_node.web.dicomweb import dicom_json
from cbmir_node.web.dicomweb.dicom_json import json_array, json_dataset
from cbmir_node.web.dicomweb.plain_elements import plain_json


def read_again(syntax: str, **values: Any) -> Dataset:
    """Return a data set as it is read from a file: its elements are raw."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=False)
    buffer.seek(0)
    return dcmread(buffer, force=True)


ITEM = Dataset()
ITEM.CodeValue = "T-A0100"
ITEM.CodeMeaning = "Gehirn – Übersicht"
VALUES: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "", "AXIAL"],
    "StudyDate": "20240102",
    "StudyTime": "",
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ReferringPhysicianName": "Doe^Jane",
    "OtherPatientNames": ["A^B", "C^D"],
    "PatientID": "  spaced  ",
    "StudyDescription": "Kopf\\Übersicht",
    "PatientComments": "a\\b is one text\r\n",
    "SliceThickness": "1.50",
    "ImagePositionPatient": ["-1.5", "2", "3e2"],
    "SeriesNumber": "007",
    "Rows": 512,
    "SmallestImagePixelValue": 3,
    "FrameIncrementPointer": 0x00181063,
    "RecommendedDisplayFrameRateInFloat": 12.5,
    "DoubleExposureFieldDeltaTrial": [],
    "ReferencePixelX0": -5,
    "StudyInstanceUID": "1.2.3",
    "ProcedureCodeSequence": [ITEM],
    "ICCProfile": bytes(range(8)),
}


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_what_is_read_as_it_stands_is_what_pydicom_reads(
    syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {key: value for key, value in VALUES.items() if value != []}
    dataset = read_again(syntax, PixelRepresentation=0, **values)
    raw = [one for one in dataset.values() if isinstance(one, RawDataElement)]
    assert len([one for one in raw if plain_json(one)]) > 10
    found = json_dataset(dataset)
    monkeypatch.setattr(dicom_json, "plain_json", lambda _: None)
    assert found == json_dataset(read_again(syntax, PixelRepresentation=0, **values))
    assert found["00081030"]["Value"] == ["Kopf", "Übersicht"]
    assert found["00081032"]["Value"][0]["00080104"]["Value"] == ["Gehirn – Übersicht"]


def test_escape_sequences_are_left_to_pydicom() -> None:
    dataset = read_again(
        ExplicitVRLittleEndian,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
    )
    (name,) = json_dataset(dataset)["00100010"]["Value"]
    assert name == {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}


def test_numbers_that_json_does_not_have_are_strings() -> None:
    dataset = read_again(
        ExplicitVRLittleEndian, SelectorFDValue=[math.nan, math.inf, -math.inf, 0.5]
    )
    text = b"".join(json_array([json_dataset(dataset)]))
    (described,) = json.loads(text, parse_constant=pytest.fail)
    assert described["00720074"]["Value"] == ["NaN", "inf", "-inf", 0.5]


def test_empty_values_among_others_are_null() -> None:
    dataset = read_again(
        ExplicitVRLittleEndian,
        ImageType=["ORIGINAL", "", "AXIAL"],
        OtherPatientNames=["A^B", "", "C^D"],
        ImagePositionPatient=["1", "", "3"],
        PatientName="",
    )
    found = json_dataset(dataset)
    assert found["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert found["00101001"]["Value"] == [{"Alphabetic": "A^B"}, None, {"Alphabetic": "C^D"}]
    assert found["00200032"]["Value"] == [1, None, 3]
    assert found["00100010"] == {"vr": "PN"}


def test_an_array_comes_in_chunks_and_is_whole() -> None:
    described = [{"00100020": {"vr": "LO", "Value": [f"{n}" * 40]}} for n in range(3000)]
    chunks = list(json_array(described))
    assert len(chunks) > 2
    assert json.loads(b"".join(chunks)) == described
    assert json.loads(b"".join(json_array([]))) == []
