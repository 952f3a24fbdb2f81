"""Indexes serve the queries that viewers send, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import Level
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.query.person_names import folded_groups

PATIENTS = 3000


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Fill the catalogue with as many patients and studies as make a plan matter."""
    patients, studies, series, instances = [], [], [], []
    for number in range(1, PATIENTS + 1):
        groups = folded_groups(f"Name{number:05d}^Given=名{number}^字=よみ{number}^よみ")
        patients.append(
            {
                "id": number,
                "identity": f"id:{number}\\",
                "patient_id": f"P{number}",
                "patient_name": f"Name{number:05d}^Given",
                **{f"patient_name_{group}": name for group, name in groups.items()},
            }
        )
        studies.append(
            {
                "id": number,
                "patient": number,
                "study_instance_uid": f"1.{number}",
                "study_date": f"{date(1990, 1, 1) + timedelta(days=number * 4):%Y%m%d}",
                "accession_number": f"A{number}",
                "received_at": 0,
                "updated_at": 0,
            }
        )
        series.append({"id": number, "study": number, "series_instance_uid": f"1.{number}.1"})
        instances.append(
            {
                "id": number,
                "series": number,
                "sop_instance_uid": f"1.{number}.1.1",
                "path": "" if number % 100 == 0 else f"{number}.dcm",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "size_bytes": 1,
                "content_sha256": "",
                "has_pixels": True,
                "representative": True,
                "source": "TEST",
                "received_at": 0,
            }
        )
    with catalog.write() as connection:
        for level, rows in zip(
            schema.TABLE_OF_LEVEL, (patients, studies, series, instances), strict=True
        ):
            connection.execute(schema.TABLE_OF_LEVEL[level].insert(), rows)
        if not catalog.is_sqlite:  # which has no statistics of its own accord
            connection.exec_driver_sql("ANALYZE")
    return catalog


def plans(catalog: Catalog, level: Level, keys: dict[str, str]) -> list[str]:
    """Return the databases' plans for the statements that a query is made of."""
    sent: list[tuple[str, Any]] = []

    def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append((statement, parameters))

    event.listen(catalog.engine, "before_cursor_execute", remember)
    matches = find(catalog, level, keys, [], 10_001)
    event.remove(catalog.engine, "before_cursor_execute", remember)
    assert matches
    explain = "EXPLAIN QUERY PLAN " if catalog.is_sqlite else "EXPLAIN "
    texts = []
    with catalog.read() as connection:
        for statement, parameters in sent:
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            texts.append("\n".join(str(row[-1]) for row in rows))
    return texts


NAMES = "ix_patients_patient_name_"
CASES: list[tuple[Level, dict[str, str], list[str]]] = [
    ("PATIENT", {"PatientID": "P17"}, ["ix_patients_patient_id"]),
    ("STUDY", {"PatientID": "P17"}, ["ix_patients_patient_id", "ix_studies_patient"]),
    ("STUDY", {"PatientName": "Name0001*"}, [f"{NAMES}alphabetic", f"{NAMES}ideographic"]),
    ("STUDY", {"PatientName": "name00017^given"}, [f"{NAMES}alphabetic", f"{NAMES}phonetic"]),
    ("STUDY", {"PatientName": "=名17"}, [f"{NAMES}ideographic"]),
    ("STUDY", {"AccessionNumber": "A17"}, ["ix_studies_accession_number"]),
    ("STUDY", {"AccessionNumber": "A170*"}, ["ix_studies_accession_number"]),
    ("STUDY", {"StudyDate": "20100101-20100301"}, ["ix_studies_study_date"]),
    ("STUDY", {"StudyDate": "20101104"}, ["ix_studies_study_date"]),
    ("STUDY", {"StudyInstanceUID": "1.17\\1.18"}, ["studies_"]),
    ("SERIES", {"StudyInstanceUID": "1.17"}, ["studies_", "series_"]),
]


def test_indexes_serve(filled: Catalog) -> None:
    for level, keys, indexes in CASES:
        main, availability = plans(filled, level, keys)
        for index in indexes:
            assert index in main, (keys, main)
        scanned = (
            "SCAN studies\n" if filled.is_sqlite else f"Seq Scan on {indexes[0].split('_')[1]}"
        )
        assert scanned not in f"{main}\n", (keys, main)
        if level != "PATIENT":
            assert "ix_instances_not_kept" in availability, (keys, availability)
