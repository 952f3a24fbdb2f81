"""What keeps a file from being a model: each breach is named with its remedy, all at once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding import check
from cbmir_node.embedding.check import check_model
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import ModelStore, shipped_model
from cbmir_node.errors import ModelError
from tests.models import build_model

CPU = EmbeddingSettings(provider="cpu", threads=1)
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time one batch only."""
    monkeypatch.setattr(check, "_TIMED_S", 0.0)


def changed(path: Path, *changes: Change, **shape: object) -> Path:
    """Write a small model with something done to it."""
    model = onnx.load(build_model(path, **shape))
    for change in changes:
        change(model)
    onnx.save(model, path)
    return path


def metadata(**values: str | None) -> Change:
    """Replace entries ``cbmir.<key>``; None removes one."""

    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry.value for entry in model.metadata_props}
        entries |= {f"cbmir.{key}": value for key, value in values.items()}
        del model.metadata_props[:]
        helper.set_model_props(model, {k: v for k, v in entries.items() if v is not None})

    return change


def preprocessing(**values: object) -> Change:
    """Replace entries of the preprocessing; None removes one."""

    def change(model: onnx.ModelProto) -> None:
        entries = {entry.key: entry.value for entry in model.metadata_props}
        told = json.loads(entries["cbmir.preprocessing"]) | values
        told = {key: value for key, value in told.items() if value is not None}
        metadata(preprocessing=json.dumps(told))(model)

    return change


def rename(old: str, new: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            if value.name == old:
                value.name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def passed_through(output: str, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Change:
    """Put nodes, which lead from ``raw`` to ``done``, between an output and what computes it."""

    def change(model: onnx.ModelProto) -> None:
        (source,) = [node for node in model.graph.node if output in node.output]
        source.output[:] = ["raw"]
        for node in nodes:
            node.output[:] = [output if name == "done" else name for name in node.output]
            model.graph.node.append(node)
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))

    return change


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N"]))


def channels_last(model: onnx.ModelProto) -> None:
    """Take [N, H, W, C], as TensorFlow does."""
    pool = model.graph.node[0]
    pool.input[0] = "channels_first"
    transpose = helper.make_node("Transpose", ["image"], ["channels_first"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, transpose)
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 32, 32, 1])
    model.graph.input[0].CopyFrom(value)


def half_precision(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "single"
    model.graph.node.insert(
        0, helper.make_node("Cast", ["image"], ["single"], to=TensorProto.FLOAT)
    )
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def flat_pixels(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([-1, 1, 32, 32], np.int64), "picture")
    model.graph.initializer.append(shape)
    model.graph.node[0].input[0] = "picture_of"
    model.graph.node.insert(0, helper.make_node("Reshape", ["image", "picture"], ["picture_of"]))
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1024])
    model.graph.input[0].CopyFrom(value)


