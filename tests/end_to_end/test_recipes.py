"""The four published systems: trained, installed, fed by storescu and asked over DICOM."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import Dataset

from cbmir_node.answers.private_elements import (
    CLASS_RESTRICTION,
    MAXIMUM_RESULTS,
    PREDICTED_CLASS,
    PRIVATE_CREATOR,
    RANK,
    RE_RANK,
    RETRIEVAL_METHOD,
    RETRIEVAL_MODEL,
    SAME_TAGS,
    SIMILARITY,
    VECTOR_SPACE,
    PrivateElement,
)
from cbmir_node.cli import main
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from tests.conftest import REPOSITORY, needs_program
from tests.dicom.peers import EXPLICIT, association
from tests.dicom.test_similar import private_value, request
from tests.end_to_end.conftest import RunningNode
from tests.end_to_end.peers import find_similar, storescu
from tests.objects import make_object, write

torch = pytest.importorskip("torch", reason="training needs: pip install 'cbmir-node[train]'")
pytest.importorskip("onnxscript", reason="export needs: pip install 'cbmir-node[train]'")

SIZE = 48
KINDS = {"dark": 40, "grey": 120, "bright": 210}
TRAINING_PICTURES = 10
TAGS: tuple[dict[str, Any], ...] = (
    {"PatientSex": "F", "BodyPartExamined": "HEAD", "PatientAge": "040Y"},  # the example's
    {"PatientSex": "F", "BodyPartExamined": "", "PatientAge": "050Y"},
    {"PatientSex": "", "BodyPartExamined": "head", "PatientBirthDate": "19830101"},
    {"PatientSex": "M", "BodyPartExamined": "HEAD", "PatientAge": "040Y"},
    {"PatientSex": "F", "BodyPartExamined": "KNEE", "PatientAge": "040Y"},
    {"PatientSex": "F", "BodyPartExamined": "HEAD", "PatientAge": "051Y"},
    {"PatientSex": "F", "BodyPartExamined": "HEAD", "PatientAge": "040Y", "Modality": "MR"},
    {"PatientSex": "F", "BodyPartExamined": "HEAD", "PatientAge": "030Y"},
)
LIKE_THE_EXAMPLE = {1, 2, 7}
"""Which of `TAGS` pass all four shared tags."""
EXAMPLE = "grey.0"

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Retrieval:
    """What one query must do."""

    method: str
    space: str = "embedding"
    rerank: bool = False
    by_class: bool = False
    predicted_class: str | None = None
    same_tags: bool = False
    k: int = 20


@dataclass(frozen=True)
class System:
    """A recipe: its smallest input, its configured retrieval, and another one to wish for."""

    size: int
    configured: Retrieval
    wishes: dict[PrivateElement, Any] = field(hash=False)
    wished: Retrieval


SYSTEMS = {
    "qayyum": System(
        96,
        Retrieval("cosine", by_class=True),
        {
            RETRIEVAL_METHOD: "EUCLIDEAN",
            VECTOR_SPACE: "embedding.fc1",
            CLASS_RESTRICTION: "NO",
        },
        Retrieval("euclidean", space="embedding.fc1"),
    ),
    "nikitha": System(
        32,
        Retrieval("cosine"),
        {PREDICTED_CLASS: "dark", MAXIMUM_RESULTS: 3},
        Retrieval("cosine", predicted_class="dark", k=3),
    ),
    "attention-hash": System(
        32,
        Retrieval("hamming", rerank=True),
        {RE_RANK: "NO", VECTOR_SPACE: None},
        Retrieval("hamming"),
    ),
    "tag-prefilter": System(
        96,
        Retrieval("euclidean", by_class=True, same_tags=True),
        {SAME_TAGS: "NONE"},
        Retrieval("euclidean", by_class=True),
    ),
}


def picture(kind: str, number: int) -> npt.NDArray[np.uint8]:
    """Draw a disc on a ground whose brightness tells the kinds apart, which is soon learned."""
    random = np.random.default_rng([KINDS[kind], number])
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    centre = random.uniform(0.3, 0.7, 2)
    disc = np.hypot(x - centre[0], y - centre[1]) < random.uniform(0.1, 0.3)
    grey = KINDS[kind] + random.uniform(-15, 15) + 30 * disc + random.normal(0, 5, (SIZE, SIZE))
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write labelled pictures to train on."""
    folder = tmp_path_factory.mktemp("pictures")
    with (folder / "manifest.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(("file", "label", "finding", "patient_id", "split"))
        for kind in KINDS:
            for number in range(TRAINING_PICTURES):
                name = f"{kind}{number}.png"
                Image.fromarray(picture(kind, 100 + number)).save(folder / name)
                rows.writerow((name, kind, "", name, "val" if number < 2 else "train"))
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Return studies of one image by their names, such as ``grey.0``."""
    return {
        f"{kind}.{number}": make_object(
            StudyInstanceUID=f"1.2.{KINDS[kind]}.{number}",
            size=SIZE,
            PixelData=picture(kind, number).astype(np.int16).tobytes(),
            WindowCenter=128,
            WindowWidth=256,
            **tags,
        )
        for kind in KINDS
        for number, tags in enumerate(TAGS)
    }


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in one thread: with networks this small others only wait, which costs time too."""
    monkeypatch.setenv("CBMIR_EMBEDDING__THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def trained(recipe: str, manifest: Path, folder: Path) -> Path:
    """Train and export the smallest network of a recipe."""
    smallest = ("--size", SYSTEMS[recipe].size, "--width", "0.05", "--batch-size", "8")
    output = command(
        *("train", manifest, "-o", folder / "run", "--recipe", recipe),
        *(*smallest, "--epochs", "40"),
    )
    checkpoint = output.split()[-1]  # the command that comes next names it
    model = folder / f"{recipe}.onnx"
    command("export", checkpoint, "-o", model, "--name", recipe, "--training-data", "Discs.")
    return model


@dataclass(frozen=True)
class Oracle:
    """What must come out, from the vectors that ``cbmir-node embed`` writes.

    Attributes
    ----------
    names : list of str
        Studies in the order of the arrays' rows.
    """

    names: list[str]
    arrays: dict[str, npt.NDArray[Any]]

    def similarities(self, asked: Retrieval) -> dict[str, float]:
        """Return the similarity of each study that may be an answer."""
        example = self.names.index(EXAMPLE)
        labels = self.arrays["label"]
        if asked.method == "hamming" and not asked.rerank:
            bits = np.unpackbits(self.arrays["code"], axis=1)
            similarity = (bits == bits[example]).mean(axis=1)
        else:
            vectors = self.arrays[asked.space].astype(np.float64)
            similarity = _similarity(vectors, example, asked.method)
        return {
            name: float(similarity[row])
            for row, name in enumerate(self.names)
            if row != example
            and (not asked.by_class or labels[row] == labels[example])
            and (asked.predicted_class in (None, labels[row]))
            and (not asked.same_tags or int(name.split(".")[1]) in LIKE_THE_EXAMPLE)
        }


def _similarity(vectors: Float64Array, example: int, method: str) -> Float64Array:
    if method == "euclidean":
        return 1 / (1 + np.linalg.norm(vectors - vectors[example], axis=1))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (1 + unit @ unit[example]) / 2


def check(
    answers: list[Dataset], asked: Retrieval, oracle: Oracle, label_of: dict[str, str]
) -> None:
    """Compare answers with what must come out: which ones, how much alike, in which order."""
    expected = oracle.similarities(asked)
    best = sorted(expected.values(), reverse=True)[: asked.k]
    assert best, "the test asks for nothing"
    found = [private_value(answer, SIMILARITY) for answer in answers]
    names = [label_of[answer.StudyInstanceUID] for answer in answers]
    assert len(set(names)) == len(names)
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx(best, abs=2e-3)
    assert found == pytest.approx([expected[name] for name in names], abs=2e-3)
    assert {private_value(answer, RETRIEVAL_METHOD) for answer in answers} == {asked.method.upper()}


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_a_published_system_answers_over_dicom(
    recipe: str,
    manifest: Path,
    studies: dict[str, Dataset],
    one_thread: None,
    start_node: Callable[..., RunningNode],
    tmp_path: Path,
) -> None:
    needs_program("storescu", "findscu", package="dcmtk")
    system = SYSTEMS[recipe]
    model = trained(recipe, manifest, tmp_path)
    (tmp_path / "dicom").mkdir()
    for name, study in studies.items():
        write(study, tmp_path / "dicom" / f"{name}.dcm")
    command("embed", tmp_path / "dicom", "--model", model, "-o", tmp_path / "vectors.npz")
    arrays = dict(np.load(tmp_path / "vectors.npz"))
    name_of = {study.SOPInstanceUID: name for name, study in studies.items()}
    oracle = Oracle([name_of[uid] for uid in arrays["sop_instance_uid"]], arrays)
    assert len(set(arrays["label"])) > 1, "a network that tells nothing apart proves nothing"

    command("model", "install", model, "--data-dir", tmp_path / "data")
    command("model", "use", recipe, "--data-dir", tmp_path / "data")
    configuration = REPOSITORY / "conf" / "recipes" / f"{recipe}.toml"
    node = start_node(None, "--config", str(configuration))
    storescu(node.dicom_port, tmp_path / "dicom")
    node.wait_until_embedded(len(studies))

    study_of = {study.StudyInstanceUID: name for name, study in studies.items()}
    example = studies[EXAMPLE].StudyInstanceUID
    shown = (SIMILARITY, RETRIEVAL_METHOD, RETRIEVAL_MODEL, VECTOR_SPACE)
    answers = find_similar(
        *(node.dicom_port, tmp_path / "answers", f"StudyInstanceUID={example}"),
        f"(0079,0010)={PRIVATE_CREATOR}",
        *(f"(0079,{element.tag & 0xFFFF:04x})" for element in shown),
    )
    check(answers, system.configured, oracle, study_of)
    assert {private_value(answer, RETRIEVAL_MODEL) for answer in answers} == {f"{recipe}:1"}
    assert {private_value(answer, VECTOR_SPACE) for answer in answers} == {system.configured.space}

    identifier = request(private=system.wishes, StudyInstanceUID=example)
    with association(node.dicom_port, (SIMILARITY_FIND, EXPLICIT)) as opened:
        *pending, (final, _) = opened.send_c_find(identifier, SIMILARITY_FIND)
    assert final.Status == 0, final.get("ErrorComment")
    wished = [answer for _, answer in pending]
    check(wished, system.wished, oracle, study_of)
    assert [private_value(answer, RANK) for answer in wished] == list(range(1, len(wished) + 1))
    labels = dict(zip(oracle.names, arrays["label"], strict=True))
    assert [private_value(answer, PREDICTED_CLASS) for answer in wished] == [
        labels[study_of[answer.StudyInstanceUID]] for answer in wished
    ]
    if VECTOR_SPACE in system.wishes:
        assert {private_value(one, VECTOR_SPACE) for one in wished} == {system.wished.space}
    assert node.stop() == 0
    assert "Traceback" not in node.log
