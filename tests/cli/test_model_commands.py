"""What ``model`` and ``status`` say of models: checked, installed, on their way, in use."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.cli import main
from cbmir_node.embedding import check
from cbmir_node.stores import Stores
from cbmir_node.worker import Worker
from tests.cli.conftest import Command
from tests.models import build_model
from tests.objects import make_object
from tests.small_node import drain, keep


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time one batch only."""
    monkeypatch.setattr(check, "_TIMED_S", 0.0)


def checked(*words: object) -> Result:
    """Run ``model check``, which takes no data folder."""
    return CliRunner().invoke(main, ["model", "check", *map(str, words)])


def embed_with_both(stores: Stores) -> None:
    with Worker(stores) as worker:
        for model in stores.registry.in_use():
            drain(worker, model)


def test_check_says_what_a_good_file_can_do(tmp_path: Path) -> None:
    file = build_model(tmp_path / "m.onnx", layers={"fc6": 12}, saliency=False)
    done = checked(file)
    assert done.exit_code == 0, done.output
    assert "embedding (32 values), embedding.fc6 (12 values)" in done.stdout
    assert "16 bits" in done.stdout
    assert "no: there is no output 'saliency'" in done.stdout
    assert "it can be installed: cbmir-node model install" in done.stdout
    found = json.loads(checked(file, "--json").stdout)
    assert found["installable"] is True
    assert found["errors"] == found["warnings"] == []
    assert found["model"]["name"] == "tiny"
    assert found["retrieval"]["by class"] == "4 classes"


def test_check_and_install_refuse_with_the_same_words(tmp_path: Path, command: Command) -> None:
    file = build_model(tmp_path / "m.onnx", bits=12)
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    del model.metadata_props[:]
    helper.set_model_props(model, {"cbmir.name": "my net"})
    onnx.save(model, file)
    done = checked(file)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {file} cannot be installed: 8 errors")
    assert done.stdout.count("error: ") == done.stdout.count("mend: ") == 8
    assert "it can be installed" not in done.stdout
    told = checked(file, "--json")
    assert told.exit_code == 1
    breaches = json.loads(told.stdout)["errors"]
    assert len(breaches) == 8
    refused = command("model", "install", file)
    assert refused.exit_code == 1
    assert all(breach["problem"] in refused.stderr for breach in breaches)
    assert all(breach["mend"] in refused.stderr for breach in breaches)


def test_check_of_what_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"PK\x03\x04 and so on")
    done = checked(file)
    assert (done.exit_code, "PyTorch checkpoint" in done.stdout) == (1, True)
    assert checked(tmp_path / "absent.onnx").exit_code == 2


def test_the_way_of_a_model_into_use(command: Command, stores: Stores, tmp_path: Path) -> None:
    keep(stores, tmp_path, *(make_object() for _ in range(3)), make_object(PixelData=None))
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())
    installed = command("model", "install", build_model(tmp_path / "b.onnx", name="other"))
    assert "not in use yet: cbmir-node model use other:1" in installed.stdout
    used = command("model", "use", "other")
    assert "takes over when 4 instances are embedded" in used.stdout
    assert "start it with 'cbmir-node serve'" in used.stdout

    status = json.loads(command("status", "--json").stdout)
    assert (status["model"], status["embedded"]) == ("tiny:1", 3)
    assert status["next_model"] == "other:1"
    others = dict.fromkeys(("embedded", "no_pixels", "failed", "skipped"), 0)
    assert status["next_states"] == {"pending": 4, **others}
    shown = " ".join(command("status").stdout.split())
    assert "next_model other:1 (4 pending, 0 embedded" in shown
    listed = command("model", "list").stdout.splitlines()
    assert listed[1].split()[:1] + listed[1].split()[2:6] == ["tiny:1", "3", "0", "1", "0"]
    assert listed[2].endswith("next: takes over when it has caught up")
    assert listed[3] == "of 4 instances received"

    embed_with_both(stores)
    again = command("model", "use", "other").stdout
    assert "takes over in a moment" in again
    failures = json.loads(command("status", "--failures", "--json").stdout)["failures"]
    assert [row["model"] for row in failures] == ["tiny:1", "other:1"]
    assert stores.registry.switch_if_ready() is not None
    assert "other:1 answers queries" in command("model", "use", "other").stdout
    status = json.loads(command("status", "--json").stdout)
    assert (status["model"], status["next_model"], status["next_states"]) == ("other:1", None, None)


def test_naming_the_present_model_calls_a_switch_off(
    command: Command, stores: Stores, tmp_path: Path
) -> None:
    keep(stores, tmp_path, make_object())
    other = stores.install(build_model(tmp_path / "b.onnx", name="other"))
    assert stores.use(other) == "next"
    assert "tiny:1 answers queries" in command("model", "use", "tiny").stdout
    assert [model.state for model in ModelRegistry(stores.catalog).all()] == ["active", "installed"]


def test_two_files_of_one_name_are_told_apart(
    command: Command, stores: Stores, tmp_path: Path
) -> None:
    done = command("model", "install", build_model(tmp_path / "b.onnx", seed=1))
    sha256 = stores.registry.all()[1].sha256[:12]
    assert "another file is installed as tiny:1 too" in done.stderr
    assert f"model use {sha256}" in done.stdout
    assert command("model", "use", sha256).exit_code == 0
    assert "names several models" in command("model", "use", "tiny").stderr


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("METHOD", "hamming", "the model in use has no hash code"),
        ("SPACE", "embedding.fc6", "the model in use has no vector space 'embedding.fc6'"),
    ],
)
def test_a_model_that_could_answer_no_query_as_configured_is_not_used(
    command: Command,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: str,
    problem: str,
) -> None:
    stores.install(build_model(tmp_path / "b.onnx", name="plain", bits=0))
    monkeypatch.setenv(f"CBMIR_SEARCH__{key}", value)
    done = command("model", "use", "plain")
    assert done.exit_code == 1
    assert problem in done.stderr
    assert "plain:1 would answer no query" in done.stderr
    assert [model.state for model in stores.registry.all()] == ["active", "installed"]
