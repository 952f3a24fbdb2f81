"""Similarity queries over a catalogue with known vectors, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.hierarchy import rows_by_number
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.vectors import FrameVectors, write_vectors
from cbmir_node.catalog.work_queue import WorkQueue
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import (
    NoExampleError,
    NotEmbeddedError,
    QueryError,
    UnknownExampleError,
)
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


def test_new_vectors_are_found_at_once(archive: Archive) -> None:
    archive.add("1.1", 0)
    assert archive.ask("1.1") == []
    archive.add("1.2", 5)
    assert [uid for uid, _ in archive.ask("1.1")] == ["1.2"]


def test_a_file_is_an_example_too(archive: Archive) -> None:
    archive.add("1.1", 0)
    archive.add("1.2", 90)
    vectors = np.asarray([[0.0, 2.0]], np.float32)
    query = SimilarityQuery([Example("IMAGE", "upload", vectors)])
    matches = archive.search.answer(query).matches
    assert [match.matched_sop_instance_uid for match in matches] == ["1.2.1.1", "1.1.1.1"]
    assert matches[0].label == "90"
    wrong = SimilarityQuery([Example("IMAGE", "upload", np.zeros((1, 3), np.float32))])
    with pytest.raises(QueryError, match="another model"):
        archive.search.answer(wrong)


def test_questions_without_an_answer_say_why(archive: Archive) -> None:
    archive.add("1.1", 0)
    store(archive.catalog, record(StudyInstanceUID="1.5"))
    with pytest.raises(NoExampleError):
        archive.ask()
    with pytest.raises(UnknownExampleError, match=r"1\.9"):
        archive.ask("1.9")
    with pytest.raises(NotEmbeddedError, match="pending"):
        archive.ask("1.5")
    with pytest.raises(QueryError, match="at least 1"):
        archive.ask("1.1", k=0)
    with pytest.raises(QueryError, match="hamming"):
        archive.ask("1.1", method="hamming")
