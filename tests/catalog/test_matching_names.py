"""Person names: regardless of case, accents and width, each component group on its own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.query.person_names import folded
from tests.catalog.test_catalog import record, store
from tests.catalog.test_matching import found

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Müller^Änne", "MULLER^anne"),
        ("Mu\u0308ller^A\u0308nne ", "müller^ÄNNE"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"),
        ("Ｄｏｅ^Jane", "doe^jane"),
        ("Doe ^ Jane^^", "doe^jane"),
        ("Strauß", "STRAUSS"),
        ("Άννα", "αννα"),
        ("Йосиф", "йосиф"),
        ("Łukasz^Đặng^Ħal", "lukasz^dang^hal"),
        ("ŞIK^ışık^İpek", "sik^isik^ipek"),
        ("Ægir^Sørensen^Œuvre", "aegir^SORENSEN^oeuvre"),
        ("Þór^Sigurðsson^Ŧ", "thor^sigurdsson^t"),
    ],
)
def test_folding(name: str, same: str) -> None:
    assert folded(name) == folded(same)


def test_what_folding_keeps_apart() -> None:
    assert folded("かき") != folded("がき")  # voiced kana are other letters
    assert folded("やまだ") != folded("ヤマダ")
    assert folded("洪") != folded("红")


def test_names(catalog: Catalog) -> None:
    names = {
        "j": JAPANESE,
        "k": KOREAN,
        "d": "Doe^Jane",
        "D": "DOE",
        "m": "Müller^Änne^^Dr",
        "x": "",
        "p": "100%_[a]^B",
    }
    store(catalog, *(record(StudyID=key, PatientName=name) for key, name in names.items()))
    cases = {
        # single values; components left out at the end match anything
        "doe^jane": "d",
        "Doe": "Dd",
        "Doe^": "Dd",
        "Doe^*": "Dd",
        "DOE^Jane^^": "d",
        "Jane": "",
        "muller^anne": "m",
        "Müller": "m",
        "MÜLLER^ÄNNE^^DR": "m",
        # wild cards
        "doe*": "Dd",
        "d?e": "Dd",
        "d?e^j*": "d",
        "*^jane": "d",
        "*Ä*": "djmp",
        "100%_[a]*": "p",
        "100?_[A]^b": "p",
        "1!*": "",
        # universal
        "": "Ddjkmpx",
        "*": "Ddjkmpx",
        "*=*": "Ddjkmpx",
        "^^": "Ddjkmpx",
        "=": "Ddjkmpx",
        # component groups: each with its own, or one alone with any
        JAPANESE: "j",
        KOREAN: "k",
        "Yamada^Tarou": "j",
        "Yamada": "j",
        "山田^太郎": "j",
        "山田": "j",
        "山*": "j",
        "やまだ^たろう": "j",
        "=山田^太郎": "j",
        "==やまだ*": "j",
        "yamada*=山田*": "j",
        "Yamada^Tarou==": "j",
        "=やまだ": "",
        "Hong=山田": "",
        "洪^吉洞": "k",
        "홍^길동": "k",
        "==홍": "k",
        "hong^*=洪^*=홍^*": "k",
    }
    assert {name: found(catalog, {"PatientName": name}) for name in cases} == cases


def test_endless_names_are_stored(catalog: Catalog) -> None:
    """PostgreSQL indexes no value above 2704 bytes, unless it can be compressed."""
    signs = random.Random(1)
    endless = "".join(chr(signs.randrange(0x4E00, 0x9FFF)) for _ in range(3000))
    store(
        catalog,
        record(
            StudyID="1",
            PatientName=f"\ufdfa{endless[:100]}={endless}",
            **dict.fromkeys(("PatientID", "IssuerOfPatientID", "AccessionNumber"), endless),
        ),
        record(StudyID="2", PatientName="\ufdfa" * 500),  # each folds to 18 signs
    )
    assert found(catalog, {"PatientName": f"={endless[:8]}*"}) == "1"
    assert found(catalog, {"PatientID": f"{endless[:8]}*"}) == "1"
    assert found(catalog, {"PatientName": "\ufdfa*"}) == "12"


def test_names_of_an_older_archive_are_folded(tmp_path: Path) -> None:
    old = Catalog(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with old._alembic(old.write) as config:
        command.upgrade(config, "0002")
    with old.write() as connection:
        run = connection.exec_driver_sql
        run("INSERT INTO patients (id, identity, patient_name) VALUES (1, 'P', ?)", (JAPANESE,))
        run("INSERT INTO patients (id, identity) VALUES (2, 'Q')")
        for study, referrer in ((1, "Müller^Änne"), (2, "")):
            run(
                "INSERT INTO studies (id, patient, study_instance_uid, study_id, "
                "referring_physician_name, received_at, updated_at) VALUES (?, ?, ?, ?, ?, 0, 0)",
                (study, study, f"1.{study}", str(study), referrer),
            )
    old.upgrade()
    assert found(old, {"PatientName": "山田"}) == "1"
    assert found(old, {"PatientName": "yamada^tarou"}) == "1"
    assert found(old, {"ReferringPhysicianName": "mull*"}) == "1"
    store(old, record(StudyID="3", PatientName=KOREAN))
    with old._alembic(old.write) as config:
        command.downgrade(config, "0002")
    with old.read() as connection:
        names = connection.execute(select(schema.patients.c.patient_name)).scalars().all()
        columns = {row[1] for row in connection.exec_driver_sql("PRAGMA table_info(patients)")}
    assert sorted(names) == sorted([JAPANESE, "", KOREAN])
    assert "patient_name_ideographic" not in columns
    old.upgrade()
    assert found(old, {"PatientName": "홍*"}) == "3"
    old.close()
