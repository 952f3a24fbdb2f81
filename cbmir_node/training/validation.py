"""How a network does on the images held out from training, after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS
from cbmir_node.evaluation.metrics import LabelledVectors, retrieval_scores
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import to_input
from cbmir_node.training.manifest import LabelledImage
from cbmir_node.training.recipe import ContractNetwork


@dataclass(frozen=True)
class Validation:
    """Scores of the validation images.

    Attributes
    ----------
    mean_average_precision : float
        By the cosine of ``embedding``, images asking the other patients', macro over classes.
    accuracy : float
        Share of images whose highest logit is their label's.
    different_codes : int
        How many codes the images fall on: a hash can collapse to one per class.
    """

    mean_average_precision: float
    accuracy: float
    different_codes: int


def compute_outputs(
    network: ContractNetwork, pictures: npt.NDArray[np.uint8], preprocessing: Preprocessing
) -> dict[str, npt.NDArray[np.float32]]:
    """Return every output for pictures prepared by `load_pictures`."""
    network.eval()
    with torch.no_grad():
        batches = [
            network(to_input(batch, preprocessing))
            for batch in torch.from_numpy(pictures).split(64)
        ]
    parts = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return dict(zip(network.output_names, parts, strict=True))


def validate(
    network: ContractNetwork,
    pictures: npt.NDArray[np.uint8],
    images: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
) -> Validation:
    """Score a network with the outputs ``embedding``, ``logits`` and ``code``."""
    outputs = compute_outputs(network, pictures, preprocessing)
    labels = np.array([image.label for image in images])
    vectors = outputs[EMBEDDING]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    patients = np.array([image.patient_id for image in images])
    # An all-zero vector is similar to nothing.
    items = LabelledVectors(vectors / np.maximum(lengths, 1e-12), labels, patients)
    predicted = np.array(vocabulary.labels)[outputs[LOGITS].argmax(axis=1)]
    return Validation(
        retrieval_scores(items, items).mean_average_precision,
        float(np.mean(predicted == labels)),
        len(np.unique(np.packbits(outputs[CODE] > 0, axis=1), axis=0)),
    )
