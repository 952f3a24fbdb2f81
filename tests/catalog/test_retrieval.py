"""Which stored objects the unique keys name, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.query.retrieval import stored_objects, stored_objects_of
from tests.catalog.test_catalog import record, store


def test_the_unique_keys_name_objects_at_every_level(catalog: Catalog) -> None:
    for study, series, image, patient in [
        *(("1", "1.1", "1.1.1", "P1"), ("2", "2.1", "2.1.1", "P1"), ("1", "1.2", "1.2.1", "P1")),
        *(("1", "1.1", "1.1.2", "P1"), ("3", "1.1", "3.1.1", "p1")),
    ]:
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": image}
        store(catalog, record(PatientID=patient, **uids))

    def named(level: str, **keys: str) -> list[str]:
        return [one.sop_instance_uid for one in stored_objects(catalog, level, keys)]

    assert named("PATIENT", PatientID="P1") == ["1.1.1", "1.1.2", "1.2.1", "2.1.1"]
    assert named("STUDY", StudyInstanceUID="3\\1") == ["1.1.1", "1.1.2", "1.2.1", "3.1.1"]
    assert named("STUDY", StudyInstanceUID="1", PatientID="p1") == []
    assert named("SERIES", SeriesInstanceUID="1.1") == ["1.1.1", "1.1.2", "3.1.1"]
    series = {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.1"}
    assert named("SERIES", **series, SOPInstanceUID="1.1.1") == ["1.1.1", "1.1.2"]
    assert named("IMAGE", **series, SOPInstanceUID="1.1.2\\9") == ["1.1.2"]
    with pytest.raises(ValueError, match="StudyInstanceUID names nothing"):
        named("STUDY", PatientID="P1")

    (first,) = stored_objects(catalog, "IMAGE", {"SOPInstanceUID": "1.1.1"})
    assert (first.study_instance_uid, first.path) == ("1", "1.1.1.a.dcm")
    assert first.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    rows = [one.instance for one in stored_objects(catalog, "PATIENT", {"PatientID": "P1"})]
    backwards = [*reversed(rows), 10**6]
    assert [one.instance for one in stored_objects_of(catalog, backwards)] == backwards[:-1]
