"""The catalogue's promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select

from cbmir_node.catalog import consistency, schema
from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.reception.group_commit import GroupCommit
from cbmir_node.catalog.reception.records import InstanceRecord, make_record
from cbmir_node.catalog.reception.registration import StoreOutcome, register
from cbmir_node.catalog.statistics import count_states
from cbmir_node.catalog.vectors.candidates import CandidateConditions
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.rows import CodeRows, FrameVectors, VectorRows, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue, lease_owners, release_leases
from cbmir_node.errors import CatalogError, ConfigurationError, QueryError
from tests.objects import make_object


def record(content: str = "a", **attributes: Any) -> InstanceRecord:
    dataset = make_object(**attributes)
    return make_record(
        dataset,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        has_pixels=True,
        path=f"{dataset.SOPInstanceUID}.{content}.dcm",
        size_bytes=10,
        content_sha256=content,
        source="TEST",
        received_at=time.time(),
    )


@pytest.fixture
def model(catalog: Catalog) -> InstalledModel:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
    return registry.active()


def store(catalog: Catalog, *records: InstanceRecord, duplicates: Any = "keep") -> list[Any]:
    commit = GroupCommit(catalog)
    try:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda one: commit.commit(one, duplicates), records))
    finally:
        commit.close()


def embed(catalog: Catalog, model: InstalledModel, vector: tuple[float, float]) -> list[int]:
    """Embed everything pending with one vector each; return the instances."""
    claims = WorkQueue(catalog, "test/1", 60).claim(model.row, 100)
    frame = FrameVectors(1, {"embedding": np.asarray(vector, np.float32)}, b"\x01", "CT", 0.5)
    write_vectors(catalog, [(claim, [frame]) for claim in claims])
    return [claim.instance for claim in claims]


def count(catalog: Catalog, table: Any) -> int:
    with catalog.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_migrations_build_the_schema_of_the_code(catalog: Catalog) -> None:
    with catalog.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        assert compare_metadata(context, schema.metadata) == []


def test_models_installed_before_codes_were_searched_keep_theirs(tmp_path: Path) -> None:
    opened = Catalog(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with opened._alembic(opened.write) as config:
        command.upgrade(config, "0001")
    with opened.write() as connection:
        run = connection.exec_driver_sql
        run("PRAGMA defer_foreign_keys=ON")  # the vectors' instances do not matter here
        for model in (1, 2):
            run(f"INSERT INTO models VALUES ({model}, '{model}', 'm', '1', '{{}}', 'installed', 0)")
            code = "NULL" if model == 1 else "x'00FF'"
            run(
                "INSERT INTO vectors (instance, model, space, frame_number, vector, code) "
                f"VALUES (1, {model}, 'embedding', 1, x'00', {code})"
            )
        run("INSERT INTO patients (id, identity) VALUES (1, 'P')")
        run("INSERT INTO studies (id, patient, received_at, updated_at) VALUES (1, 1, 0, 0)")
        run("INSERT INTO series (id, study) VALUES (1, 1)")
        run(
            "INSERT INTO instances (id, series, transfer_syntax_uid, path, size_bytes, "
            "content_sha256, has_pixels, representative, source, received_at) "
            "VALUES (1, 1, '', '', 0, '', 1, 1, '', 0)"
        )
    opened.upgrade()
    registry = ModelRegistry(opened)
    assert [(model.code_bits, model.labels) for model in registry.all()] == [(0, None), (16, None)]
    # the first had written no code yet
    completed = registry.add("1", "m", "1", {"embedding": 2}, 8, ["CT_HEAD"])
    assert (completed.row, completed.state) == (1, "installed")
    assert (completed.code_bits, completed.labels) == (8, ("CT_HEAD",))
    assert completed.spaces == {"embedding": 2}
    opened.close()


def test_many_threads_store_one_hierarchy_once(catalog: Catalog) -> None:
    series = {"PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    results = store(catalog, *(record(**series) for _ in range(60)))
    assert {result.outcome for result in results} == {StoreOutcome.STORED}
    tables = (schema.patients, schema.studies, schema.series, schema.instances)
    assert [count(catalog, table) for table in tables] == [1, 1, 1, 60]


def test_absurdly_long_values_are_cut(catalog: Catalog) -> None:
    endless = record(PatientID="9" * 9000, AccessionNumber="A" * 9000)
    assert store(catalog, endless)[0].outcome is StoreOutcome.STORED


def test_two_writers_agree_on_patients_and_studies(catalog: Catalog) -> None:
    shared_study = {"PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}
    writers = [GroupCommit(catalog), GroupCommit(catalog)]
    with ThreadPoolExecutor(8) as pool:
        done = [
            pool.submit(writers[number % 2].commit, record(**shared_study)) for number in range(40)
        ]
        assert all(one.result().outcome is StoreOutcome.STORED for one in done)
    for writer in writers:
        writer.close()
    assert count(catalog, schema.studies) == 1
    assert count(catalog, schema.instances) == 40


def test_duplicates(catalog: Catalog, model: InstalledModel) -> None:
    first, again = record("a", SOPInstanceUID="1.2"), record("a", SOPInstanceUID="1.2")
    other = record("b", SOPInstanceUID="1.2")
    assert store(catalog, first)[0].outcome is StoreOutcome.STORED
    assert store(catalog, again)[0].outcome is StoreOutcome.DUPLICATE
    kept = store(catalog, other)[0]
    assert (kept.outcome, kept.unused_path) == (StoreOutcome.CONFLICT, other.path)
    embed(catalog, model, (1, 0))
    replaced = store(catalog, other, duplicates="replace")[0]
    assert (replaced.outcome, replaced.unused_path) == (StoreOutcome.REPLACED, first.path)
    # the old vector is gone, its removal is logged, and the new content waits for its own
    assert count(catalog, schema.vectors) == 0
    assert count(catalog, schema.removed_vectors) == 1
    assert count_states(catalog, model.row)["pending"] == 1


def test_studies_without_patient_id_are_different_patients(catalog: Catalog) -> None:
    store(catalog, record(PatientID=""), record(PatientID=None), record(PatientID="X"))
    assert count(catalog, schema.patients) == 3


def test_hostile_text_is_stored(catalog: Catalog) -> None:
    strange = record(
        PatientName="M\u00fcller^J\u00f6rg\x00", StudyDescription="a'; DROP TABLE x --"
    )
    assert store(catalog, strange)[0].outcome is StoreOutcome.STORED
    match = find(catalog, "STUDY", {"PatientName": "m\u00fcller*"}, ["StudyDescription"], 10)
    assert [found.values["StudyDescription"] for found in match] == ["a'; DROP TABLE x --"]


def test_a_claim_is_exclusive_until_its_lease_ends(catalog: Catalog, model: InstalledModel) -> None:
    store(catalog, *(record() for _ in range(10)))
    queues = [WorkQueue(catalog, f"test/{number}", 60) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda queue: queue.claim(model.row, 5), queues))
    claimed = [claim.instance for part in claims for claim in part]
    assert len(claimed) == len(set(claimed)) == 10
    assert queues[0].claim(model.row, 5) == []
    holder = next(number for number, part in enumerate(claims) if part)
    assert f"test/{holder}" in lease_owners(catalog)
    release_leases(catalog, [f"test/{holder}"])
    assert {c.instance for c in WorkQueue(catalog, "x/1", 60).claim(model.row, 100)} == {
        c.instance for c in claims[holder]
    }
    impatient = WorkQueue(catalog, "y/1", -1)
    release_leases(catalog, lease_owners(catalog))
    assert len(impatient.claim(model.row, 100)) == 10  # leases that have ended at once
    assert len(WorkQueue(catalog, "z/1", 60).claim(model.row, 100)) == 10


def test_vectors_replace_earlier_ones_and_log_it(catalog: Catalog, model: InstalledModel) -> None:
    store(catalog, record(), record())
    rows = VectorRows(catalog, model.row, "embedding", 2)
    assert rows.counts() == (0, 0, 0)
    embed(catalog, model, (1, 2))
    ids, vectors = rows.added_after(0, 10)
    assert vectors.tolist() == [[1, 2], [1, 2]]
    assert vectors.dtype == np.float32
    with catalog.write() as connection:
        connection.execute(schema.work.update().values(state="pending"))
    embed(catalog, model, (3, 4))
    newer, vectors = rows.added_after(int(ids[-1]), 10)
    assert vectors.tolist() == [[3, 4], [3, 4]]
    removals, gone = rows.removed_after(0, 10)
    assert sorted(gone) == sorted(ids)
    assert rows.counts() == (2, int(newer[-1]), int(removals[-1]))


def test_vector_rows_become_visible_in_order(catalog: Catalog, model: InstalledModel) -> None:
    """A reader that remembers the last row it saw must never miss a lower one."""
    store(catalog, *(record() for _ in range(60)))
    rows = VectorRows(catalog, model.row, "embedding", 2)
    claims = WorkQueue(catalog, "test/1", 60).claim(model.row, 60)
    frame = FrameVectors(1, {"embedding": np.ones(2, np.float32)})
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        while True:
            finished = done.is_set()
            seen.extend(rows.added_after(seen[-1] if seen else 0, 1000)[0].tolist())
            if finished:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda claim: write_vectors(catalog, [(claim, [frame])]), claims))
    done.set()
    reader.join()
    assert len(seen) == 60


def test_a_new_model_takes_over_when_everything_is_embedded(
    catalog: Catalog, model: InstalledModel
) -> None:
    store(catalog, record(), record())
    embed(catalog, model, (1, 0))
    registry = ModelRegistry(catalog)
    newer = registry.add("1" * 64, "tiny", "2", {"embedding": 2})
    assert registry.use(newer) == "next"
    store(catalog, record())  # arrives meanwhile: wanted by both models
    assert count_states(catalog, model.row)["pending"] == 1
    assert count_states(catalog, newer.row)["pending"] == 3
    assert registry.switch_if_ready() is None
    assert registry.active().version == "1"
    embed(catalog, newer, (0, 1))
    switched = registry.switch_if_ready()
    assert switched is not None
    assert registry.active().version == "2"
    assert [m.state for m in registry.all()] == ["installed", "active"]


def test_a_model_put_to_use_during_a_reception_misses_nothing(
    catalog: Catalog, model: InstalledModel
) -> None:
    store(catalog, record())
    registry = ModelRegistry(catalog)
    newer = registry.add("1" * 64, "tiny", "2", {"embedding": 2})
    using = threading.Thread(target=registry.use, args=(newer,))
    with catalog.write() as connection:  # a reception that has looked which models are in use
        register(connection, record(), "keep")
        using.start()
        using.join(0.5)
    using.join()
    assert count_states(catalog, newer.row)["pending"] == 2


def test_a_model_that_fails_on_everything_does_not_take_over(
    catalog: Catalog, model: InstalledModel
) -> None:
    store(catalog, record())
    embed(catalog, model, (1, 0))
    registry = ModelRegistry(catalog)
    newer = registry.add("1" * 64, "tiny", "2", {"embedding": 2})
    registry.use(newer)
    queue = WorkQueue(catalog, "test/1", 60)
    for claim in queue.claim(newer.row, 10):
        queue.finish(claim, "failed", "no memory", 1)
    assert registry.switch_if_ready() is None
    assert registry.active() == model


def test_an_old_claim_decides_nothing_about_a_replaced_instance(
    catalog: Catalog, model: InstalledModel
) -> None:
    store(catalog, record("a", SOPInstanceUID="1.2"))
    queue = WorkQueue(catalog, "test/1", 60)
    (stale,) = queue.claim(model.row, 10)
    store(catalog, record("b", SOPInstanceUID="1.2"), duplicates="replace")
    frame = FrameVectors(1, {"embedding": np.ones(2, np.float32)})
    queue.finish(stale, "failed", "its file is gone", 1)
    write_vectors(catalog, [(stale, [frame])])
    assert count_states(catalog, model.row) == {
        "pending": 1,
        "embedded": 0,
        "no_pixels": 0,
        "failed": 0,
        "skipped": 0,
    }
    assert count(catalog, schema.vectors) == 0


def test_a_lost_claim_writes_nothing(catalog: Catalog, model: InstalledModel) -> None:
    store(catalog, record())
    (lost,) = WorkQueue(catalog, "slow/1", -1).claim(model.row, 10)
    (held,) = WorkQueue(catalog, "quick/1", 60).claim(model.row, 10)
    vectors = {owner: np.full(2, value, np.float32) for value, owner in enumerate((lost, held))}
    for claim, vector in vectors.items():
        write_vectors(catalog, [(claim, [FrameVectors(1, {"embedding": vector})])])
    _, stored = VectorRows(catalog, model.row, "embedding", 2).added_after(0, 10)
    assert stored.tolist() == [[1, 1]]


def test_a_failure_of_a_file_that_was_mended_meanwhile_is_tried_again(
    catalog: Catalog, model: InstalledModel
) -> None:
    first = record("a", SOPInstanceUID="1.2")
    store(catalog, first)
    queue = WorkQueue(catalog, "test/1", 60)
    (claim,) = queue.claim(model.row, 10)
    again = dataclasses.replace(first, path="another.dcm")
    assert store(catalog, again, duplicates="mend")[0].unused_path == first.path
    queue.finish(claim, "failed", "its file is gone", 1)
    (retried,) = queue.claim(model.row, 10)
    assert retried.path == "another.dcm"


def test_codes_share_the_rows_of_the_embedding(catalog: Catalog) -> None:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2, "embedding.fc": 3}, 16))
    model = registry.active()
    assert model.code_bits == 16
    store(catalog, *(record(SOPInstanceUID=f"1.{number}") for number in range(4)))
    codes = {"1.0": b"\x01\x02", "1.1": b"\xff\x00", "1.2": b"\x00", "1.3": None}
    spaces = {"embedding": np.ones(2, np.float32), "embedding.fc": np.ones(3, np.float32)}
    claims = WorkQueue(catalog, "test/1", 60).claim(model.row, 10)
    write_vectors(
        catalog,
        [(one, [FrameVectors(1, spaces, codes[one.sop_instance_uid])]) for one in claims],
    )
    rows = CodeRows(catalog, model.row, 2)
    ids, found = rows.added_after(0, 10)
    assert found.dtype == np.uint8
    assert sorted(found.tolist()) == [[1, 2], [255, 0]]  # what is damaged is left out
    assert set(ids) < set(VectorRows(catalog, model.row, "embedding", 2).added_after(0, 10)[0])
    assert rows.counts()[0] == 4
    assert [uid for _, uid in consistency.wrong_length(catalog, model)] == ["1.2", "1.3"]


def test_lookup_joins_vectors_with_tags(catalog: Catalog, model: InstalledModel) -> None:
    store(
        catalog,
        record(Modality="CT", PatientAge="045Y", StudyDate="20200101", StudyInstanceUID="1.1"),
        record(Modality="MR", PatientAge="010Y", StudyDate="20210101", StudyInstanceUID="1.2"),
    )
    embed(catalog, model, (1, 0))
    lookup = VectorLookup(catalog, model.row, "embedding")
    assert len(lookup.matching(CandidateConditions())) == 2
    assert len(lookup.matching(CandidateConditions({"Modality": "CT"}))) == 1
    assert len(lookup.matching(CandidateConditions({"StudyDate": "20200601-"}))) == 1
    assert len(lookup.matching(CandidateConditions(minimum_age=45, maximum_age=45))) == 1
    assert len(lookup.matching(CandidateConditions(maximum_age=9))) == 0
    assert lookup.newest_study({}) == "1.2"
    (study,) = lookup.rows_of("study", "1.1")
    places = lookup.in_groups("study", [study])
    frame = lookup.frames(places.vector.tolist())[int(places.vector[0])]
    assert (frame.frame_number, frame.label, frame.probability) == (1, "CT", 0.5)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"1.1", "1.2"}),
        ({"StudyInstanceUID": "1.1\\1.9"}, {"1.1"}),
        ({"PatientName": "doe*"}, {"1.1"}),
        ({"PatientName": "ro?"}, {"1.2"}),
        ({"PatientName": "Roe"}, {"1.2"}),
        ({"StudyDate": "20200101-20200131"}, {"1.1"}),
        ({"StudyDate": "-20200115"}, {"1.1"}),
        ({"StudyDate": "20210301"}, {"1.2"}),
        ({"StudyTime": "1015"}, {"1.1"}),
        ({"ModalitiesInStudy": "MR"}, {"1.2"}),
        ({"ModalitiesInStudy": "MR\\CT"}, {"1.1", "1.2"}),
        ({"StudyDescription": "100%_done*"}, {"1.2"}),
        ({"PatientID": "*"}, {"1.1", "1.2"}),
    ],
)
def test_matching(catalog: Catalog, keys: dict[str, str], expected: set[str]) -> None:
    store(
        catalog,
        record(
            StudyInstanceUID="1.1",
            PatientName="Doe^Jane",
            StudyDate="20200115",
            StudyTime="101530",
            Modality="CT",
        ),
        record(
            StudyInstanceUID="1.2",
            PatientName="Roe^",
            StudyDate="20210301",
            StudyTime="",
            Modality="MR",
            StudyDescription="100%_done today",
        ),
    )
    found = find(catalog, "STUDY", keys, ["StudyInstanceUID"], 100)
    assert {match.values["StudyInstanceUID"] for match in found} == expected


def test_computed_keys(catalog: Catalog) -> None:
    study = {"PatientID": "P", "StudyInstanceUID": "1.1"}
    store(catalog, record(**study, SeriesInstanceUID="1.2", Modality="CT"))
    store(catalog, record(**study, SeriesInstanceUID="1.3", Modality="SR"))
    store(catalog, record(**study, SeriesInstanceUID="1.3", Modality="SR"))
    wanted = ["ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"]
    (match,) = find(catalog, "STUDY", {"StudyInstanceUID": "1.1"}, wanted, 10)
    assert match.values == {
        "ModalitiesInStudy": "CT\\SR",
        "NumberOfStudyRelatedSeries": "2",
        "NumberOfStudyRelatedInstances": "3",
    }
    (patient,) = find(catalog, "PATIENT", {}, ["NumberOfPatientRelatedStudies"], 10)
    assert patient.values["NumberOfPatientRelatedStudies"] == "1"


@pytest.mark.parametrize("value", ["2020-01-01", "yesterday", "20200101-x", "-"])
def test_a_bad_date_is_refused_by_name(catalog: Catalog, value: str) -> None:
    with pytest.raises(QueryError, match="StudyDate"):
        find(catalog, "STUDY", {"StudyDate": value}, [], 10)


def test_a_missing_or_older_catalogue_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.sqlite'}"
    with pytest.raises(CatalogError, match="--data-dir"):
        open_catalog(url)
    (tmp_path / "none.sqlite").touch()
    with pytest.raises(CatalogError, match="db upgrade"):
        open_catalog(url)
    with pytest.raises(ConfigurationError, match=r"catalog\.url"):
        open_catalog("not a url")
    with pytest.raises(CatalogError, match="does not answer"):
        open_catalog("postgresql+psycopg://x@127.0.0.1:1/none")


def test_sqlite_survives_a_power_cut_by_its_settings(tmp_path: Path) -> None:
    opened = open_catalog(f"sqlite:///{tmp_path / 'c.sqlite'}", create=True)
    with opened.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    opened.close()
