"""The folder of installed models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import helper

from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding.contract import file_sha256
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import ModelStore
from cbmir_node.errors import ModelError
from tests.models import build_model


def test_an_installed_model_is_a_copy_under_its_digest(tmp_path):
    store = ModelStore(tmp_path / "data" / "models")
    assert store.installed() == []
    source = build_model(tmp_path / "m.onnx")
    description = store.install(source)
    assert store.install(source) == description
    source.unlink()
    path = store.path(description.sha256)
    assert file_sha256(path) == description.sha256 == path.stem
    assert store.installed() == [description.sha256]
    loaded = EmbeddingModel.load(path, EmbeddingSettings(provider="cpu"))
    assert loaded.description == description
    assert list(path.parent.iterdir()) == [path]


def test_models_that_differ_live_side_by_side(tmp_path):
    store = ModelStore(tmp_path / "models")
    first = store.install(build_model(tmp_path / "a.onnx", seed=1))
    second = store.install(build_model(tmp_path / "b.onnx", seed=2))
    assert first.sha256 != second.sha256
    assert store.installed() == sorted([first.sha256, second.sha256])


def test_a_refused_model_leaves_nothing(tmp_path):
    store = ModelStore(tmp_path / "models")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        store.install(bad)
    assert store.installed() == []


def test_a_network_that_does_not_deliver_what_it_declares_is_refused(tmp_path):
    path = build_model(tmp_path / "m.onnx", classes=0, bits=0, saliency=False)
    model = onnx.load(path)
    product = model.graph.node[-1]
    product.output[0] = "vectors"
    model.graph.node.append(helper.make_node("Log", ["vectors"], ["embedding"]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="non-finite 'embedding'"):
        ModelStore(tmp_path / "models").install(path)


@pytest.mark.parametrize("sha256", ["0" * 64, "../../etc/passwd", ""])
def test_a_model_that_is_not_installed(tmp_path, sha256):
    with pytest.raises(ModelError, match="model install"):
        ModelStore(tmp_path).path(sha256)


def test_an_unwritable_folder_is_named(tmp_path):
    blocked = tmp_path / "models"
    blocked.write_text("a file in the way")
    with pytest.raises(ModelError, match=f"into {blocked}"):
        ModelStore(blocked).install(build_model(tmp_path / "m.onnx"))


def test_the_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """ONNX Runtime writes what it would send to its maker into the user's cache folder."""
    code = (
        "from cbmir_node.config import EmbeddingSettings\n"
        "from cbmir_node.embedding.session import EmbeddingModel\n"
        "from cbmir_node.embedding.store import shipped_model\n"
        "EmbeddingModel.load(shipped_model(), EmbeddingSettings(provider='cpu'))\n"
    )
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    subprocess.run(
        [sys.executable, "-B", "-c", code], env={**variables, "HOME": str(tmp_path)}, check=True
    )
    assert list(tmp_path.rglob("*")) == []
