"""From a manifest to an ONNX file that the node accepts, on a tiny network."""
# ruff: noqa: E402 - the imports below need PyTorch

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs: pip install 'cbmir-node[train]'")
pytest.importorskip("onnxscript", reason="export needs: pip install 'cbmir-node[train]'")

import onnx
from click.testing import CliRunner

from cbmir_node.cli import main
from cbmir_node.embedding.contract import describe, file_sha256
from cbmir_node.embedding.providers import create_session
from cbmir_node.errors import ConfigurationError, ModelError
from cbmir_node.imaging.network_input import network_input
from cbmir_node.training.checkpoint import load_checkpoint
from cbmir_node.training.export import check_agreement, export_onnx
from cbmir_node.training.finishing import build_two_grains, two_grain_preprocessing
from cbmir_node.training.loop import train
from cbmir_node.training.manifest import read_manifest, read_picture
from cbmir_node.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=2, size=64, batch_size=16, seed=7, init="random", width=0.25)


@pytest.fixture(scope="module")
def trained(manifest, tmp_path_factory):
    reports = []
    checkpoint = train(manifest, tmp_path_factory.mktemp("run"), SETTINGS, report=reports.append)
    return checkpoint, reports


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Export by command, once: translating a network takes the longest here."""
    path = tmp_path_factory.mktemp("onnx") / "new folder" / "tiny.onnx"
    arguments = [str(trained[0]), "-o", str(path), "--name", "tiny", "--version", "3"]
    result = CliRunner().invoke(main, ["export", *arguments, "--training-data", "Patterns."])
    assert result.exit_code == 0, result.output
    return path, result.output


def test_every_epoch_is_reported(trained):
    _, reports = trained
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 2), (2, 2)]
    assert all(report.loss > 0 for report in reports)
    assert all(0 < report.validation.mean_average_precision <= 1 for report in reports)
    assert all(0 <= report.validation.accuracy <= 1 for report in reports)


class _KilledError(Exception):
    pass


def test_an_interrupted_run_ends_like_an_uninterrupted_one(manifest, trained, tmp_path):
    def kill(report):
        raise _KilledError

    with pytest.raises(_KilledError):
        train(manifest, tmp_path, SETTINGS, report=kill)
    reports = []
    resumed = train(manifest, tmp_path, SETTINGS, report=reports.append)
    assert [report.epoch for report in reports] == [2]
    expected, actual = load_checkpoint(trained[0]).network, load_checkpoint(resumed).network
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_is_not_resumed_with_other_settings(manifest, trained):
    other = TrainingSettings(**{**vars(SETTINGS), "batch_size": 8})
    with pytest.raises(ConfigurationError, match=r"other batch_size.*--restart"):
        train(manifest, trained[0].parent, other)


def test_the_file_keeps_the_contract(exported):
    path, output = exported
    session = create_session(str(path), cuda=False)
    description = describe(
        file_sha256(path),
        {value.name: value.shape for value in session.get_inputs()},
        {value.name: value.shape for value in session.get_outputs()},
        session.get_modelmeta().custom_metadata_map,
    )
    assert (description.name, description.version) == ("tiny", "3")
    assert description.training_data == "Patterns."
    assert (description.dimension, description.code_bits) == (256 + 7 + 96, 128)
    assert description.has_saliency
    assert description.labels == ("bars", "boards", "discs", "stripes")
    assert description.preprocessing == two_grain_preprocessing(SETTINGS.size)
    assert description.sha256 in output


def test_the_file_names_no_folder_of_the_machine_that_made_it(exported):
    content = exported[0].read_bytes()
    assert not re.search(rb"\w{3,}\.py", content)  # the weights' own bytes may spell less
    assert str(Path(__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_through_onnx_runtime_are_those_of_pytorch(exported, trained, manifest, batch):
    pictures = [read_picture(image.file) for image in read_manifest(manifest, "test")[:batch]]
    inputs = np.stack([network_input(p, two_grain_preprocessing(SETTINGS.size)) for p in pictures])
    names = ["embedding", "logits", "code", "saliency"]
    actual = create_session(str(exported[0]), cuda=False).run(names, {"image": inputs})
    state = load_checkpoint(trained[0])
    network = build_two_grains(state.vocabulary, SETTINGS).eval()
    network.load_state_dict(state.network)
    with torch.no_grad():
        expected = network(torch.from_numpy(inputs))
    for ours, theirs in zip(expected, actual, strict=True):
        # the file holds the convolutions' weights in 16 bits
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(actual[0], axis=1), 1, atol=1e-5)


def test_an_export_that_computes_something_else_is_refused(exported, trained):
    state = load_checkpoint(trained[0])
    network = build_two_grains(state.vocabulary, SETTINGS)  # untrained: other weights
    with pytest.raises(ModelError, match="differs between PyTorch and ONNX Runtime"):
        check_agreement(network, onnx.load(exported[0]), two_grain_preprocessing(64))


def test_command_line_trains_and_says_what_comes_next(manifest, tmp_path):
    arguments = [str(manifest), "--output", str(tmp_path), "--epochs", "1", "--size", "32"]
    arguments += ["--batch-size", "8", "--init", "random", "--ignore-findings", "bars"]
    result = CliRunner().invoke(main, ["train", *arguments])
    assert result.exit_code == 0, result.output
    assert "epoch 1/1" in result.output
    assert f"cbmir-node export {tmp_path / 'finished.pt'}" in result.output
    findings = load_checkpoint(tmp_path / "checkpoint.pt").vocabulary.findings
    assert {label for label, _ in findings} == {"boards", "stripes"}


def test_an_unfinished_run_is_not_exported(trained, tmp_path):
    unfinished = trained[0].with_name("checkpoint.pt")
    with pytest.raises(ConfigurationError, match="let `cbmir-node train` end"):
        export_onnx(unfinished, tmp_path / "x.onnx", name="x", version="1", training_data="x")


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match=r"checkpoint\.pt is not a checkpoint"):
        load_checkpoint(file)


def test_without_pytorch_the_extra_is_named(manifest, tmp_path, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("cbmir_node.training.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(main, ["train", str(manifest), "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "package torch: pip install 'cbmir-node[train]'" in result.stderr
