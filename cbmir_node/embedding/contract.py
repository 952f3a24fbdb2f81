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
of its bytes. All weights are inside the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbmir_node.embedding.metadata import (
    CONTRACT_VERSION,
    METADATA_KEYS,
    Breach,
    label_breaches,
    metadata_breaches,
    preprocessing_breaches,
    text_breaches,
)
from cbmir_node.errors import ModelError
from cbmir_node.imaging.network_input import Preprocessing

__all__ = [
    "CODE",
    "CONTRACT_VERSION",
    "EMBEDDING",
    "INPUT",
    "LOGITS",
    "METADATA_KEYS",
    "SALIENCY",
    "Breach",
    "ModelDescription",
    "breaches_of",
    "describe",
    "file_sha256",
    "refusal",
]

INPUT = "image"
EMBEDDING = "embedding"
LOGITS = "logits"
CODE = "code"
SALIENCY = "saliency"

_FLOAT32 = "tensor(float)"

Shapes = Mapping[str, Sequence[object]]
"""Name to shape; dimensions without a fixed size are strings or None."""


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
    inputs: Shapes,
    outputs: Shapes,
    metadata: Mapping[str, str],
    types: Mapping[str, str] | None = None,
) -> ModelDescription:
    """Check a model against the contract.

    Parameters
    ----------
    sha256 : str
        Digest of the file.
    inputs, outputs : mapping of str to sequence
        Name to shape; symbolic dimensions are strings.
    metadata : mapping of str to str
        ``metadata_props`` of the file.
    types : mapping of str to str, optional
        Name of an input or output to its type in ONNX Runtime's words; float32 where left out.

    Raises
    ------
    ModelError
        Lists everything that is missing or wrong at once, and how to mend it.
    """
    breaches = breaches_of(inputs, outputs, metadata, types)
    if breaches:
        raise ModelError(refusal(breaches))
    return ModelDescription(
        sha256=sha256,
        name=metadata["cbmir.name"],
        version=metadata["cbmir.version"],
        training_data=metadata["cbmir.training_data"],
        preprocessing=Preprocessing.from_json(metadata["cbmir.preprocessing"]),
        labels=tuple(json.loads(metadata.get("cbmir.labels", "[]"))) if LOGITS in outputs else (),
        spaces={name: _width(shape) for name, shape in outputs.items() if _is_space(name)},
        code_bits=_width(outputs[CODE]) if CODE in outputs else 0,
        has_saliency=SALIENCY in outputs,
    )


def refusal(breaches: Sequence[Breach]) -> str:
    """Return the text that lists what is wrong with a model."""
    return "the model breaks the contract:\n  " + "\n  ".join(map(str, breaches))


def breaches_of(
    inputs: Shapes,
    outputs: Shapes,
    metadata: Mapping[str, str],
    types: Mapping[str, str] | None = None,
) -> list[Breach]:
    """Return everything in which a file's declarations break the contract; see `describe`."""
    types = types or {}
    return [
        *_input_breaches(inputs, metadata),
        *_output_breaches(outputs),
        *text_breaches("the output", filter(_is_space, outputs)),
        *(
            _type_breach(name, types[name])
            for name in (*inputs, *outputs)
            if types.get(name, _FLOAT32) != _FLOAT32 and (name == INPUT or _is_known(name))
        ),
        *metadata_breaches(metadata),
        *(label_breaches(metadata, _width(outputs[LOGITS])) if LOGITS in outputs else []),
    ]


def _is_space(name: str) -> bool:
    return name == EMBEDDING or name.startswith(f"{EMBEDDING}.")


def _is_known(name: str) -> bool:
    return _is_space(name) or name in (LOGITS, CODE, SALIENCY)


def _width(shape: Sequence[object]) -> int:
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0


