"""From a checkpoint to an ONNX file that a node can install."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from cbmir_node.embedding.contract import (
    CODE,
    CONTRACT_VERSION,
    EMBEDDING,
    INPUT,
    LOGITS,
    ModelDescription,
    describe,
    file_sha256,
)
from cbmir_node.embedding.providers import create_session
from cbmir_node.errors import ModelError
from cbmir_node.training.checkpoint import load_checkpoint
from cbmir_node.training.loop import build_network
from cbmir_node.training.settings import preprocessing_for

OPSET = 18
"""Understood by every ONNX Runtime since 1.14."""


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
        Stored in the file, see `cbmir_node.embedding.contract.METADATA_KEYS`.

    Returns
    -------
    ModelDescription
        What a node will read from the file.

    Raises
    ------
    ConfigurationError
        If the checkpoint cannot be read.
    ModelError
        If the result breaks the contract, or ONNX Runtime computes something else than PyTorch.
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    state = load_checkpoint(checkpoint)
    network = build_network(state.vocabulary, state.settings["width"])
    network.load_state_dict(state.network)
    preprocessing = preprocessing_for(state.settings["size"])
    model = to_onnx(network, state.settings["size"])
    check_agreement(network, model, state.settings["size"])
    onnx.helper.set_model_props(
        model,
        {
            "cbmir.contract": CONTRACT_VERSION,
            "cbmir.name": name,
            "cbmir.version": version,
            "cbmir.preprocessing": preprocessing.to_json(),
            "cbmir.labels": json.dumps(state.vocabulary.labels),
            "cbmir.training_data": training_data,
        },
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")
    onnx.save(model, temporary)
    description = _describe_file(temporary, model)
    temporary.replace(output)
    return description


def to_onnx(network: torch.nn.Module, size: int) -> onnx.ModelProto:
    """Translate a network with any batch size and a fixed picture size."""
    network.eval()
    # Two pictures, because the exporter takes a batch of one for a constant.
    example = torch.zeros(2, 3, size, size)
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
            output_names=[EMBEDDING, LOGITS, CODE],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: they name folders of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for weight in graph.initializer:
        del weight.metadata_props[:]
    return model


def check_agreement(network: torch.nn.Module, model: onnx.ModelProto, size: int) -> None:
    """Compare PyTorch and ONNX Runtime on noise, in a batch of another size than the example's.

    Raises
    ------
    ModelError
        If an output differs by more than 0.001 of its largest value.
    """
    noise = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network.eval()
    with torch.no_grad():
        expected = [output.numpy() for output in network(noise)]
    session = create_session(model.SerializeToString(), cuda=False)
    actual = session.run([EMBEDDING, LOGITS, CODE], {INPUT: noise.numpy()})
    for name, ours, theirs in zip((EMBEDDING, LOGITS, CODE), expected, actual, strict=True):
        difference = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not difference < 1e-3:
            raise ModelError(
                f"output {name!r} differs between PyTorch and ONNX Runtime by {difference:.2g} of "
                "its largest value; update onnxscript and onnxruntime, then export again"
            )


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
