"""Frames → network → what the catalogue keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbmir_node.catalog.vectors.rows import FrameVectors
from cbmir_node.embedding.session import EmbeddingModel, Embeddings
from cbmir_node.imaging.network_frames import NetworkInputFrame


def frame_vectors(
    frames: Sequence[NetworkInputFrame], network: EmbeddingModel
) -> list[FrameVectors]:
    """Embed frames in the order given.

    Raises
    ------
    ModelError
        The network returned values that are no numbers.
    """
    embeddings = network.embed(np.stack([frame.values for frame in frames]))
    return described_frames(frames, embeddings, network.description.labels)


def described_frames(
    frames: Sequence[NetworkInputFrame], embeddings: Embeddings, labels: Sequence[str]
) -> list[FrameVectors]:
    """Cut what a network says of frames into what is kept of each."""
    described = []
    for row, frame in enumerate(frames):
        label, probability = None, None
        if embeddings.probabilities is not None:
            best = int(np.argmax(embeddings.probabilities[row]))
            label = labels[best]
            probability = float(embeddings.probabilities[row, best])
        described.append(
            FrameVectors(
                frame_number=frame.frame_number,
                spaces={name: matrix[row] for name, matrix in embeddings.spaces.items()},
                code=None if embeddings.codes is None else embeddings.codes[row].tobytes(),
                label=label,
                probability=probability,
            )
        )
    return described