def _shown(shape: Sequence[object]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _type_breach(name: str, kind: str) -> Breach:
    return Breach(
        f"{name!r} is {kind.removeprefix('tensor(').removesuffix(')')}, not float32",
        "export the network in float32 (PyTorch: model.float() before torch.onnx.export), or keep "
        "its inside as it is and add a Cast to and from float32 at its input and outputs",
    )


def _input_breaches(inputs: Shapes, metadata: Mapping[str, str]) -> list[Breach]:
    breaches = []
    if list(inputs) != [INPUT]:
        given = ", ".join(f"{name} {_shown(shape)}" for name, shape in inputs.items()) or "none"
        breaches.append(
            Breach(
                f"the only input must be {INPUT!r}, not {given}",
                "export with input_names=['image']"
                if len(inputs) == 1
                else "wrap the network so that it takes the picture alone and everything else is a "
                "constant inside it; export with input_names=['image']",
            )
        )
    shape = inputs.get(INPUT, next(iter(inputs.values())) if len(inputs) == 1 else None)
    if shape is None:
        return breaches
    if len(shape) != 4:
        return [
            *breaches,
            Breach(
                f"input {INPUT!r} must be [N, C, H, W], not {_shown(shape)}",
                "one picture per vector, channels first: a network for volumes or flat pixels "
                "needs a wrapper that makes its input from [N, C, H, W]",
            ),
        ]
    if isinstance(shape[0], int):
        breaches.append(
            Breach(
                f"the batch dimension must be dynamic, but it is {shape[0]}",
                "export with dynamic_shapes={'image': {0: torch.export.Dim('batch')}} and an "
                "example of two pictures (the exporter takes a batch of one for a constant)",
            )
        )
    return [*breaches, *_size_breaches(shape, metadata.get("cbmir.preprocessing", ""))]


def _size_breaches(shape: Sequence[object], preprocessing: str) -> list[Breach]:
    """Compare [N, C, H, W] with the preprocessing."""
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        return [
            Breach(
                f"input {_shown(shape)} has its channels last, as TensorFlow does",
                "convert with tf2onnx --inputs-as-nchw, or begin the network with a transpose from "
                "[N, C, H, W]",
            )
        ]
    if not preprocessing or preprocessing_breaches(preprocessing):
        return []
    wanted = Preprocessing.from_json(preprocessing)
    expected = {"channels": wanted.channels, "height": wanted.height, "width": wanted.width}
    return [
        Breach(
            f"input {_shown(shape)} and preprocessing disagree: {actual} != {value} ({name})",
            f"set {name} of 'cbmir.preprocessing' to {actual}, or export with an example of "
            f"{name} {value}",
        )
        for (name, value), actual in zip(expected.items(), shape[1:], strict=True)
        if isinstance(actual, int) and actual != value
    ]


def _output_breaches(outputs: Shapes) -> list[Breach]:
    breaches = []
    if EMBEDDING not in outputs:
        given = ", ".join(f"{name} {_shown(shape)}" for name, shape in outputs.items())
        breaches.append(
            Breach(
                f"there is no output {EMBEDDING!r}, only {given or 'none'}",
                "return the vector to be searched (the pooled features before the classifier) and "
                "name it: output_names=['embedding', ...]",
            )
        )
    for name, shape in outputs.items():
        if (_is_space(name) or name in (LOGITS, CODE)) and (len(shape) != 2 or not _width(shape)):
            breaches.append(_vector_breach(name, shape))
    if CODE in outputs and _width(outputs[CODE]) % 8:
        breaches.append(
            Breach(
                f"output {CODE!r} must have a multiple of 8 bits, not {_width(outputs[CODE])}",
                "change the width of the hash layer: sign bits are stored eight to a byte",
            )
        )
    saliency = outputs.get(SALIENCY, [0, 1, 0, 0])
    if len(saliency) != 4 or (isinstance(saliency[1], int) and saliency[1] != 1):
        breaches.append(
            Breach(
                f"output {SALIENCY!r} must be [N, 1, h, w], not {_shown(saliency)}",
                "average or take the maximum over its channels, keeping the dimension",
            )
        )
    return breaches


def _vector_breach(name: str, shape: Sequence[object]) -> Breach:
    if len(shape) == 4:
        remedy = "pool over height and width and flatten: x.mean((2, 3))"
    elif len(shape) == 3:
        remedy = "take one vector of the sequence, or its mean: x.mean(1)"
    else:
        remedy = "one vector per picture, its length known at export (no dynamic second dimension)"
    return Breach(f"output {name!r} must be [N, fixed length], not {_shown(shape)}", remedy)
