"""Similarity queries over a catalogue with known vectors, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.query.hierarchy import rows_by_number
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.places import Group, Places
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import (
    CatalogError,
    NoExampleError,
    NotEmbeddedError,
    QueryError,
    UnknownExampleError,
)
from cbmir_node.search import pipeline
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.search.query import Example, SimilarityLevel, SimilarityQuery
from tests.catalog.test_catalog import record, store


class Archive:
    """A catalogue filled with studies whose vectors are angles on a circle."""

    def __init__(self, catalog: Catalog, folder: Path, **search: Any) -> None:
        self.catalog = catalog
        registry = ModelRegistry(catalog)
        registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
        self.model = registry.active()
        self.search = SimilaritySearch(
            catalog, folder, SearchSettings(**search), IndexSettings(), writable=False
        )

    def add(self, study: str, *degrees: float, **attributes: Any) -> None:
        """Store a study with one image per angle."""
        for number, angle in enumerate(degrees, start=1):
            values = {
                "PatientID": f"patient of {study}",
                "StudyInstanceUID": study,
                "SeriesInstanceUID": f"{study}.1",
                "SOPInstanceUID": f"{study}.1.{number}",
                **attributes,
            }
            store(self.catalog, record(**values))
            claims = WorkQueue(self.catalog, "t/1", 60).claim(self.model.row, 10)
            vector = np.asarray([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)
            frame = FrameVectors(1, {"embedding": vector}, None, f"{angle:g}", 0.9)
            write_vectors(self.catalog, [(claim, [frame]) for claim in claims])

    def ask(
        self, *examples: str, level: SimilarityLevel = "STUDY", **query: Any
    ) -> list[tuple[str, float]]:
        """Return (UID, similarity) of the answers."""
        asked = SimilarityQuery([Example("STUDY", uid) for uid in examples], level, **query)
        keyword = {
            "STUDY": "StudyInstanceUID",
            "SERIES": "SeriesInstanceUID",
            "IMAGE": "SOPInstanceUID",
        }[level]
        matches = self.search.answer(asked).matches
        assert [match.rank for match in matches] == list(range(1, len(matches) + 1))
        rows = rows_by_number(self.catalog, level, [match.row for match in matches], [keyword])
        return [(rows[match.row].values[keyword], match.similarity) for match in matches]


@pytest.fixture
def archive(catalog: Catalog, tmp_path: Path) -> Archive:
    return Archive(catalog, tmp_path / "index")


def test_studies_come_best_first_without_the_example(archive: Archive) -> None:
    for study, angle in {"1.1": 0, "1.2": 40, "1.3": 10, "1.4": 90}.items():
        archive.add(study, angle)
    answers = archive.ask("1.1")
    assert [uid for uid, _ in answers] == ["1.3", "1.2", "1.4"]
    assert answers[0][1] == pytest.approx((1 + np.cos(np.radians(10))) / 2, abs=1e-6)
    assert [uid for uid, _ in archive.ask("1.1", k=1)] == ["1.3"]
    assert [uid for uid, _ in archive.ask("1.1", minimum_similarity=0.8)] == ["1.3", "1.2"]


def test_both_methods_agree_on_unit_vectors(archive: Archive) -> None:
    for number in range(12):
        archive.add(f"1.{number + 1}", 13 * number)
    cosine = [uid for uid, _ in archive.ask("1.3", method="cosine")]
    euclidean = archive.ask("1.3", method="euclidean")
    assert [uid for uid, _ in euclidean][:2] == cosine[:2]
    chord = 2 * np.sin(np.radians(13) / 2)
    assert euclidean[0][1] == pytest.approx(1 / (1 + chord), abs=1e-5)


def test_the_patients_other_studies_are_left_out_by_default(archive: Archive) -> None:
    archive.add("1.1", 0, PatientID="P")
    archive.add("1.2", 1, PatientID="P")
    archive.add("1.3", 50, PatientID="Q")
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.3"]
    assert [uid for uid, _ in archive.ask("1.1", exclude_same_patient=False)] == ["1.2", "1.3"]


def test_studies_without_patient_id_do_not_hide_each_other(archive: Archive) -> None:
    archive.add("1.1", 0, PatientID="")
    archive.add("1.2", 1, PatientID="")
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.2"]


def test_filters(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 1, Modality="MR", PatientSex="M", PatientAge="030Y", StudyDate="20200101")
    archive.add("1.3", 2, Modality="CT", PatientSex="F", PatientAge="060Y", StudyDate="20210101")
    archive.add("1.4", 3, Modality="CT", PatientSex="M", PatientAge="061Y", StudyDate="20220101")

    def found(**query: Any) -> list[str]:
        return [uid for uid, _ in archive.ask("1.1", **query)]

    assert found(filters={"Modality": "CT"}) == ["1.3", "1.4"]
    assert found(filters={"Modality": "CT", "PatientSex": "M"}) == ["1.4"]
    assert found(filters={"StudyDate": "-20210101"}) == ["1.2", "1.3"]
    assert found(minimum_age=60, maximum_age=60) == ["1.3"]
    assert found(minimum_age=31) == ["1.3", "1.4"]
    assert found(filters={"Modality": "XA"}) == []
    with pytest.raises(QueryError, match="StudyDate"):
        found(filters={"StudyDate": "tomorrow"})


def test_series_and_image_level(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 5, 80)
    archive.add("1.3", 20)
    assert [uid for uid, _ in archive.ask("1.1", level="SERIES")] == ["1.3.1", "1.2.1"]
    assert [uid for uid, _ in archive.ask("1.1", level="IMAGE")] == [
        "1.2.1.1",
        "1.3.1.1",
        "1.2.1.2",
    ]


def test_several_examples_are_averaged(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 60)
    archive.add("1.3", 30)
    archive.add("1.4", -10)
    assert archive.ask("1.1")[0][0] == "1.4"
    assert archive.ask("1.1", "1.2")[0][0] == "1.3"


def test_localizers_and_screenshots_do_not_stand_for_a_study(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    archive.add("1.2", 70, SOPInstanceUID="1.2.9")
    archive.add("1.3", 30)
    archive.add("1.4", 60, ImageType=["DERIVED", "SECONDARY"])  # nothing else: it stands for itself
    answers = archive.ask("1.1")
    assert [uid for uid, _ in answers] == ["1.3", "1.4", "1.2"]


def test_many_images_of_one_study_do_not_crowd_out_others(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", *np.linspace(1, 2, 40))
    for number in range(3, 9):
        archive.add(f"1.{number}", 10 * number)
    assert len(archive.ask("1.1", k=7)) == 7


def test_a_giant_study_neither_hides_others_nor_costs_memory(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", *np.linspace(1, 2, 20))
    for number in range(3, 36):
        archive.add(f"1.{number}", 4 * number)
    whole = archive.ask("1.1", k=9)
    assert [uid for uid, _ in whole] == [f"1.{number}" for number in range(2, 11)]
    reaches = []
    cache = archive.search.active_cache()
    search = cache.search

    def spy(queries: Any, k: int, **filters: Any) -> Any:
        reaches.append(len(queries) * k)
        return search(queries, k, **filters)

    monkeypatch.setattr(cache, "search", spy)
    monkeypatch.setattr(pipeline, "_NEIGHBOURS_AT_ONCE", 8)
    assert archive.ask("1.1", k=9) == whole
    assert set(reaches) == {8}
    # once all are set aside the search ends, however few there are
    assert len(archive.ask("1.1", k=200)) == 34
    assert len(archive.ask("1.1", k=30, filters={"PatientID": "patient of *"})) == 30


def test_few_candidates_are_compared_without_the_index(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 36):
        archive.add(f"1.{number}", number, Modality="XA" if number in (20, 30) else "CT")
    cache = archive.search.active_cache()
    monkeypatch.setattr(cache, "search", lambda *_, **__: pytest.fail("the index was searched"))
    assert [uid for uid, _ in archive.ask("1.1", filters={"Modality": "XA"})] == ["1.20", "1.30"]
    assert [uid for uid, _ in archive.ask("1.20", filters={"Modality": "XA"})] == ["1.30"]
    assert len(archive.ask("1.1", k=20)) == 20  # fewer studies than are ranked anyway


def test_the_matched_image_is_the_best_over_all_examples(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 90)
    archive.add("1.3", 20, 89)
    (match,) = archive.search.answer(
        SimilarityQuery([Example("STUDY", "1.1"), Example("STUDY", "1.2")])
    ).matches
    assert (match.matched_sop_instance_uid, match.label) == ("1.3.1.2", "89")


def test_age_limits_count_as_people_do(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 1, PatientAge="006M")
    archive.add("1.3", 2, PatientAge="008M")
    born = {"PatientAge": "", "PatientBirthDate": "20010101"}
    archive.add("1.4", 3, StudyDate="20020101", **born)
    archive.add("1.5", 4, StudyDate="20021231", **born)
    archive.add("1.6", 5, StudyDate="20030101", **born)

    def found(**limits: float) -> list[str]:
        return [uid for uid, _ in archive.ask("1.1", **limits)]

    assert found(minimum_age=0, maximum_age=0.5) == ["1.2"]
    assert found(minimum_age=0, maximum_age=0) == ["1.2", "1.3"]
    assert found(minimum_age=1, maximum_age=1) == ["1.4", "1.5"]
    assert found(minimum_age=2, maximum_age=2) == ["1.6"]


def test_what_the_candidates_hold_is_read_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 9):
        archive.add(f"1.{number}", 5 * number)
    monkeypatch.setattr(pipeline, "_FEWEST", 1)
    original, read = VectorLookup.in_groups, list[int]()

    def counted(lookup: VectorLookup, group: Group, rows: Sequence[int]) -> Places:
        read.extend(rows if group == "study" else ())
        return original(lookup, group, rows)

    monkeypatch.setattr(VectorLookup, "in_groups", counted)
    assert [uid for uid, _ in archive.ask("1.1", k=1)] == ["1.2"]
    own = read[0]
    others = [row for row in read if row != own]
    assert others
    assert len(others) == len(set(others))


def test_a_damaged_vector_is_no_candidate(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 5, 6)
    archive.add("1.3", np.nan)
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.2"]


def test_a_catalogue_that_keeps_changing_is_named(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 5)
    cache = archive.search.active_cache()
    vectors, failures = cache.vectors, iter([True, True, False])

    def gone(ids: Any) -> Any:
        if next(failures, True):
            raise KeyError(int(ids[0]))
        monkeypatch.undo()
        return vectors(ids)

    monkeypatch.setattr(cache, "vectors", gone)
    assert len(archive.ask("1.1")) == 1  # at the third attempt
    monkeypatch.setattr(cache, "vectors", gone)
    with pytest.raises(CatalogError, match="ask again"):
        archive.ask("1.1")


def test_new_vectors_are_found_at_once(archive: Archive) -> None:
    archive.add("1.1", 0)
    assert archive.ask("1.1") == []
    archive.add("1.2", 5)
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.2"]


def test_a_file_is_an_example_too(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 90)
    vectors = np.asarray([[0.0, 2.0]], np.float32)
    query = SimilarityQuery([Example("IMAGE", "upload", vectors, archive.model.sha256)])
    matches = archive.search.answer(query).matches
    assert [match.matched_sop_instance_uid for match in matches] == ["1.2.1.1", "1.1.1.1"]
    assert matches[0].label == "90"
    wrong = SimilarityQuery([Example("IMAGE", "upload", vectors, "1" * 64)])
    with pytest.raises(QueryError, match="another model"):
        archive.search.answer(wrong)


def test_a_files_own_study_and_patient_are_left_out(archive: Archive) -> None:
    archive.add("1.1", 0, PatientID="P")
    archive.add("1.2", 1, PatientID="P")
    archive.add("1.3", 2, PatientID="Q")
    archive.add("1.4", 3, PatientID="P", IssuerOfPatientID="another hospital")
    vectors = np.asarray([[1.0, 0.0]], np.float32)

    def found(study: str, patient: str, **query: Any) -> list[str]:
        example = Example("IMAGE", "file", vectors, archive.model.sha256, study, patient)
        matches = archive.search.answer(SimilarityQuery([example], **query)).matches
        return [match.matched_sop_instance_uid.removesuffix(".1.1") for match in matches]

    assert found("1.1", "id:P\\") == ["1.3", "1.4"]
    assert found("1.1", "id:P\\", exclude_same_patient=False) == ["1.2", "1.3", "1.4"]
    assert found("1.9", "id:P\\") == ["1.3", "1.4"]  # a new study of a known patient
    assert found("1.9", "study:1.9") == ["1.1", "1.2", "1.3", "1.4"]


def test_questions_without_an_answer_say_why(archive: Archive) -> None:
    archive.add("1.1", 0)
    store(archive.catalog, record(StudyInstanceUID="1.5"))
    with pytest.raises(NoExampleError):
        archive.ask()
    with pytest.raises(UnknownExampleError, match=r"1\.9"):
        archive.ask("1.9")
    with pytest.raises(NotEmbeddedError, match="waits to be embedded"):
        archive.ask("1.5")
    with pytest.raises(QueryError, match="at least 1"):
        archive.ask("1.1", k=0)
    with pytest.raises(QueryError, match="cosine, euclidean, hamming"):
        archive.ask("1.1", method="manhattan")
