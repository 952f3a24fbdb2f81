"""Why the model finds what it finds: what it takes an image for, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.network_frames import NetworkInputFrame
from cbmir_node.presentation.decoding import decode_with
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.presentation.saliency import saliency_overlay

SHOWN_PREDICTIONS: Final = 5


class Prediction(NamedTuple):
    """A class and its probability in [0, 1]."""

    label: str
    probability: float


class Explanations:
    """Runs the active model over single frames; thread-safe.

    Parameters
    ----------
    network : ActiveNetwork
    decoders : DecoderPool
        Of the caller.

    Notes
    -----
    Both questions take the path of a DICOM file (`Pictures.path`, `TemporaryExample.path`) and a
    frame number from 1, and raise `SelectionError`, `NotKeptError`, `PixelError`,
    `DecoderUnavailableError` or `ModelError`.
    """

    def __init__(self, network: ActiveNetwork, decoders: DecoderPool) -> None:
        self._network = network
        self._decoders = decoders

    def predictions(self, path: Path, frame_number: int) -> list[Prediction]:
        """Return the most probable classes, best first; empty for a model without classes."""
        network = self._network.get()
        if not network.description.labels:
            return []
        frame = self._frame(path, frame_number, network)
        return best_predictions(
            network.embed(frame.values[np.newaxis]).probabilities, network.description.labels
        )

    def saliency(self, path: Path, frame_number: int) -> bytes | None:
        """Return a PNG overlay of the picture's aspect; None for a model without saliency."""
        network = self._network.get()
        if not network.description.has_saliency:
            return None
        frame = self._frame(path, frame_number, network)
        maps = network.embed(frame.values[np.newaxis], saliency=True).saliency
        if maps is None:
            return None
        return saliency_overlay(maps[0], frame.size, network.description.preprocessing)

    def _frame(self, path: Path, frame_number: int, network: EmbeddingModel) -> NetworkInputFrame:
        preprocessing = network.description.preprocessing
        return decode_with(
            self._decoders, lambda decoder: decoder.decode_frame(path, frame_number, preprocessing)
        )


def best_predictions(
    probabilities: npt.NDArray[np.float32] | None, labels: Sequence[str]
) -> list[Prediction]:
    """Return the most probable classes of an image, best first.

    Parameters
    ----------
    probabilities : float32 [N, K] or None
        Of its frames; their mean counts. None gives no predictions.
    labels : sequence of str
        K class names.
    """
    if probabilities is None:
        return []
    mean = probabilities.mean(axis=0)
    best = np.argsort(-mean, kind="stable")[:SHOWN_PREDICTIONS]
    return [Prediction(labels[row], float(mean[row])) for row in best]
