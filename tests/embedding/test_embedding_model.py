"""Networks through ONNX Runtime: what comes out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

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


def _metadata(key: str, value: str | None) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry.value for entry in model.metadata_props}
        entries.pop(key)
        del model.metadata_props[:]
        helper.set_model_props(model, entries | ({} if value is None else {key: value}))

    return change


def _preprocessing(**changes: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry.value for entry in model.metadata_props}
        values = json.loads(entries["cbmir.preprocessing"]) | changes
        _metadata("cbmir.preprocessing", json.dumps(values))(model)

    return change


def _rename(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            if value.name == old:
                value.name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def _fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_metadata("cbmir.contract", None), "lacks 'cbmir.contract'"),
        (_metadata("cbmir.contract", "2"), "contract '2' is not '1'"),
        (_metadata("cbmir.name", None), "lacks 'cbmir.name'"),
        (_metadata("cbmir.training_data", None), "lacks 'cbmir.training_data'"),
        (_metadata("cbmir.preprocessing", "{"), "preprocessing metadata is invalid"),
        (_metadata("cbmir.labels", None), "'logits' needs metadata 'cbmir.labels'"),
        (_metadata("cbmir.labels", '["A"]'), "1 labels for 4 logits"),
        (_metadata("cbmir.labels", '{"A": 1}'), "must be a list of strings"),
        (_preprocessing(channels=3, mean=[0] * 3, std=[1] * 3), "preprocessing disagree: 1 != 3"),
        (_preprocessing(std=[0]), "std must be positive"),
        (_preprocessing(height=64), "32 != 64"),
        (_rename("image", "pixels"), "only input must be 'image', not pixels"),
        (_rename("embedding", "features"), "no output 'embedding'"),
        (_fixed_batch, "batch dimension must be dynamic"),
        (_second_input, "not image, mask"),
    ],
)
def test_a_breach_of_the_contract_is_named(tmp_path, change, message):
    path = build_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(ModelError) as refusal:
        EmbeddingModel.load(path, CPU)
    assert message in str(refusal.value)
    assert "m.onnx" in str(refusal.value)


def test_a_hash_that_fills_no_bytes_is_refused(tmp_path):
    with pytest.raises(ModelError, match="'code' must have a multiple of 8 bits"):
        EmbeddingModel.load(build_model(tmp_path / "m.onnx", bits=12), CPU)


def test_every_breach_is_told_at_once(tmp_path):
    path = build_model(tmp_path / "m.onnx", bits=12)
    model = onnx.load(path)
    _metadata("cbmir.name", None)(model)
    _fixed_batch(model)
    onnx.save(model, path)
    with pytest.raises(ModelError) as refusal:
        EmbeddingModel.load(path, CPU)
    assert str(refusal.value).count("\n  ") == 3
