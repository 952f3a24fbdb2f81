"""Names in Japanese, Korean, Chinese and German, stored and asked for in their character sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from cbmir_node.answers.character_sets import answer_character_set
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import findscu, run
from tests.dicom.test_find import ask
from tests.objects import make_object, write

IR_87, IR_149 = ("", "ISO 2022 IR 87"), ("", "ISO 2022 IR 149")
UTF_8, LATIN_1, GB = ("ISO_IR 192",), ("ISO_IR 100",), ("GB18030",)
NAMES = {
    "JP": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "KR": "Hong^Gildong=洪^吉洞=홍^길동",
    "CN": "Wang^XiaoDong=王^小东",
    "DE": "Müller^Änne",
}
STORED = {"JP": IR_87, "KR": IR_149, "CN": GB, "DE": LATIN_1}

ASKED: list[tuple[tuple[str, ...], str, str, tuple[str, ...]]] = [
    (IR_87, NAMES["JP"], "JP", IR_87),
    (IR_87, "山田*", "JP", IR_87),
    (IR_87, "=山田^太郎", "JP", IR_87),
    (IR_87, "==やまだ^たろう", "JP", IR_87),
    (IR_87, "YAMADA", "JP", IR_87),
    (UTF_8, "山田^太郎", "JP", UTF_8),
    (UTF_8, "やまだ*", "JP", UTF_8),
    (GB, "山田", "JP", GB),
    ((), "yamada^tarou", "JP", UTF_8),
    (IR_149, NAMES["KR"], "KR", IR_149),
    (IR_149, "洪^吉洞", "KR", IR_149),
    (IR_149, "홍*", "KR", IR_149),
    (UTF_8, "==홍^길동", "KR", UTF_8),
    (IR_87, "洪", "KR", UTF_8),  # Hangul is in no Japanese set
    (GB, "王^小东", "CN", GB),
    (UTF_8, "王*", "CN", UTF_8),
    (LATIN_1, "mül?er", "DE", LATIN_1),
    (UTF_8, "müller^änne", "DE", UTF_8),
    (IR_87, "muller", "DE", UTF_8),
    (("ISO_IR 999",), "muller", "DE", UTF_8),
]
"""Character set and name of a request, who is found, character set of the answer."""

WRITTEN: list[tuple[tuple[str, ...], str, str, bytes]] = [
    # as in the examples of PS3.5 H.3.1 and I.2
    (IR_87, "=山田*", "JP", b"=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^"),
    (IR_149, "==홍^길동", "KR", b"=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="),
    (GB, "王*", "CN", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
    (UTF_8, "太?", "", b""),
]
"""Likewise, and bytes of the answer."""


@pytest.fixture
def patients(node: Node) -> Node:
    """Put a study of each patient into the node, encoded as in their countries."""
    node.keep(
        *(
            make_object(SpecificCharacterSet=list(STORED[key]), PatientID=key, PatientName=name)
            for key, name in NAMES.items()
        )
    )
    return node


def character_set_of(answer: Dataset) -> tuple[str, ...]:
    value = answer.SpecificCharacterSet
    return (value,) if isinstance(value, str) else tuple(part or "" for part in value)


def test_a_name_is_found_by_each_group_in_each_character_set(patients: Node) -> None:
    for asked, name, patient, answered in ASKED:
        keys: dict[str, Any] = {"SpecificCharacterSet": list(asked)} if asked else {}
        keys |= {"QueryRetrieveLevel": "STUDY", "PatientID": "", "PatientName": name}
        (_, answer), (final, _) = ask(patients, **keys)
        assert final.Status == 0x0000, name
        assert answer is not None, name
        assert (answer.PatientID, str(answer.PatientName)) == (patient, NAMES[patient])
        assert character_set_of(answer) == answered, name


def test_findscu_asks_and_gets(patients: Node, tmp_path: Path) -> None:
    """DCMTK sends a request file as it is, and keeps the answer as it comes."""
    needs_program("findscu", package="dcmtk")
    for number, (asked, name, patient, written) in enumerate(WRITTEN):
        folder = tmp_path / str(number)
        folder.mkdir()
        request = Dataset()
        request.SpecificCharacterSet = list(asked)
        request.QueryRetrieveLevel = "STUDY"
        request.PatientID, request.PatientName = "", name
        file = write(request, folder / "request.dcm", ExplicitVRLittleEndian)
        address = ("127.0.0.1", str(patients.port))
        run("findscu", "-S", "-aec", "CBMIR", "-X", "-od", folder, *address, file)
        answers = sorted(folder.glob("rsp*.dcm"))
        assert [dcmread(answer).PatientID for answer in answers] == ([patient] if patient else [])
        assert all(written in answer.read_bytes() for answer in answers), name


def test_findscu_from_the_command_line(patients: Node, tmp_path: Path) -> None:
    needs_program("findscu", package="dcmtk")
    keys = ("QueryRetrieveLevel=PATIENT", "SpecificCharacterSet=ISO_IR 192", "PatientID")
    for name, expected in (("洪^吉*", ["KR"]), ("吉*", [])):
        folder = tmp_path / name[0]
        answers = findscu(patients.port, folder, *keys, f"PatientName={name}", model="-P")
        assert [answer.PatientID for answer in answers] == expected


@pytest.mark.parametrize(
    ("text", "asked", "answered"),
    [
        ("Doe^Jane", UTF_8, ()),
        ("±5", IR_87, UTF_8),  # in JIS X 0208, but pydicom would write Latin-1
        ("山", ("ISO_IR 13",), UTF_8),
        ("ﾔﾏﾀﾞ", ("ISO_IR 13",), ("ISO_IR 13",)),
        ("é", ("ISO_IR 6",), UTF_8),
        ("é", ("ISO_IR 192", "ISO 2022 IR 87"), UTF_8),
        ("é山", ("ISO 2022 IR 100", "ISO 2022 IR 87"), ("ISO 2022 IR 100", "ISO 2022 IR 87")),
        ("☃", LATIN_1, UTF_8),
    ],
)
def test_character_set_of_an_answer(
    text: str, asked: tuple[str, ...], answered: tuple[str, ...]
) -> None:
    assert answer_character_set([text, ""], asked) == answered
