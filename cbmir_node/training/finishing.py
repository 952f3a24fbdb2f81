"""The default recipe's last step: give the trained class eye its companion and the fitted heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.appearance import fit_appearance
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.examples import to_input
from cbmir_node.training.finding_heads import fit_finding_heads, joint_entries
from cbmir_node.training.imagenet import imagenet_preprocessing, load_imagenet_weights
from cbmir_node.training.manifest import LabelledImage, load_pictures
from cbmir_node.training.network import RetrievalNetwork
from cbmir_node.training.occlusion import fit_saliency
from cbmir_node.training.settings import TrainingSettings
from cbmir_node.training.two_grains import APPEARANCE_LENGTH, TwoGrainNetwork

_OCCLUDED_PER_CLASS = 8


def two_grain_preprocessing(size: int) -> Preprocessing:
    """How pictures reach the finished network: at twice the class eye's size."""
    return imagenet_preprocessing(2 * size)


def build_two_grains(vocabulary: Vocabulary, settings: TrainingSettings) -> TwoGrainNetwork:
    """Return the unfinished network for a vocabulary."""
    number = {label: position for position, label in enumerate(vocabulary.labels)}
    return TwoGrainNetwork(
        labels=len(vocabulary.labels),
        label_of_joint=[number[label] for label, _ in joint_entries(vocabulary)],
        findings=len(vocabulary.findings),
        size=settings.size,
        width=settings.width,
    )


def finish(
    class_eye: RetrievalNetwork,
    images: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    settings: TrainingSettings,
) -> TwoGrainNetwork:
    """Fit everything but the class eye to the training images.

    Parameters
    ----------
    class_eye : RetrievalNetwork
        Trained.
    images : sequence of LabelledImage
        What it was trained on.

    Returns
    -------
    TwoGrainNetwork
        In evaluation mode.
    """
    torch.manual_seed(settings.seed)
    network = build_two_grains(vocabulary, settings)
    network.to(memory_format=torch.channels_last)  # the fastest on a CPU; in place
    network.class_eye.load_state_dict(class_eye.state_dict())
    if settings.init == "imagenet":
        load_imagenet_weights(network.finding_eye)
    network.eval()
    preprocessing = two_grain_preprocessing(settings.size)
    pictures = load_pictures(images, preprocessing)
    features, cells = _features(network, pictures, preprocessing)
    labels = np.array([image.label for image in images])
    findings = np.array([image.finding for image in images])
    _set_appearance(network, features, labels, vocabulary)
    weight, bias = fit_finding_heads(cells, labels, findings, joint_entries(vocabulary))
    network.finding_weight.copy_(torch.from_numpy(weight))
    network.finding_bias.copy_(torch.from_numpy(bias))
    chosen = _some_of_each(labels, np.random.default_rng(settings.seed))
    fit_saliency(
        network,
        to_input(torch.from_numpy(pictures[chosen]), preprocessing),
        torch.Generator().manual_seed(settings.seed),
    )
    return network


def _features(
    network: TwoGrainNetwork, pictures: npt.NDArray[np.uint8], preprocessing: Preprocessing
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what `TwoGrainNetwork.finding_features` gives for all pictures."""
    with torch.no_grad():
        parts = [
            network.finding_features(to_input(batch, preprocessing))
            for batch in torch.from_numpy(pictures).split(32)
        ]
    means, cells = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return means, cells


def _set_appearance(
    network: TwoGrainNetwork,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.str_],
    vocabulary: Vocabulary,
) -> None:
    fitted = fit_appearance(features, labels, vocabulary.labels, APPEARANCE_LENGTH)
    network.feature_mean.copy_(torch.from_numpy(fitted.mean))
    network.feature_scale.copy_(torch.from_numpy(fitted.scale))
    network.components.copy_(torch.from_numpy(fitted.components))
    network.whitening.copy_(torch.from_numpy(fitted.whitening))
    network.class_centres.copy_(torch.from_numpy(fitted.class_centres))
    network.farthest.fill_(fitted.farthest)


def _some_of_each(
    labels: npt.NDArray[np.str_], order: np.random.Generator
) -> npt.NDArray[np.int64]:
    chosen = [
        order.permutation(np.flatnonzero(labels == label))[:_OCCLUDED_PER_CLASS]
        for label in np.unique(labels)
    ]
    return np.concatenate(chosen)
