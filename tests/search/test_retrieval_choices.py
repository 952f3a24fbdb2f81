"""Hash codes, layers, class and tag restrictions over known vectors, on both databases."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.query.hierarchy import rows_by_number
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import NotEmbeddedError, QueryError
from cbmir_node.search import pipeline
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.search.file_examples import example_from_frames
from cbmir_node.search.query import (
    Example,
    Method,
    SimilarityAnswer,
    SimilarityLevel,
    SimilarityQuery,
)
from tests.catalog.test_catalog import record, store
from tests.objects import make_object

LAYER = "embedding.fc7"
KEYWORDS: dict[SimilarityLevel, str] = {
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def frame(
    angle: float = 0.0,
    layer: tuple[float, float, float] = (1, 0, 0),
    code: int = 0,
    label: str | None = "CT_HEAD",
    probability: float | None = 0.995,
) -> FrameVectors:
    vector = np.asarray([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)
    spaces = {"embedding": vector, LAYER: np.asarray(layer, np.float32)}
    return FrameVectors(1, spaces, code.to_bytes(2, "big"), label, probability)


class Archive:
    """A catalogue whose model has two spaces, classes and a code of 16 bits."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog, self.folder = catalog, folder
        self.registry = ModelRegistry(catalog)
        self.registry.use(
            self.registry.add(
                *("0" * 64, "tiny", "1", {"embedding": 2, LAYER: 3}),
                code_bits=16,
                labels=["CT_HEAD", "MR_KNEE", "US_LIVER", "Skull"],
            )
        )
        self.model = self.registry.active()

    def add(self, study: str, *frames: FrameVectors, **attributes: Any) -> None:
        """Store a study with one image per frame."""
        for number, one in enumerate(frames, start=1):
            values = {
                "PatientID": f"patient of {study}",
                "StudyInstanceUID": study,
                "SeriesInstanceUID": f"{study}.1",
                "SOPInstanceUID": f"{study}.1.{number}",
                **attributes,
            }
            store(self.catalog, record(**values))
            self.embed(self.model, one)

    def embed(self, model: InstalledModel, one: FrameVectors) -> None:
        """Give all that waits for a model the same vectors."""
        claims = WorkQueue(self.catalog, "t/1", 60).claim(model.row, 100)
        write_vectors(self.catalog, [(claim, [one]) for claim in claims])

    def search(self, **settings: Any) -> SimilaritySearch:
        return SimilaritySearch(
            self.catalog, self.folder, SearchSettings(**settings), IndexSettings(), writable=True
        )

    def answer(
        self, *examples: str | Example, settings: dict[str, Any] | None = None, **query: Any
    ) -> SimilarityAnswer:
        named = [Example("STUDY", one) if isinstance(one, str) else one for one in examples]
        return self.search(**settings or {}).answer(SimilarityQuery(named, **query))

    def ask(self, *examples: str | Example, **query: Any) -> list[str]:
        """Return the UIDs of the answers."""
        return [uid for uid, _ in self.ranking(self.answer(*examples, **query))]

    def ranking(self, answer: SimilarityAnswer) -> list[tuple[str, float]]:
        keyword, rows = KEYWORDS[answer.level], [match.row for match in answer.matches]
        found = rows_by_number(self.catalog, answer.level, rows, [keyword])
        return [(found[m.row].values[keyword], m.similarity) for m in answer.matches]


@pytest.fixture
def archive(catalog: Catalog, tmp_path: Path) -> Archive:
    return Archive(catalog, tmp_path / "index")


