"""What an ONNX file must look like to be installed as a model.

===================== ===================== ====================================================
Input / output        Shape                 Meaning
===================== ===================== ====================================================
``image``             float32 [N, C, H, W]  pictures, prepared as `Preprocessing` says
``embedding``         float32 [N, D]        required: the vector that is searched
``logits``            float32 [N, K]        class scores before softmax, with ``cbmir.labels``
``code``              float32 [N, B]        hash; its sign bits are stored (B a multiple of 8)
``saliency``          float32 [N, 1, h, w]  where the network looked
``embedding.<layer>`` float32 [N, E]        further vector spaces, one per layer
===================== ===================== ====================================================

The file describes itself in ``metadata_props`` (see `METADATA_KEYS`); its identity is the SHA-256
of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cbmir_node.errors import ModelError
from cbmir_node.imaging.network_input import Preprocessing

INPUT = "image"
EMBEDDING = "embedding"
LOGITS = "logits"
CODE = "code"
SALIENCY = "saliency"
CONTRACT_VERSION = "1"

METADATA_KEYS = {
    "cbmir.contract": "version of this contract: 1",
    "cbmir.name": "short name, letters, digits, '.', '_' and '-'",
    "cbmir.version": "version of the model",
    "cbmir.preprocessing": "JSON of Preprocessing",
    "cbmir.labels": "JSON list of K class names, needed with a logits output",
    "cbmir.training_data": "one sentence on what it was trained on, and the licence that follows",
}
"""Keys of ``metadata_props``; all but ``cbmir.labels`` are required."""


@dataclass(frozen=True)
class ModelDescription:
    """What a model's file says of itself.

    Attributes
    ----------
    sha256 : str
        Identity: hex digest of the file's bytes.
    spaces : dict of str to int
        Output name to dimension, for ``embedding`` and every ``embedding.<layer>``.
    code_bits : int
        0 when the model has no hash.
    """

    sha256: str
    name: str
    version: str
    training_data: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    spaces: dict[str, int]
    code_bits: int
    has_saliency: bool

    @property
    def dimension(self) -> int:
        """Length of the ``embedding`` vectors."""
        return self.spaces[EMBEDDING]


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error


def describe(
    sha256: str,
    inputs: dict[str, list[object]],
    outputs: dict[str, list[object]],
    metadata: dict[str, str],
) -> ModelDescription:
    """Check a model against the contract.

    Parameters
    ----------
    sha256 : str
        Digest of the file.
    inputs, outputs : dict
        Name to shape; symbolic dimensions are strings.
    metadata : dict of str to str
        ``metadata_props`` of the file.

    Raises
    ------
    ModelError
        Lists everything that is missing or wrong at once.
    """
    problems = [
        f"metadata_props lacks {key!r} ({meaning})"
        for key, meaning in METADATA_KEYS.items()
        if key not in metadata and key != "cbmir.labels"
    ]
    if metadata.get("cbmir.contract", CONTRACT_VERSION) != CONTRACT_VERSION:
        problems.append(f"contract {metadata['cbmir.contract']!r} is not {CONTRACT_VERSION!r}")
    problems += _input_problems(inputs, metadata)
    problems += _output_problems(outputs, metadata)
    if problems:
        raise ModelError("the model breaks the contract:\n  " + "\n  ".join(problems))
    return ModelDescription(
        sha256=sha256,
        name=metadata["cbmir.name"],
        version=metadata["cbmir.version"],
        training_data=metadata["cbmir.training_data"],
        preprocessing=Preprocessing.from_json(metadata["cbmir.preprocessing"]),
        labels=tuple(json.loads(metadata.get("cbmir.labels", "[]"))),
        spaces={name: _width(shape) for name, shape in outputs.items() if _is_space(name)},
        code_bits=_width(outputs[CODE]) if CODE in outputs else 0,
        has_saliency=SALIENCY in outputs,
    )


def _is_space(name: str) -> bool:
    return name == EMBEDDING or name.startswith(f"{EMBEDDING}.")


def _width(shape: list[object]) -> int:
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0


def _input_problems(inputs: dict[str, list[object]], metadata: dict[str, str]) -> list[str]:
    if list(inputs) != [INPUT]:
        return [f"the only input must be {INPUT!r}, not {', '.join(inputs) or 'none'}"]
    shape = inputs[INPUT]
    if len(shape) != 4:
        return [f"input {INPUT!r} must be [N, C, H, W], not {shape}"]
    problems = [] if not isinstance(shape[0], int) else ["the batch dimension must be dynamic"]
    if "cbmir.preprocessing" in metadata:
        try:
            wanted = Preprocessing.from_json(metadata["cbmir.preprocessing"])
        except ModelError as error:
            return [*problems, str(error)]
        for actual, value in zip(
            shape[1:], (wanted.channels, wanted.height, wanted.width), strict=True
        ):
            if isinstance(actual, int) and actual != value:
                problems.append(f"input {shape} and preprocessing disagree: {actual} != {value}")
    return problems


def _output_problems(outputs: dict[str, list[object]], metadata: dict[str, str]) -> list[str]:
    problems = []
    if EMBEDDING not in outputs:
        problems.append(f"there is no output {EMBEDDING!r}")
    for name, shape in outputs.items():
        if (_is_space(name) or name in (LOGITS, CODE)) and (len(shape) != 2 or not _width(shape)):
            problems.append(f"output {name!r} must be [N, fixed length], not {shape}")
    if CODE in outputs and _width(outputs[CODE]) % 8:
        problems.append(f"output {CODE!r} must have a multiple of 8 bits")
    if LOGITS in outputs:
        problems += _label_problems(outputs[LOGITS], metadata)
    return problems


def _label_problems(shape: list[object], metadata: dict[str, str]) -> list[str]:
    if "cbmir.labels" not in metadata:
        return ["output 'logits' needs metadata 'cbmir.labels'"]
    try:
        labels = json.loads(metadata["cbmir.labels"])
    except ValueError as error:
        return [f"metadata 'cbmir.labels' is not JSON: {error}"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return ["metadata 'cbmir.labels' must be a list of strings"]
    if len(labels) != _width(shape):
        return [f"{len(labels)} labels for {_width(shape)} logits"]
    return []
