"""Networks through ONNX Runtime: what comes out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding import providers, session
from cbmir_node.embedding.contract import file_sha256
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import MissingPackageError, ModelError
from cbmir_node.index import exact
from tests.models import build_model

CPU = EmbeddingSettings(provider="cpu", batch_size=3, threads=1)


def pictures(count: int, channels: int = 1, size: int = 32) -> np.ndarray:
    random = np.random.default_rng(7)
    return random.standard_normal((count, channels, size, size)).astype(np.float32)


def test_a_model_describes_itself(tmp_path):
    path = build_model(tmp_path / "m.onnx", layers={"block4": 12}, name="net")
    model = EmbeddingModel.load(path, CPU)
    assert model.description.sha256 == file_sha256(path)
    assert model.description.spaces == {"embedding": 32, "embedding.block4": 12}
    assert model.description.labels == ("CLASS_0", "CLASS_1", "CLASS_2", "CLASS_3")
    assert (model.description.name, model.description.code_bits) == ("net", 16)
    assert model.description.has_saliency
    assert model.provider == "CPUExecutionProvider"


def test_the_batch_size_does_not_change_the_answer(tmp_path):
    path = build_model(tmp_path / "m.onnx", layers={"block4": 12})
    inputs = pictures(8)
    in_threes = EmbeddingModel.load(path, CPU).embed(inputs, saliency=True)
    at_once = EmbeddingModel.load(path, EmbeddingSettings(provider="cpu", batch_size=8)).embed(
        inputs, saliency=True
    )
    for name, width in (("embedding", 32), ("embedding.block4", 12)):
        assert in_threes.spaces[name].shape == (8, width)
        assert in_threes.spaces[name].dtype == np.float32
        np.testing.assert_allclose(in_threes.spaces[name], at_once.spaces[name], atol=1e-6)
    assert in_threes.saliency.shape == (8, 8, 8)


def test_probabilities_are_the_softmax_and_codes_the_sign_bits(tmp_path):
    path = build_model(tmp_path / "m.onnx")
    inputs = pictures(5)
    network = providers.create_session(str(path), cuda=False)
    logits, code = network.run(["logits", "code"], {"image": inputs})
    found = EmbeddingModel.load(path, CPU).embed(inputs)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)
    assert found.codes.shape == (5, 2)
    assert found.codes.dtype == np.uint8
    np.testing.assert_array_equal(np.unpackbits(found.codes, axis=1), code > 0)
    assert found.saliency is None


def test_softmax_survives_large_logits(tmp_path):
    path = build_model(tmp_path / "m.onnx")
    found = EmbeddingModel.load(path, CPU).embed(pictures(2) * 1e5)
    assert np.isfinite(found.probabilities).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_model_of_vectors_only_and_no_pictures(tmp_path):
    path = build_model(tmp_path / "m.onnx", classes=0, bits=0, saliency=False, channels=3)
    found = EmbeddingModel.load(path, CPU).embed(pictures(0, channels=3), saliency=True)
    assert found.spaces["embedding"].shape == (0, 32)
    assert found.probabilities is None
    assert found.codes is None
    assert found.saliency is None


def test_like_pictures_get_like_vectors(tmp_path):
    model = EmbeddingModel.load(build_model(tmp_path / "m.onnx"), CPU)
    first, other = pictures(2)
    vectors = model.embed(np.stack([first, first + 0.01, other])).spaces["embedding"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.99 > unit[0] @ unit[2]


def test_wrong_input_and_non_finite_vectors_are_model_errors(tmp_path):
    model = EmbeddingModel.load(build_model(tmp_path / "m.onnx"), CPU)
    with pytest.raises(ModelError, match="tiny failed"):
        model.embed(pictures(1, size=16))
    with pytest.raises(ModelError, match="non-finite 'embedding'"):
        model.embed(np.full((1, 1, 32, 32), np.nan, np.float32))


def test_vectors_that_no_index_takes_are_model_errors(tmp_path):
    model = EmbeddingModel.load(build_model(tmp_path / "m.onnx"), CPU)
    at_one = model.embed(pictures(1)).spaces["embedding"]
    scale = 1e15 / np.abs(at_one).max()
    assert model.embed(pictures(1) * np.float32(0.99 * scale)).spaces["embedding"].any()
    with pytest.raises(ModelError, match=r"'embedding' values, or some beyond ±1e\+15"):
        model.embed(pictures(1) * np.float32(1.01 * scale))
    assert session.LARGEST_VALUE == exact.LARGEST_VALUE  # two packages that know not each other


def test_a_file_that_is_no_model(tmp_path):
    whole = build_model(tmp_path / "whole.onnx").read_bytes()
    for name, content in (("text", b"hello"), ("empty", b""), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}\.onnx"):
            EmbeddingModel.load(path, CPU)
    with pytest.raises(ModelError, match="No such file"):
        EmbeddingModel.load(tmp_path / "absent.onnx", CPU)


def test_cuda_is_judged_by_what_loads(tmp_path):
    path = build_model(tmp_path / "m.onnx")
    loaded = providers.available_providers().loaded
    automatic = EmbeddingModel.load(path, EmbeddingSettings(provider="auto"))
    assert automatic.provider == loaded[0]
    if providers.CUDA in loaded:
        assert EmbeddingModel.load(path, EmbeddingSettings(provider="cuda")).provider == loaded[0]
    else:
        with pytest.raises(ModelError, match=r"'cuda'.*CPUExecutionProvider.*cbmir-node\[gpu\]"):
            EmbeddingModel.load(path, EmbeddingSettings(provider="cuda"))


def test_the_report_on_this_machine():
    report = providers.available_providers()
    assert report.problem == ""
    assert report.version in report.packages.values()
    assert report.loaded[-1] == "CPUExecutionProvider"
    assert set(report.loaded) <= set(report.compiled)


def test_both_runtimes_installed_is_named_as_the_conflict(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    report = providers.available_providers()
    assert "overwrite each other" in report.problem
    assert set(report.packages) == {"onnxruntime", "onnxruntime-gpu"}


def test_a_missing_runtime_names_the_extra(monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(MissingPackageError, match=r"cbmir-node\[cpu\].*cbmir-node\[gpu\]"):
        providers.onnxruntime()
    assert "cbmir-node[cpu]" in providers.available_providers().problem