def similarity(one: FrameVectors, other: FrameVectors, method: Method, space: str) -> float:
    """Compare two frames, apart from the code under test."""
    if method == "hamming":
        assert one.code is not None
        assert other.code is not None
        first, second = (int.from_bytes(code, "big") for code in (one.code, other.code))
        return 1 - (first ^ second).bit_count() / 16
    a, b = one.spaces[space].astype(float), other.spaces[space].astype(float)
    if method == "cosine":
        return float(1 + a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / 2
    return float(1 / (1 + np.linalg.norm(a - b)))


def test_every_method_ranks_every_level_as_by_hand(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    images: dict[str, list[FrameVectors]] = {}
    for study in range(1, 13):
        layers = random.standard_normal((random.integers(1, 4), 3))
        images[f"1.{study}"] = [
            frame(random.uniform(0, 360), tuple(layer), int(random.integers(0, 8)) << 3)
            for layer in layers
        ]
        archive.add(f"1.{study}", *images[f"1.{study}"])
    example = images.pop("1.5")
    ways: list[tuple[Method, str]] = [
        *itertools.product(("cosine", "euclidean"), ("embedding", LAYER)),
        ("hamming", "embedding"),
    ]
    for (method, space), level in itertools.product(ways, KEYWORDS):
        expected = {}
        for study, frames in images.items():
            table = np.array([[similarity(e, c, method, space) for c in frames] for e in example])
            mutual = (table.max(axis=1).mean() + table.max(axis=0).mean()) / 2
            expected |= {
                "STUDY": {study: mutual},
                "SERIES": {f"{study}.1": mutual},
                "IMAGE": {f"{study}.1.{n}": s for n, s in enumerate(table.max(axis=0), start=1)},
            }[level]
        wished = None if method == "hamming" else space
        answer = archive.answer("1.5", method=method, space=wished, level=level, k=99)
        assert (answer.method, answer.space) == (method, space)
        found = archive.ranking(answer)
        by_hand = sorted(expected, key=lambda uid: -round(expected[uid], 5))  # ties as received
        assert [uid for uid, _ in found] == by_hand, (method, space, level)
        assert [s for _, s in found] == pytest.approx(sorted(expected.values())[::-1], abs=1e-5)
        if level == "IMAGE":  # now through the index, which finds some of the images only
            monkeypatch.setattr(pipeline, "_FEWEST", 1)
            nearest = archive.ask("1.5", method=method, space=wished, level=level, k=2)
            assert nearest == by_hand[:2], (method, space)
            monkeypatch.undo()


def test_reranking_orders_the_nearest_codes_by_cosine(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("1.1", frame(0, (1, 0, 0), 0b0000))
    archive.add("1.2", frame(50, (1, 0, 1), 0b0001))
    archive.add("1.3", frame(20, (1, 0, 2), 0b0011))
    archive.add("1.4", frame(5, (1, 0, 0), 0b1111))
    assert archive.ask("1.1", method="hamming") == ["1.2", "1.3", "1.4"]
    answer = archive.answer("1.1", method="hamming", rerank=True)
    assert [uid for uid, _ in archive.ranking(answer)] == ["1.4", "1.3", "1.2"]
    assert answer.matches[0].similarity == pytest.approx((1 + np.cos(np.radians(5))) / 2)
    assert archive.ask("1.1", settings={"method": "hamming", "rerank": True})[0] == "1.4"
    layered = archive.ask("1.1", method="hamming", rerank=True, space=LAYER)
    assert layered == ["1.4", "1.2", "1.3"]
    # what is far by its code is not looked at, however near its vector is
    monkeypatch.setattr(pipeline, "_FEWEST", 1)
    monkeypatch.setattr(pipeline, "_RERANK_REACH", 1)
    assert archive.ask("1.1", method="hamming", rerank=True, k=1) == ["1.3"]
    monkeypatch.setattr(pipeline, "_RERANK_REACH", 2)
    assert archive.ask("1.1", method="hamming", rerank=True, k=1) == ["1.4"]


def test_filters_and_the_class_of_the_match_do_not_depend_on_method_or_space(
    archive: Archive,
) -> None:
    archive.add("1.1", frame())
    archive.add("1.2", frame(label="MR_KNEE", probability=0.7), frame(90, code=0xFFFF))
    archive.add("1.3", frame(), PatientSex="M")
    for wish in ({"method": "hamming"}, {"space": LAYER}, {"method": "hamming", "rerank": True}):
        answer = archive.answer("1.1", filters={"PatientSex": "F"}, **wish)
        (match,) = answer.matches
        found = (match.matched_sop_instance_uid, match.label, match.probability)
        assert found == ("1.2.1.1", "MR_KNEE", pytest.approx(0.7))
        assert archive.ask("1.1", predicted_class="MR_KNEE", **wish) == ["1.2"]


def test_the_class_restriction_trusts_only_sure_predictions(archive: Archive) -> None:
    archive.add("1.1", frame(0, probability=0.995))
    archive.add("1.2", frame(1, label="MR_KNEE", probability=0.995))
    archive.add("1.3", frame(2, label="MR_KNEE", probability=0.6))
    archive.add("1.4", frame(3, label=None, probability=None))
    archive.add("1.5", frame(4, probability=0.2))
    everything = ["1.1", "1.2", "1.3", "1.4", "1.5"]
    assert archive.ask("1.1") == everything[1:]
    assert archive.ask("1.1", by_class=True) == ["1.3", "1.4", "1.5"]
    assert archive.ask("1.1", by_class=True, space=LAYER) == ["1.3", "1.4", "1.5"]
    # an example that is not sure itself restricts nothing: nothing relevant can be lost
    for unsure in ("1.3", "1.4", "1.5"):
        plain = archive.answer(unsure)
        assert archive.answer(unsure, by_class=True).matches == plain.matches
    configured = {"by_class": True, "trusted_probability": 0.996}
    assert archive.ask("1.1", settings=configured) == everything[1:]
    # the paper's strict form
    strict = {"by_class": True, "trusted_probability": 0}
    assert archive.ask("1.1", settings=strict) == ["1.4", "1.5"]
    assert archive.ask("1.3", settings=strict) == ["1.2", "1.4"]
    assert archive.ask("1.3", settings=strict, by_class=False) == ["1.2", "1.4", "1.1", "1.5"]


def test_the_class_of_a_study_is_the_mean_over_its_images(archive: Archive) -> None:
    archive.add("1.1", frame(0), frame(0), frame(0), frame(0, label="MR_KNEE"))
    archive.add("1.2", frame(1, label="MR_KNEE"))
    archive.add("1.3", frame(2))
    by_class = {"by_class": True}
    assert archive.ask("1.1", settings=by_class) == ["1.2", "1.3"]  # .74 only
    assert archive.ask("1.1", settings=by_class | {"trusted_probability": 0.7}) == ["1.3"]
    # of a candidate study the images of the class remain
    assert archive.ask("1.3", settings=by_class, level="IMAGE") == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]


def test_several_examples_widen_a_restriction(archive: Archive) -> None:
    archive.add("1.1", frame(0), BodyPartExamined="HEAD")
    archive.add("1.2", frame(1, label="MR_KNEE"), BodyPartExamined="KNEE")
    archive.add("1.3", frame(2, probability=0.5), BodyPartExamined="")
    for number, (label, part) in enumerate([("CT_HEAD", "HEAD"), ("MR_KNEE", "KNEE")], start=4):
        archive.add(f"1.{number}", frame(number, label=label), BodyPartExamined=part)
    archive.add("1.6", frame(6, label="US_LIVER"), BodyPartExamined="LIVER")
    for wish in ({"by_class": True}, {"same_tags": ["BodyPartExamined"]}):
        assert set(archive.ask("1.1", **wish)) == {"1.3", "1.4"}
        assert set(archive.ask("1.1", "1.2", **wish)) == {"1.3", "1.4", "1.5"}
        # one example that names nothing lifts it
        assert set(archive.ask("1.1", "1.3", **wish)) == {"1.2", "1.4", "1.5", "1.6"}


def test_an_unknown_class_is_answered_with_similar_names(archive: Archive) -> None:
    archive.add("1.1", frame(0))
    archive.add("1.2", frame(1, label="MR_KNEE"))
    assert archive.ask("1.1", predicted_class="MR_KNEE") == ["1.2"]
    assert archive.ask("1.1", predicted_class="CT_HEAD") == []
    assert archive.ask("1.1", predicted_class="US_LIVER") == []  # no image is taken for it
    with pytest.raises(QueryError, match=r"choose from US_LIVER.*: .* has no class 'us_live'"):
        archive.ask("1.1", predicted_class="us_live")
    with pytest.raises(QueryError, match="choose from Skull"):
        archive.ask("1.1", predicted_class="SKUL")
    bare = archive.registry.add("0" * 64, *("tiny", "1", archive.model.spaces), 16)
    assert bare.row == archive.model.row
    with pytest.raises(QueryError, match="has no classes"):
        archive.ask("1.1", predicted_class="CT_HEAD")
    with pytest.raises(QueryError, match="has no classes"):
        archive.ask("1.1", settings={"by_class": True})


def test_same_tags_let_empty_ones_pass(archive: Archive) -> None:
    archive.add("1.1", frame(0), BodyPartExamined="HEAD", PatientSex="F", Modality="CT")
    archive.add("1.2", frame(1), BodyPartExamined="Head", PatientSex="", Modality="CT")
    archive.add("1.3", frame(2), BodyPartExamined="", PatientSex="M", Modality="CT")
    archive.add("1.4", frame(3), BodyPartExamined="KNEE", PatientSex="F", Modality="MR")
    archive.add("1.5", frame(4), BodyPartExamined=None, PatientSex=None, Modality="MR")
    everything = ["1.2", "1.3", "1.4", "1.5"]
    assert archive.ask("1.1") == everything
    assert archive.ask("1.1", same_tags=["BodyPartExamined"]) == ["1.2", "1.3", "1.5"]
    assert archive.ask("1.1", same_tags=["PatientSex"]) == ["1.2", "1.4", "1.5"]
    assert archive.ask("1.1", same_tags=["PatientSex", "Modality"]) == ["1.2"]
    configured = {"same_tags": ("Modality", "BodyPartExamined"), "method": "hamming"}
    assert archive.ask("1.1", settings=configured) == ["1.2", "1.3"]
    assert archive.ask("1.1", settings=configured, same_tags=[]) == everything
    # the example's own tag is empty
    assert len(archive.ask("1.5", same_tags=["BodyPartExamined", "PatientSex"])) == 4
    with pytest.raises(QueryError, match="'StudyDate' is none of Modality"):
        archive.ask("1.1", same_tags=["StudyDate"])


def test_a_study_of_several_body_parts_shares_any_of_them(archive: Archive) -> None:
    parts = {"1.1": "CHEST", "1.2": "ABDOMEN", "1.3": ""}
    for series, part in parts.items():
        uids = {"SeriesInstanceUID": f"1.1.{series}", "SOPInstanceUID": f"1.1.{series}.1"}
        archive.add("1.1", frame(0), BodyPartExamined=part, **uids)
    for number, part in enumerate(["CHEST", "ABDOMEN", "KNEE"], start=2):
        archive.add(f"1.{number}", frame(number), BodyPartExamined=part)
    assert archive.ask("1.1", same_tags=["BodyPartExamined"]) == ["1.2", "1.3"]
    one = Example("SERIES", "1.1.1.2")
    assert archive.ask(one, same_tags=["BodyPartExamined"]) == ["1.3"]


def test_ages_are_the_same_within_whole_years_as_people_count(archive: Archive) -> None:
    born = {"PatientAge": "", "PatientBirthDate": "19800615"}
    ages = {
        "1.1": {"StudyDate": "20250615", **born},  # the 45th birthday
        "1.2": {"PatientAge": "055Y"},
        "1.3": {"PatientAge": "056Y"},
        "1.4": {"StudyDate": "20160614", **born},  # 35 until tomorrow
        "1.5": {"StudyDate": "20150614", **born},  # 34 until tomorrow
        "1.6": {"PatientAge": "", "PatientBirthDate": ""},
        "1.7": {"PatientAge": "006M"},
        "1.8": {"PatientAge": "", "PatientBirthDate": "19691231", "StudyDate": "20251230"},  # 55
    }
    for angle, (study, attributes) in enumerate(ages.items()):
        archive.add(study, frame(angle), **attributes)
    same_age: dict[str, Any] = {"same_tags": ["PatientAge"]}
    assert archive.ask("1.1", **same_age) == ["1.2", "1.4", "1.6", "1.8"]
    assert archive.ask("1.1", settings={"same_age_years": 0}, **same_age) == ["1.6"]
    assert archive.ask("1.7", settings={"same_age_years": 34}, **same_age) == ["1.6", "1.5"]
    assert archive.ask("1.7", settings={"same_age_years": 34.4}, **same_age) == ["1.6"]
    assert len(archive.ask("1.6", **same_age)) == 7


def test_a_file_is_an_example_for_every_choice(archive: Archive) -> None:
    archive.add("1.2", frame(30, (0, 1, 0), 0b1), BodyPartExamined="HEAD")
    archive.add("1.3", frame(10, (0, 0, 1), 0b11, label="MR_KNEE"), BodyPartExamined="KNEE")
    archive.add("1.4", frame(20, (1, 0, 0), 0b111), PatientAge="020Y")
    header = make_object(BodyPartExamined="HEAD", PatientAge="045Y", PatientID="X")
    frames = [frame(0, (1, 0, 0)), frame(0, (1, 0, 0))]
    file = example_from_frames("a.dcm", frames, header, archive.model.sha256)
    assert (file.study_instance_uid, file.patient_identity) == (header.StudyInstanceUID, "id:X\\")
    assert archive.ask(file) == ["1.3", "1.4", "1.2"]
    assert archive.ask(file, space=LAYER)[0] == "1.4"
    assert archive.ask(file, method="hamming") == ["1.2", "1.3", "1.4"]
    assert archive.ask(file, method="hamming", rerank=True) == ["1.3", "1.4", "1.2"]
    assert archive.ask(file, by_class=True) == ["1.4", "1.2"]
    assert archive.ask(file, same_tags=["BodyPartExamined"]) == ["1.4", "1.2"]
    assert archive.ask(file, same_tags=["PatientAge"], settings={"same_age_years": 24}) == [
        "1.3",
        "1.2",
    ]
    bare = Example("IMAGE", "bare", file.vectors, archive.model.sha256)
    assert len(archive.ask(bare, by_class=True, same_tags=["Modality", "PatientAge"])) == 3
    for wish, lacks in (({"method": "hamming"}, "hash codes"), ({"space": LAYER}, "fc7")):
        with pytest.raises(QueryError, match=lacks):
            archive.ask(bare, **wish)


def test_wishes_without_effect_are_refused(archive: Archive) -> None:
    archive.add("1.1", frame())
    for wish in ({"rerank": True}, {"method": "hamming", "space": LAYER}):
        with pytest.raises(QueryError, match=r"choose hamming|re-rank, or leave out the space"):
            archive.ask("1.1", **wish)
    configured = {"method": "hamming", "rerank": True}
    assert archive.answer("1.1", settings=configured, space=LAYER).space == LAYER
    plain = archive.answer("1.1", settings={"method": "hamming", "space": LAYER})
    assert (plain.space, plain.choices.rerank) == ("embedding", False)


def test_a_damaged_code_hides_no_other(archive: Archive) -> None:
    for number in range(1, 5):
        archive.add(f"1.{number}", frame(number, code=number))
    images, vectors = schema.instances.c, schema.vectors.c
    for uid, code in (("1.2.1.1", b"\1"), ("1.3.1.1", None)):
        wanted = images.sop_instance_uid == uid
        owner = schema.instances.select().with_only_columns(images.id).where(wanted)
        with archive.catalog.write() as connection:
            change = update(schema.vectors).where(vectors.instance.in_(owner))
            connection.execute(change.values(code=code))
    assert archive.ask("1.1", method="hamming") == ["1.4"]
    assert len(archive.ask("1.1")) == 3
    with pytest.raises(NotEmbeddedError, match="verify"):
        archive.ask("1.3", method="hamming")


def test_a_model_without_code_or_space_keeps_the_node_running(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    """And a switch to such a model while codes are searched, and back."""
    archive.add("1.1", frame(0))
    archive.add("1.2", frame(1))
    search = archive.search(method="hamming", rerank=True)
    query = SimilarityQuery([Example("STUDY", "1.1")])
    assert len(search.answer(query).matches) == 1
    assert [cache.identity.metric for cache in search.active_caches()] == ["hamming", "cosine"]
    bare = archive.registry.add("1" * 64, "bare", "2", {"embedding": 2})
    archive.registry.use(bare)
    vectors = {"embedding": np.ones(2, np.float32)}
    archive.embed(bare, FrameVectors(1, vectors))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            search.prepare()
        assert archive.registry.switch_if_ready() is not None
        search.prepare()
    assert [message for message in caplog.messages if "bare:2" in message] == [
        "with the model bare:2 queries that choose nothing else are refused: "
        "choose cosine or euclidean: the model in use has no hash code"
    ]
    assert len(search.active_cache()) == 2
    assert search.active_cache().identity.metric == "cosine"
    with pytest.raises(QueryError, match="choose cosine or euclidean"):
        search.answer(query)
    assert len(search.answer(SimilarityQuery(query.examples, method="cosine")).matches) == 1
    with pytest.raises(QueryError, match="choose from embedding: "):
        search.answer(SimilarityQuery(query.examples, method="cosine", space=LAYER))
    archive.registry.use(archive.registry.find("tiny:1"))
    assert archive.registry.switch_if_ready() is not None
    assert search.answer(query).method == "hamming"
    assert archive.search(space=LAYER).active_cache().identity.space == LAYER
