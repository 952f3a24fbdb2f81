"""Where a network looks, learned from what it loses when parts of a picture are covered.

Covering cells at random and watching the embedding gives each cell's worth (RISE, Petsiuk et al.,
BMVC 2018), but takes many passes for each picture. Here a linear map from the network's own
features of a cell to that worth is fitted once, so that a saliency map costs nothing more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cbmir_node.training.two_grains import STRIDE, TwoGrainNetwork

FloatArray = npt.NDArray[np.float64]

_MASKS = 20
"""Times that each picture is partly covered."""
_RIDGE = 0.01
"""Weight decay against the features' mean square."""


def fit_saliency(network: TwoGrainNetwork, image: Tensor, generator: torch.Generator) -> None:
    """Fit the saliency weights of a network that is otherwise complete.

    Parameters
    ----------
    network : TwoGrainNetwork
        Its ``saliency_weight`` and ``saliency_place`` are set.
    image : float32 [N, 3, H, W]
        Some 200 training pictures of all classes, as the network takes them.
    generator : torch.Generator
        Draws the masks.
    """
    with torch.no_grad():
        features, losses = _occluded(network, image, generator)
    penalty = _RIDGE * (features**2).sum() / features.shape[1] / _MASKS
    gram = features.T @ features + penalty * np.eye(features.shape[1])
    fitted = torch.from_numpy(np.linalg.solve(gram, features.T @ losses)).float()
    channels = len(network.saliency_weight)
    network.saliency_weight.copy_(fitted[:channels])
    network.saliency_place.copy_(fitted[channels:].reshape(network.saliency_place.shape))


def _occluded(
    network: TwoGrainNetwork, image: Tensor, generator: torch.Generator
) -> tuple[FloatArray, FloatArray]:
    """Cover every picture `_MASKS` times.

    Returns
    -------
    float64 [N * masks, D]
        Features of the covered cells, summed: what they hold and where they are.
    float64 [N * masks]
        By how much the cosine to the whole picture's embedding fell.
    """
    fine, coarse, whole = _look(network, image)
    cells = network.saliency_features(fine, coarse, whole).flatten(2)
    count, _, places = cells.shape
    described = torch.cat([cells, torch.eye(places).expand(count, places, places)], dim=1)
    sums, losses = [], []
    for _ in range(_MASKS):
        mask = _masks(count, fine.shape[-1], generator)
        embedding = _look(network, _covered(image, mask))[2]
        losses.append(1 - (embedding * whole).sum(dim=1))
        sums.append((described * mask.flatten(1)[:, None]).sum(dim=2))
    return torch.cat(sums).double().numpy(), torch.cat(losses).double().numpy()


def _look(network: TwoGrainNetwork, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class eye's two maps and its embedding."""
    parts = []
    for batch in image.split(32):
        fine, coarse = network.class_maps(batch)
        embedding = network.class_eye.embed_features(coarse.mean(dim=(2, 3)))
        parts.append((fine, coarse, embedding))
    fine, coarse, embedding = (torch.cat(part) for part in zip(*parts, strict=True))
    return fine, coarse, embedding


def _masks(count: int, grid: int, generator: torch.Generator) -> Tensor:
    """Draw which cells are covered [N, g, g]: a tenth to six tenths, in patches."""
    patches = torch.randn(count, 1, max(1, grid // 2), max(1, grid // 2), generator=generator)
    smooth = functional.interpolate(
        patches, size=(grid, grid), mode="bilinear", align_corners=False
    )[:, 0]
    values = (smooth + 0.4 * torch.randn(count, grid, grid, generator=generator)).flatten(1)
    share = 0.1 + 0.5 * torch.rand(count, generator=generator)
    order = values.argsort(dim=1, descending=True).argsort(dim=1)
    covered = order < (share * grid * grid).clamp_min(1)[:, None]
    return covered.reshape(count, grid, grid).float()


def _covered(image: Tensor, mask: Tensor) -> Tensor:
    """Replace the covered cells by each picture's mean colour."""
    pixels = mask.repeat_interleave(2 * STRIDE, dim=1).repeat_interleave(2 * STRIDE, dim=2)
    mean = image.mean(dim=(2, 3), keepdim=True)
    return torch.where(pixels[:, None] > 0, mean, image)
