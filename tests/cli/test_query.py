"""The choices of ``query``: what they lead to, and which make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from cbmir_node.catalog.database import open_catalog
from cbmir_node.config import Settings, load_settings
from cbmir_node.stores import open_stores
from tests.cli.conftest import Command
from tests.conftest import REPOSITORY
from tests.models import build_model
from tests.objects import make_object, write
from tests.small_node import keep

RECIPES = REPOSITORY / "conf" / "recipes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--same sex --same none", "--same none goes with no other"),
        ("--same hair", "'hair' is not one of"),
        ("--method manhattan", "'manhattan' is not one of"),
    ],
)
def test_choices_that_make_no_sense(command: Command, arguments: str, message: str) -> None:
    done = command("query", "--study", "1.2", *arguments.split())
    assert (done.exit_code, message in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_each_recipe_configures_the_search_and_nothing_else() -> None:
    plain = load_settings(environment={}).model_dump()
    found = {path.stem: load_settings(path, environment={}) for path in RECIPES.glob("*.toml")}
    assert set(found) == {"qayyum", "nikitha", "attention-hash", "tag-prefilter"}
    for settings in found.values():
        assert settings.model_dump() | {"search": None} == plain | {"search": None}
    assert {
        name: (settings.search.method, settings.search.by_class, len(settings.search.same_tags))
        for name, settings in found.items()
    } == {
        "qayyum": ("cosine", True, 0),
        "nikitha": ("cosine", False, 0),
        "attention-hash": ("hamming", False, 0),
        "tag-prefilter": ("euclidean", True, 4),
    }


def test_shared_tags_can_be_set_and_shown_like_any_setting(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CBMIR_SEARCH__SAME_TAGS", "Modality, PatientSex")
    file = tmp_path / "shown.toml"
    file.write_text(command("config", "show").stdout)
    shown = load_settings(file, environment={})
    assert shown.search.same_tags == ("Modality", "PatientSex")
    monkeypatch.setenv("CBMIR_SEARCH__SAME_TAGS", "Hair")
    wrong = command("config", "check")
    assert (wrong.exit_code, "search.same_tags" in wrong.stderr) == (1, True)


@pytest.fixture
def archive(tmp_path: Path, command: Command) -> list[Dataset]:
    """Embed eight studies with a network that has hash codes, classes and a further space."""
    sexes = ("F", "M", "", "F", "M", "", "F", "M")
    parts = ("HEAD", "HEAD", "HEAD", "KNEE", "KNEE", "", "HEAD", "KNEE")
    studies = []
    for number, (sex, part) in enumerate(zip(sexes, parts, strict=True)):
        patches = np.random.default_rng(number).integers(0, 2000, (4, 4))
        pixels = np.kron(patches, np.ones((4, 4))).astype(np.int16)
        studies.append(
            make_object(
                PixelData=pixels.tobytes(),
                PatientID=f"P{number}",
                StudyInstanceUID=f"1.2.{number}",
                PatientSex=sex,
                BodyPartExamined=part,
                PatientAge=f"{40 + 4 * number:03d}Y",
            )
        )
    settings = Settings(data_dir=tmp_path / "data")
    open_catalog(settings.catalog_url, create=True).close()
    stores = open_stores(settings, create=False)
    stores.use(stores.install(build_model(tmp_path / "layered.onnx", layers={"fc7": 8})))
    keep(stores, tmp_path, *studies)
    stores.close()
    done = command("reindex")
    assert done.exit_code == 0, done.output
    return studies


def test_choices_are_kept_and_shown(
    command: Command, archive: list[Dataset], tmp_path: Path
) -> None:
    def asked(*arguments: object) -> dict[str, Any]:
        done = command("query", "--study", "1.2.0", "--json", *arguments)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        found["studies"] = [result["StudyInstanceUID"] for result in found["results"]]
        return found

    plain = asked()
    assert len(plain["studies"]) == 7
    assert (plain["method"], plain["rerank"], plain["space"]) == ("cosine", False, "embedding")
    assert (plain["by_class"], plain["predicted_class"], plain["same_tags"]) == (False, None, [])
    codes = asked("--method", "hamming")
    bits = [(1 - result["similarity"]) * 16 for result in codes["results"]]
    assert bits == pytest.approx(np.round(bits), abs=1e-4)
    assert len(set(bits)) > 1
    reranked = asked("--config", RECIPES / "attention-hash.toml")
    assert (reranked["method"], reranked["rerank"]) == ("hamming", True)
    assert reranked["results"] == plain["results"]
    other = plain["studies"][0]
    for how in ((), ("--method", "hamming"), ("--config", RECIPES / "attention-hash.toml")):
        unlike = asked(*how, "--not-study", other)
        assert set(unlike["studies"]) == set(plain["studies"]) - {other}
        values = [result["similarity"] for result in unlike["results"]]
        assert values == sorted(values, reverse=True)
        assert values != [result["similarity"] for result in plain["results"]][1:]
    layer = asked("--space", "embedding.fc7")
    assert layer["space"] == "embedding.fc7"
    assert layer["results"] != plain["results"]
    assert set(asked("--same", "sex")["studies"]) == {f"1.2.{n}" for n in (2, 3, 5, 6)}
    alike = asked("--config", RECIPES / "tag-prefilter.toml", "--no-by-class")
    assert alike["same_tags"] == ["Modality", "BodyPartExamined", "PatientSex", "PatientAge"]
    assert alike["studies"] == ["1.2.2"]  # the sixth is 24 years older
    every = asked("--config", RECIPES / "tag-prefilter.toml", "--no-by-class", "--same", "none")
    assert (every["method"], len(every["studies"])) == ("euclidean", 7)
    (label,) = {result["label"] for result in plain["results"][:1]}
    named = asked("--class", label)
    assert named["results"]
    assert {result["label"] for result in named["results"]} == {label}
    table = command("query", "--study", "1.2.0", "--method", "hamming", "--rerank", "--same", "age")
    assert table.stdout.splitlines()[-1] == (
        "by tiny:1, hamming, re-ranked by cosine of embedding; same PatientAge"
    )


def test_a_file_asks_like_its_study(
    command: Command, archive: list[Dataset], tmp_path: Path
) -> None:
    file = write(archive[0], tmp_path / "example.dcm")
    for choices in (
        "--method hamming --same sex --same age",
        "--space embedding.fc7 --method euclidean --same body-part",
        "--by-class --method hamming --rerank",
    ):
        by_file, by_study = (
            json.loads(command("query", *example, *choices.split(), "--json").stdout)["results"]
            for example in (("--file", file), ("--study", "1.2.0"))
        )
        assert by_study
        assert [one["StudyInstanceUID"] for one in by_file] == [
            one["StudyInstanceUID"] for one in by_study
        ]
        assert [one["similarity"] for one in by_file] == pytest.approx(
            [one["similarity"] for one in by_study], abs=1e-3
        )
    for wish, message in (
        ("--rerank", "choose hamming"),
        ("--method hamming --space embedding.fc7", "re-rank, or leave out the space"),
        ("--space embedding.fc8", "embedding.fc7"),  # it lists what there is
        ("--class NOTHING", "NOTHING"),
    ):
        done = command("query", "--file", file, *wish.split())
        assert (done.exit_code, message in done.stderr) == (1, True), done.output