def unpooled(model: onnx.ModelProto) -> None:
    """Give the grid itself as a vector space."""
    model.graph.node.append(helper.make_node("Identity", ["grid"], ["embedding.grid"]))
    model.graph.output.append(
        helper.make_tensor_value_info("embedding.grid", TensorProto.FLOAT, ["N", 1, 8, 8])
    )


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        (metadata(contract=None), "lacks 'cbmir.contract'", "'cbmir.contract': '1'"),
        (metadata(contract="2"), "contract '2' is not '1'", "update cbmir-node"),
        (metadata(name=None), "lacks 'cbmir.name'", "set_model_props"),
        (metadata(name="my net"), "'cbmir.name' is 'my net'", "without spaces"),
        (metadata(version=""), "'cbmir.version' is ''", "letters, digits"),
        (metadata(name="n" * 64), "66 characters together", "64"),
        (metadata(training_data=None), "lacks 'cbmir.training_data'", "research only"),
        (metadata(training_data=" "), "'cbmir.training_data' is empty", "licence"),
        (metadata(preprocessing="{"), "is not JSON", '"mean": [127.5'),
        (metadata(preprocessing="[1]"), "is not a JSON object", '"mean": [127.5'),
        (metadata(labels=None), "'logits' needs metadata 'cbmir.labels'", "list of 4 class names"),
        (metadata(labels="A, B"), "'cbmir.labels' is not JSON", "list of 4 class names"),
        (metadata(labels='["A"]'), "1 labels for 4 logits", "in the order of the logits"),
        (metadata(labels='{"A": 1}'), "must be a list of strings", "list of 4 class names"),
        (metadata(labels='["A", "B", "A", " "]'), "more than once: ' ', 'A'", "its own name"),
        (metadata(labels=json.dumps(["A" * 65, "B", "C", "D"])), "more than 64", "shorten"),
        (metadata(labels=json.dumps(["A", "B\\C", "D", "E"])), "has a backslash", "DICOM LO"),
        (rename("code", "embedding.a\tb"), "a control character", "DICOM LO"),
        (preprocessing(mean=None, std=None), "lacks 'mean', 'std'", '"mean": [127.5'),
        (preprocessing(size=32), "unknown keys: 'size'", '"height": 224'),
        (preprocessing(height="32"), "height '32', which is no whole number", '"height": 224'),
        (preprocessing(mean=[float("nan")]), "no list of numbers", '"mean": [127.5'),
        (preprocessing(std=[0]), "std must be positive", '"std": [127.5'),
        (
            preprocessing(channels=3, mean=[0] * 3, std=[1] * 3),
            "preprocessing disagree: 1 != 3 (channels)",
            "export with an example of channels 3",
        ),
        (
            preprocessing(height=64),
            "32 != 64 (height)",
            "set height of 'cbmir.preprocessing' to 32",
        ),
        (rename("image", "pixels"), "only input must be 'image', not pixels [N, 1", "input_names"),
        (second_input, "not image [N, 1, 32, 32], mask [N]", "wrap the network"),
        (fixed_batch, "batch dimension must be dynamic, but it is 1", "dynamic_shapes"),
        (channels_last, "[N, 32, 32, 1] has its channels last", "--inputs-as-nchw"),
        (half_precision, "'image' is float16, not float32", "model.float()"),
        (flat_pixels, "must be [N, C, H, W], not [N, 1024]", "needs a wrapper"),
        (rename("embedding", "features"), "no output 'embedding', only features", "output_names"),
        (unpooled, "'embedding.grid' must be [N, fixed length], not [N, 1, 8, 8]", "mean((2, 3))"),
    ],
)
def test_a_breach_is_named_with_its_remedy(
    tmp_path: Path, change: Change, problem: str, remedy: str
) -> None:
    path = changed(tmp_path / "m.onnx", change)
    found = check_model(path)
    (breach,) = found.errors
    assert problem in breach.problem
    assert remedy in breach.remedy
    assert found.retrieval == {}
    with pytest.raises(ModelError) as refusal:
        EmbeddingModel.load(path, CPU)
    assert str(breach) in str(refusal.value)
    assert "m.onnx" in str(refusal.value)


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    path = changed(
        *(tmp_path / "m.onnx", metadata(name=None, labels="[]"), preprocessing(std=[-1])),
        *(fixed_batch, second_input),
        bits=12,
    )
    problems = [breach.problem for breach in check_model(path).errors]
    wanted = ["only input", "dynamic", "8 bits, not 12", "'cbmir.name'", "std must", "0 labels"]
    assert len(problems) == len(wanted)
    assert all(part in problem for part, problem in zip(wanted, problems, strict=True))


def external(path: Path) -> None:
    onnx.save(
        onnx.load(build_model(path)), path, save_as_external_data=True, location="w.data",
        size_threshold=1000,
    )  # fmt: skip


def external_without_data(path: Path) -> None:
    external(path)
    path.with_name("w.data").unlink()


