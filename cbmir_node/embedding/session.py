"""A loaded network: batches of pictures in, vectors out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbmir_node.config import EmbeddingSettings
from cbmir_node.embedding import contract
from cbmir_node.embedding.contract import ModelDescription
from cbmir_node.embedding.load_failures import load_failure
from cbmir_node.embedding.providers import CUDA, create_session
from cbmir_node.errors import ModelError

LARGEST_VALUE = 1e15
"""Vectors with values beyond are refused: squared for a distance they leave float32's range."""

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """What a network says of N pictures.

    Attributes
    ----------
    spaces : dict of str to float32 [N, D]
        ``embedding`` and every ``embedding.<layer>``, as the network gives them.
    probabilities : float32 [N, K] or None
        Softmax of the logits, in the order of the model's labels.
    codes : uint8 [N, B / 8] or None
        Sign bits of the hash, eight to a byte, the first in the highest bit.
    saliency : float32 [N, h, w] or None
        Only when asked for.
    """

    spaces: dict[str, Float32Array]
    probabilities: Float32Array | None
    codes: npt.NDArray[np.uint8] | None
    saliency: Float32Array | None


class EmbeddingModel:
    """A network loaded by ONNX Runtime; build it with `load`.

    Attributes
    ----------
    description : ModelDescription
    provider : str
        What it really runs on, such as ``CUDAExecutionProvider``.
    """

    def __init__(self, session: Any, description: ModelDescription, batch_size: int) -> None:
        self.description = description
        self.provider: str = session.get_providers()[0]
        self._session = session
        self._batch_size = batch_size

    @classmethod
    def load(cls, path: Path, settings: EmbeddingSettings) -> EmbeddingModel:
        """Load an ONNX file and check it against the contract.

        Raises
        ------
        ModelError
            The file cannot be read or run, breaks the contract, or CUDA is demanded and does not
            load.
        MissingPackageError
            ONNX Runtime is not installed.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
        cuda = settings.provider != "cpu"
        try:
            session = _session(content, cuda=cuda, threads=settings.threads)
            description = contract.describe(
                hashlib.sha256(content).hexdigest(), **declarations(session)
            )
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        model = cls(session, description, settings.batch_size)
        if settings.provider == "cuda" and model.provider != CUDA:
            raise ModelError(
                f"embedding.provider is 'cuda', but the model loads on {model.provider} only: "
                "install 'cbmir-node[gpu]' and an NVIDIA driver (see `cbmir-node doctor`), or set "
                "embedding.provider to 'auto'"
            )
        return model

    def embed(self, inputs: Float32Array, *, saliency: bool = False) -> Embeddings:
        """Run the network over pictures, `batch_size` at a time.

        Parameters
        ----------
        inputs : float32 [N, C, H, W]
            As `network_input` makes them for this model.
        saliency : bool
            Ask for the saliency maps too, where the model has them.

        Raises
        ------
        ModelError
            The network fails, or gives a vector that is not finite or beyond `LARGEST_VALUE`.
        """
        wanted = self._outputs(saliency=saliency)
        batches = [self._run(wanted, batch) for batch in self._batches(inputs)]
        outputs = {
            name: np.concatenate([batch[position] for batch in batches])
            for position, name in enumerate(wanted)
        }
        spaces = {name: outputs[name] for name in self.description.spaces}
        for name, vectors in spaces.items():
            if not bool(np.all(np.abs(vectors) <= LARGEST_VALUE)):  # false for NaN as well
                raise ModelError(
                    f"the model {self.description.name} gives non-finite {name!r} values, or some "
                    f"beyond ±{LARGEST_VALUE:g}"
                )
        maps = outputs.get(contract.SALIENCY)
        return Embeddings(
            spaces=spaces,
            probabilities=_softmax(outputs.get(contract.LOGITS)),
            codes=_sign_bits(outputs.get(contract.CODE)),
            saliency=None if maps is None else maps[:, 0],
        )

    def outputs(self, batch: Float32Array) -> dict[str, Float32Array]:
        """Return all that the network gives for one batch, as it is.

        Parameters
        ----------
        batch : float32 [N, C, H, W]

        Raises
        ------
        ModelError
            The network fails.
        """
        wanted = self._outputs(saliency=True)
        return dict(zip(wanted, self._run(wanted, batch), strict=True))

    def _outputs(self, *, saliency: bool) -> list[str]:
        """Name only the outputs that are used, so that the runtime computes no others."""
        further = [contract.LOGITS, contract.CODE] + [contract.SALIENCY] * saliency
        declared = {node.name for node in self._session.get_outputs()}
        return [*self.description.spaces, *(name for name in further if name in declared)]

    def _batches(self, inputs: Float32Array) -> Iterator[Float32Array]:
        """Cut the inputs; no pictures still make one empty batch, which fixes the shapes."""
        for start in range(0, max(1, len(inputs)), self._batch_size):
            yield inputs[start : start + self._batch_size]

    def _run(self, wanted: list[str], batch: Float32Array) -> list[Float32Array]:
        try:
            outputs = self._session.run(wanted, {contract.INPUT: batch})
        except Exception as error:  # the runtime's own classes differ from release to release
            raise ModelError(f"the model {self.description.name} failed: {error}") from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]


def _session(content: bytes, *, cuda: bool, threads: int) -> Any:
    """Load a network; `ModelError` explains why it cannot be."""
    try:
        return create_session(content, cuda=cuda, threads=threads)
    except ModelError as error:
        raise ModelError(str(load_failure(content, str(error)))) from error


def declarations(session: Any) -> dict[str, Any]:
    """Return what a loaded file declares, as `contract.describe` takes it."""
    nodes = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        **{kind: {node.name: list(node.shape) for node in found} for kind, found in nodes.items()},
        "metadata": dict(session.get_modelmeta().custom_metadata_map),
        "types": {node.name: node.type for found in nodes.values() for node in found},
    }


def _softmax(logits: Float32Array | None) -> Float32Array | None:
    if logits is None:
        return None
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _sign_bits(codes: Float32Array | None) -> npt.NDArray[np.uint8] | None:
    return None if codes is None else np.packbits(codes > 0, axis=1)
