"""Small ONNX models that keep the model contract, for any test that needs a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cbmir_node.imaging.network_input import Preprocessing

GRID = 8


def build_model(
    path: Path,
    *,
    dimension: int = 32,
    classes: int = 4,
    bits: int = 16,
    size: int = 32,
    channels: int = 1,
    name: str = "tiny",
    seed: int = 0,
    saliency: bool = True,
    layers: dict[str, int] | None = None,
) -> Path:
    """Write a model that averages an 8 x 8 grid and projects it at random, and return `path`.

    The projection is linear, so like pictures get like vectors. Another `seed` or `name` makes
    another model. ``classes=0``, ``bits=0`` and ``saliency=False`` leave an output out; `layers`
    adds ``embedding.<layer>`` outputs of the given widths.
    """
    random = np.random.default_rng(seed)
    cells = channels * GRID * GRID
    cell = size // GRID
    nodes = [
        helper.make_node(
            "AveragePool", ["image"], ["grid"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Flatten", ["grid"], ["cells"]),
    ]
    weights = []
    outputs = []

    def project(source: str, width_in: int, output: str, width: int) -> None:
        matrix = random.standard_normal((width_in, width)).astype(np.float32) / np.sqrt(width_in)
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"{output}_weights"))
        nodes.append(helper.make_node("MatMul", [source, f"{output}_weights"], [output]))
        outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width]))

    project("cells", cells, "embedding", dimension)
    for layer, width in (layers or {}).items():
        project("cells", cells, f"embedding.{layer}", width)
    if classes:
        project("embedding", dimension, "logits", classes)
    if bits:
        project("embedding", dimension, "code", bits)
    if saliency:
        nodes.append(helper.make_node("ReduceMax", ["grid", "channel_axis"], ["saliency"]))
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "channel_axis"))
        outputs.append(
            helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ["N", 1, GRID, GRID])
        )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, size, size])
    graph = helper.make_graph(nodes, name, [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, _metadata(name, classes, size, channels))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _metadata(name: str, classes: int, size: int, channels: int) -> dict[str, str]:
    preprocessing = Preprocessing(
        size, size, channels, "stretch", (127.0,) * channels, (128.0,) * channels
    )
    metadata = {
        "cbmir.contract": "1",
        "cbmir.name": name,
        "cbmir.version": "1",
        "cbmir.preprocessing": preprocessing.to_json(),
        "cbmir.training_data": "none: random weights",
    }
    if classes:
        metadata["cbmir.labels"] = json.dumps([f"CLASS_{i}" for i in range(classes)])
    return metadata