def checkpoint(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")


def cut(path: Path) -> None:
    path.write_bytes(build_model(path).read_bytes()[:-100])


def newer(path: Path) -> None:
    model = onnx.load(build_model(path))
    model.opset_import[0].version = 99
    onnx.save(model, path)


def of_the_future(path: Path) -> None:
    model = onnx.load(build_model(path))
    model.ir_version = 99
    onnx.save(model, path)


def custom_layer(path: Path) -> None:
    model = onnx.load(build_model(path))
    model.graph.node[0].op_type = "DeformableAttention"
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("write", "problem", "remedy"),
    [
        (lambda path: path.write_bytes(b""), "is empty", "again"),
        (lambda path: path.write_bytes(b"hello"), "no ONNX, or the end is missing", "size"),
        (cut, "no ONNX, or the end is missing", "copy it again"),
        (checkpoint, "PyTorch checkpoint", "torch.onnx.export"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n"), "Keras", "tf2onnx"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html>"), "web page", "download"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com"), "LFS", "lfs pull"),
        (external, "weights lie in another file", "external_data=False"),
        (external_without_data, "weights lie in another file", "external_data=False"),
        (newer, "opset is newer", "opset_version=18"),
        (of_the_future, "IR version is newer", "ir_version = 10"),
        (custom_layer, "operator that ONNX Runtime does not have", "ordinary operators"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_explained(
    tmp_path: Path, write: Callable[[Path], object], problem: str, remedy: str
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    (breach,) = check_model(path).errors
    assert problem in breach.problem
    assert remedy in breach.remedy
    assert "/onnxruntime_src" not in breach.problem
    with pytest.raises(ModelError, match=r"m\.onnx") as refusal:
        EmbeddingModel.load(path, CPU)
    assert remedy in str(refusal.value)


def test_external_weights_do_not_hide_what_else_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find the weights by itself
    path = changed(tmp_path / "m.onnx", metadata(name=None))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=1000)
    first, second = check_model(path).errors
    assert "another file" in first.problem
    assert "'cbmir.name'" in second.problem


def _node(kind: str, *inputs: str, output: str = "done", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


VECTORS = {"classes": 0, "bits": 0, "saliency": False}


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        (passed_through("embedding", _node("Log", "raw")), "non-finite 'embedding'", "norm"),
        (
            passed_through(
                "embedding",
                _node("ReduceMean", "raw", "axis", output="middle"),
                _node("Sub", "raw", "middle"),
                axis=np.array([0], np.int64),
            ),
            "depends on its neighbours in the batch",
            "model.eval()",
        ),
        (
            passed_through(
                "embedding", _node("Reshape", "raw", "one"), one=np.array([1, -1], np.int64)
            ),
            "is declared [5, 32] but is [1, 160]",
            "x.flatten(1)",
        ),
        (
            passed_through(
                "embedding", _node("Reshape", "raw", "one"), one=np.array([1, 32], np.int64)
            ),
            "it runs on one picture, not on 5",
            "dynamic batch",
        ),
        (
            passed_through(
                "embedding",
                _node("Mul", "raw", "nothing", output="black"),
                _node("Add", "black", "same"),
                nothing=np.float32([0]),
                same=np.ones(32, np.float32),
            ),
            "the same for every picture",
            "weights were not loaded",
        ),
        (
            passed_through(
                "embedding",
                _node("RandomNormalLike", "raw", output="noise"),
                _node("Add", "raw", "noise"),
            ),
            "differs the second time",
            "dropout",
        ),
    ],
)
def test_a_network_that_misbehaves_is_not_installed(
    tmp_path: Path, change: Change, problem: str, remedy: str
) -> None:
    path = changed(tmp_path / "m.onnx", change, **VECTORS)
    (breach,) = check_model(path).errors
    assert problem in breach.problem
    assert remedy in breach.remedy
    store = ModelStore(tmp_path / "models")
    with pytest.raises(ModelError) as refusal:
        store.install(path)
    assert str(breach) in str(refusal.value)
    assert store.installed() == []


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        (
            passed_through("code", _node("Sigmoid", "raw")),
            "hash has collapsed: 16 of 16",
            "less 0.5",
        ),
        (
            passed_through("code", _node("Add", "raw", "much"), much=np.float32([1e3])),
            "hash has collapsed: 16 of 16 bits never change, 1 codes",
            "subtract each bit's mean",
        ),
        (passed_through("logits", _node("Softmax", "raw")), "probabilities already", "softmax"),
        (passed_through("logits", _node("Sigmoid", "raw")), "probabilities already", "sigmoid"),
        (
            passed_through("logits", _node("Mul", "raw", "none"), none=np.float32([0])),
            "do not tell classes apart",
            "leave logits out",
        ),
        (
            passed_through("saliency", _node("Mul", "raw", "none"), none=np.float32([0])),
            "map is the same everywhere",
            "leave the output out",
        ),
        (preprocessing(mean=[0.485], std=[0.229]), "like those for pixels of 0-1", "by 255"),
    ],
)
def test_what_is_hardly_meant_is_a_warning(
    tmp_path: Path, change: Change, problem: str, remedy: str
) -> None:
    found = check_model(changed(tmp_path / "m.onnx", change))
    assert found.errors == ()
    mentioned = [breach for breach in found.warnings if problem in breach.problem]
    assert len(mentioned) == 1, found
    assert remedy in mentioned[0].remedy


def test_an_output_the_node_does_not_know_is_named(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.onnx", rename("saliency", "attention"))
    (doubt,) = check_model(path).warnings
    assert "does not use the output attention" in doubt.problem


def test_a_good_model_is_described_and_measured(tmp_path: Path) -> None:
    found = check_model(build_model(tmp_path / "m.onnx", layers={"fc6": 12}))
    assert (found.errors, found.warnings) == ((), ())
    assert found.retrieval == {
        "cosine, euclidean": "embedding (32 values), embedding.fc6 (12 values)",
        "hamming": "16 bits",
        "by class": "4 classes",
        "saliency": "yes",
    }
    assert found.facts is not None
    assert found.facts["repeated"] == "the same values, alone and in a batch"
    assert "euclidean counts it" in found.facts["length of embedding"]
    assert "ms a picture" in found.facts["speed"]
    bare = check_model(build_model(tmp_path / "bare.onnx", **VECTORS))
    assert bare.retrieval["hamming"].startswith("no: ")
    assert bare.retrieval["by class"].startswith("no: ")


def test_the_shipped_model_has_no_fault() -> None:
    found = check_model(shipped_model())
    assert (found.errors, found.warnings) == ((), ())
