"""From a trained network to an ONNX file that a node can install."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from cbmir_node.embedding.contract import (
    CONTRACT_VERSION,
    INPUT,
    ModelDescription,
    describe,
    file_sha256,
)
from cbmir_node.embedding.providers import create_session
from cbmir_node.errors import ConfigurationError, ModelError
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import load_checkpoint
from cbmir_node.training.examples import to_input
from cbmir_node.training.imagenet import (
    IMAGENET_TRAINING_DATA,
    ImageNetFeatures,
    imagenet_preprocessing,
)
from cbmir_node.training.recipe import ContractNetwork
from cbmir_node.training.recipes import recipe_named

OPSET = 18
"""Understood by every ONNX Runtime since 1.14."""

_TOLERANCE = 1e-3
_HALVED_TOLERANCE = 0.1
"""16 bits carry three digits, and the noise of the check is so far from every picture that what is
left of some outputs is a high power of a distance."""

IMAGENET_NAME = "imagenet-efficientnet-lite0"


def export_onnx(
    checkpoint: Path, output: Path, *, name: str, version: str, training_data: str
) -> ModelDescription:
    """Write a checkpoint's network in the form `cbmir_node.embedding.contract` asks for.

    Parameters
    ----------
    checkpoint : Path
        Written by `cbmir_node.training.loop.train`.
    output : Path
        The ONNX file; replaced if it exists.
    name, version, training_data : str
        Stored in the file, see `cbmir_node.embedding.metadata.METADATA_KEYS`.

    Returns
    -------
    ModelDescription
        What a node will read from the file.

    Raises
    ------
    ConfigurationError
        If the checkpoint cannot be read, or its run has not ended.
    ModelError
        If the result breaks the contract, or ONNX Runtime computes something else than PyTorch.
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    state = load_checkpoint(checkpoint)
    recipe = recipe_named(state.settings.recipe)
    if recipe.finishing and not state.finished:
        raise ConfigurationError(
            f"{checkpoint} is an unfinished run: let `cbmir-node train` end, and export the "
            "checkpoint it names"
        )
    parts = recipe.finishing or recipe
    network = parts.build(state.vocabulary, state.settings)
    network.load_state_dict(state.network)
    preprocessing = parts.preprocessing(state.settings.size)
    about = {
        "cbmir.name": name,
        "cbmir.version": version,
        "cbmir.training_data": training_data,
        "cbmir.labels": json.dumps(state.vocabulary.labels),
    }
    return _write(network, preprocessing, about, output)


def export_imagenet(output: Path, size: int) -> ModelDescription:
    """Write EfficientNet-Lite0 with its ImageNet weights: the baseline that training has to beat.

    Parameters
    ----------
    output : Path
        The ONNX file; replaced if it exists.
    size : int
        Height and width of the input in pixels.

    Raises
    ------
    MissingPackageError
        If the weights or ONNX Runtime are not installed.
    """
    about = {
        "cbmir.name": IMAGENET_NAME,
        "cbmir.version": str(size),
        "cbmir.training_data": IMAGENET_TRAINING_DATA,
    }
    return _write(ImageNetFeatures(), imagenet_preprocessing(size), about, output)


def to_onnx(network: ContractNetwork, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Translate a network with any batch size and a fixed picture size."""
    network.eval()
    # Two pictures, because the exporter takes a batch of one for a constant.
    example = _noise(2, preprocessing)
    # It also mentions on every run that torchvision, which is not needed, is absent.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter warns about its own use of deprecated PyTorch calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=list(network.output_names),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return _without_traces(program.model_proto)


def halve_convolutions(model: onnx.ModelProto) -> None:
    """Store the weights of convolutions in 16 bits: half the file, in place.

    ONNX Runtime widens them once, when it loads the file; it still computes in 32 bits.
    """
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 4:
            values = onnx.numpy_helper.to_array(weight).astype(np.float16)
            half = onnx.numpy_helper.from_array(values, f"{weight.name}.half")
            to_float = {"to": onnx.TensorProto.FLOAT}
            casts.append(onnx.helper.make_node("Cast", [half.name], [weight.name], **to_float))
            weight.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def check_agreement(
    network: ContractNetwork,
    model: onnx.ModelProto,
    preprocessing: Preprocessing,
    tolerance: float = _TOLERANCE,
) -> None:
    """Compare PyTorch and ONNX Runtime on noise, in a batch of another size than the example's.

    Parameters
    ----------
    tolerance : float
        Largest difference allowed, as a share of an output's largest value.

    Raises
    ------
    ModelError
        If an output differs by more.
    """
    noise = _noise(3, preprocessing)
    network.eval()
    with torch.no_grad():
        expected = [output.numpy() for output in network(noise)]
    session = create_session(model.SerializeToString(), cuda=False)
    actual = session.run(list(network.output_names), {INPUT: noise.numpy()})
    for name, ours, theirs in zip(network.output_names, expected, actual, strict=True):
        largest = float(np.abs(ours).max()) or 1.0
        difference = float(np.abs(ours - theirs).max()) / largest
        if not difference < tolerance:
            raise ModelError(
                f"output {name!r} differs between PyTorch and ONNX Runtime by {difference:.2g} of "
                "its largest value; update onnxscript and onnxruntime, then export again"
            )


def _write(
    network: ContractNetwork, preprocessing: Preprocessing, about: dict[str, str], output: Path
) -> ModelDescription:
    model = to_onnx(network, preprocessing)
    check_agreement(network, model, preprocessing)
    halve_convolutions(model)
    check_agreement(network, model, preprocessing, _HALVED_TOLERANCE)
    fixed = {
        "cbmir.contract": CONTRACT_VERSION,
        "cbmir.preprocessing": preprocessing.to_json(),
    }
    onnx.helper.set_model_props(model, fixed | about)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")
    onnx.save(model, temporary)
    description = _describe_file(temporary, model)
    temporary.replace(output)
    return description


def _noise(count: int, preprocessing: Preprocessing) -> Tensor:
    shape = (count, preprocessing.channels, preprocessing.height, preprocessing.width)
    levels = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255
    return to_input(levels, preprocessing).contiguous()


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: they name folders of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for weight in graph.initializer:
        del weight.metadata_props[:]
    return model


def _describe_file(path: Path, model: onnx.ModelProto) -> ModelDescription:
    return describe(
        file_sha256(path),
        {value.name: _shape(value) for value in model.graph.input},
        {value.name: _shape(value) for value in model.graph.output},
        {entry.key: entry.value for entry in model.metadata_props},
    )


def _shape(value: onnx.ValueInfoProto) -> list[object]:
    return [
        dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim
    ]
