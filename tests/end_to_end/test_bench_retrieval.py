"""The whole way with real images: DCMTK sends the benchmark, DCMTK asks, the right studies come."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import Dataset

from tests.conftest import needs_program
from tests.dicom.peers import findscu
from tests.end_to_end.conftest import RunningNode
from tests.end_to_end.peers import (
    SIMILARITY_KEYS,
    find_similar,
    similarities,
    storescu,
    study_uids,
)

IMAGES_PER_CLASS = 32  # half of the test split: embedding is most of this module's time
STUDIES_PER_CLASS = 4
CLASSES = 26
ANSWERS = 20  # search.results
CT_HEAD = "1.2.826.0.1.3680043.9.4245.1760717064491086528325869788156915668"
MR_KNEE = "2.16.840.1.113669.632.20.121711.10000160881"
MR_PROSTATE = "1.3.6.1.4.1.14519.5.2.1.3671.7001.133687106572018334063091507027"


@dataclass
class BenchStudy:
    """A study of the benchmark: one patient, one class."""

    uid: str
    patient_id: str
    label: str
    modality: str
    series_uid: str
    instance_uids: set[str] = field(default_factory=set)


@dataclass
class Bench:
    """A node with the benchmark and the real studies in it."""

    node: RunningNode
    studies: dict[str, BenchStudy]
    folder: Path
    _asked: int = 0

    def ask(self, uid: str, *keys: str) -> list[Dataset]:
        """Return the studies that findscu gets for a study, with their similarity."""
        keys = (f"StudyInstanceUID={uid}", "PatientID", *keys, *SIMILARITY_KEYS)
        return find_similar(self.node.dicom_port, self._next_folder(), *keys)

    def drill_down(self, level: str, *keys: str) -> list[Dataset]:
        """Return what a viewer gets from the similarity view below STUDY level."""
        return findscu(
            self.node.dicom_port,
            self._next_folder(),
            f"QueryRetrieveLevel={level}",
            *keys,
            called="CBMIR_SIM",
        )

    def labels(self, answers: list[Dataset]) -> list[str]:
        """Return the class of each answer; the real studies have none."""
        return [
            self.studies[uid].label if uid in self.studies else "real"
            for uid in study_uids(answers)
        ]

    def some_of_each_class(self) -> list[BenchStudy]:
        """Choose studies evenly over each class, the same in every run."""
        classes = defaultdict(list)
        for study in self.studies.values():
            classes[study.label].append(study)
        chosen = []
        for members in classes.values():
            step = len(members) / STUDIES_PER_CLASS
            chosen += [members[int(step * number)] for number in range(STUDIES_PER_CLASS)]
        return chosen

    def _next_folder(self) -> Path:
        self._asked += 1
        return self.folder / f"answers{self._asked}"


def bench_studies(shared: Path) -> dict[str, BenchStudy]:
    """Derive from the manifest what to_dicom.py writes of the test split's first images."""
    uid = uid_function(shared)
    studies: dict[str, BenchStudy] = {}
    seen = Counter[str]()
    with (shared / "bench" / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            patient, label = row["patient_id"], row["label"]
            if row["split"] != "test" or seen[label] == IMAGES_PER_CLASS:
                continue
            seen[label] += 1
            study = studies.setdefault(
                patient,
                BenchStudy(
                    uid=uid("study", patient),
                    patient_id=patient,
                    label=label,
                    modality=row["modality"],
                    series_uid=uid("series", patient, label),
                ),
            )
            assert study.label == label  # or a hit would not be a matter of the study
            study.instance_uids.add(uid("instance", row["file"]))
    return {study.uid: study for study in studies.values()}


def uid_function(shared: Path) -> Callable[..., str]:
    """Load the function that makes the UIDs of to_dicom.py."""
    spec = importlib.util.spec_from_file_location("to_dicom", shared / "bench" / "to_dicom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    uid: Callable[..., str] = module.uid
    return uid


@pytest.fixture(scope="module")
def bench(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Send half the test split and the six real studies to a node and wait for their vectors."""
    needs_program("storescu", "findscu", package="dcmtk")
    if not (shared / "bench" / "manifest.csv").exists():
        pytest.skip("the labelled benchmark is not in the shared test data")
    folder = tmp_path_factory.mktemp("bench")
    objects, real = folder / "objects", shared / "dicom" / "studies"
    command = [sys.executable, shared / "bench" / "to_dicom.py", objects, "--split", "test"]
    command += ["--demographics", "--per-label", str(IMAGES_PER_CLASS)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    studies = bench_studies(shared)
    sent = sum(len(study.instance_uids) for study in studies.values())
    node = RunningNode(folder / "data")
    try:
        storescu(node.dicom_port, objects, real)
        found = node.wait_until_embedded(sent + sum(path.is_file() for path in real.rglob("*")))
        assert found["embedded"] == found["received"]
        yield Bench(node, studies, folder)
    finally:
        node.kill()


@pytest.fixture(scope="module")
def rankings(bench: Bench) -> dict[str, list[Dataset]]:
    """Ask for studies of every class, by Study Instance UID."""
    return {study.uid: bench.ask(study.uid) for study in bench.some_of_each_class()}


def test_studies_of_the_same_class_come_first(bench, rankings, record_property):
    precisions = defaultdict(list)
    for uid, answers in rankings.items():
        label = bench.studies[uid].label
        precisions[label].append(bench.labels(answers)[:5].count(label) / 5)
    assert len(precisions) == CLASSES
    by_class = {label: sum(values) / len(values) for label, values in precisions.items()}
    macro = sum(by_class.values()) / CLASSES
    worst = min(by_class, key=lambda label: by_class[label])
    record_property("study_precision_at_5", round(macro, 4))
    print(f"study-level P@5: {macro:.4f} over {len(rankings)} studies of {CLASSES} classes;")
    print(f"lowest: {worst} {by_class[worst]:.3f}")
    assert macro >= 0.95, by_class
    assert by_class[worst] >= 0.6, by_class


def test_answers_are_other_patients_best_first(bench, rankings):
    for uid, answers in rankings.items():
        assert len(set(study_uids(answers))) == ANSWERS
        assert uid not in study_uids(answers)
        assert bench.studies[uid].patient_id not in {answer.PatientID for answer in answers}
        scores = similarities(answers)
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("key", "passes"),
    [
        ("StudyDate=20100101-20141231", lambda answer: "2010" <= answer.StudyDate[:4] <= "2014"),
        ("PatientSex=F", lambda answer: answer.PatientSex == "F"),
        ("ModalitiesInStudy=MR", lambda answer: answer.ModalitiesInStudy == "MR"),
        ("Modality=MR", lambda answer: answer.ModalitiesInStudy == "MR"),
    ],
    ids=["StudyDate", "PatientSex", "ModalitiesInStudy", "Modality"],
)
def test_other_keys_filter_and_keep_the_order(bench, key, passes):
    """The answers are those of the whole ranking that pass, then the next ones that do."""
    example = next(study for study in bench.studies.values() if study.label == "MR_BREAST")
    shown = [name for name in ("StudyDate", "PatientSex", "ModalitiesInStudy") if name not in key]
    unfiltered = bench.ask(example.uid, "StudyDate", "PatientSex", "ModalitiesInStudy")
    filtered = bench.ask(example.uid, key, *shown)
    assert len(filtered) == ANSWERS
    assert all(passes(answer) for answer in filtered)
    passing = study_uids([answer for answer in unfiltered if passes(answer)])
    assert study_uids(filtered)[: len(passing)] == passing
    if "Modalit" not in key:  # all of its neighbours are MR
        assert len(passing) < ANSWERS


def test_a_modality_filter_reaches_past_the_neighbours(bench):
    """Nothing that looks like a fundus photograph is a CT; the filter still finds 20 CT studies."""
    example = next(study for study in bench.studies.values() if study.label == "OP_FUNDUS")
    answers = bench.ask(example.uid, "Modality=CT", "ModalitiesInStudy")
    assert len(answers) == ANSWERS
    assert {answer.ModalitiesInStudy for answer in answers} == {"CT"}


@pytest.mark.parametrize("label", ["MR_HEART", "XA_CORONARY", "CT_HEAD"])
def test_drill_down_shows_the_answers_own_series_and_images(bench, rankings, label):
    uid = next(uid for uid in rankings if bench.studies[uid].label == label)
    answer = bench.studies[study_uids(rankings[uid])[0]]
    study = f"StudyInstanceUID={answer.uid}"
    series = bench.drill_down("SERIES", study, "SeriesInstanceUID", "Modality")
    assert [(one.SeriesInstanceUID, one.Modality) for one in series] == [
        (answer.series_uid, answer.modality)
    ]
    named = (study, f"SeriesInstanceUID={answer.series_uid}")
    images = bench.drill_down("IMAGE", *named, "SOPInstanceUID")
    assert len(images) == len(answer.instance_uids)
    assert {image.SOPInstanceUID for image in images} == answer.instance_uids


@pytest.mark.parametrize(
    ("uid", "label"), [(CT_HEAD, "CT_HEAD"), (MR_PROSTATE, "MR_PROSTATE")], ids=["CT", "MR"]
)
def test_real_studies_find_their_kind(bench, uid, label):
    assert bench.labels(bench.ask(uid))[:5] == [label] * 5


def test_a_real_knee_finds_magnetic_resonance_but_nothing_very_similar(bench):
    """The benchmark has no MR of knees: what looks most like one is compared by appearance."""
    answers = bench.ask(MR_KNEE, "ModalitiesInStudy")
    modalities = [answer.ModalitiesInStudy for answer in answers]
    assert "MR" in modalities[:5]
    known = [similarities(bench.ask(uid))[0] for uid in (CT_HEAD, MR_PROSTATE)]
    assert similarities(answers)[0] < min(known)


@pytest.mark.parametrize("label", ["MR_HEART", "US_THYROID"])
def test_command_line_gives_the_same_order(bench, rankings, label):
    uid = next(uid for uid in rankings if bench.studies[uid].label == label)
    done = bench.node.cli("query", "--study", uid, "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [one["StudyInstanceUID"] for one in results] == study_uids(rankings[uid])
    assert [one["similarity"] for one in results] == pytest.approx(
        similarities(rankings[uid]), abs=1e-5
    )


def test_everything_agrees_afterwards(bench):
    done = bench.node.cli("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bench.node.get("/readyz")[0] == 200
