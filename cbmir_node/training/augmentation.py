"""Random changes that must not change what a picture is similar to.

Each answers a difference between hospitals rather than between patients: another display window,
another matrix size, another field of view, burned-in text, noise. All run on whole batches, so
that the processor's time goes to the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Change every picture of a batch at random.

    Parameters
    ----------
    pictures : uint8 or float [N, C, H, W]
        Grey levels 0-255.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    float32 [N, C, H, W]
        Grey levels 0-255.
    """
    changed = pictures.float() / 255
    changed = _drop_colour(changed, generator)
    changed = _change_window(changed, generator)
    changed = _move(changed, generator)
    changed = _cover_corner(changed, generator)
    changed = _lose_resolution(changed, generator)
    changed = _add_noise(changed, generator)
    return changed.clamp(0, 1) * 255


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _chance(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def _drop_colour(pictures: Tensor, generator: torch.Generator) -> Tensor:
    chosen = _chance(len(pictures), 0.1, generator)[:, None, None, None]
    return torch.where(chosen, pictures.mean(dim=1, keepdim=True), pictures)


def _change_window(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Apply another centre and width, a gamma, and seldom inversion (MONOCHROME1 taken wrong)."""
    count = len(pictures)
    shape = (count, 1, 1, 1)
    centre = _uniform(count, 0.3, 0.7, generator).reshape(shape)
    width = _uniform(count, math.log(0.5), math.log(1.6), generator).exp().reshape(shape)
    gamma = _uniform(count, math.log(0.6), math.log(1.7), generator).exp().reshape(shape)
    windowed = ((pictures - centre) / width + 0.5).clamp(0, 1) ** gamma
    untouched = _chance(count, 0.15, generator).reshape(shape)
    inverted = _chance(count, 0.02, generator).reshape(shape)
    changed = torch.where(untouched, pictures, windowed)
    return torch.where(inverted, 1 - changed, changed)


def _move(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Crop or shrink, stretch, rotate and shift; mirror left and right now and then."""
    count = len(pictures)
    angle = _uniform(count, -12, 12, generator) * (math.pi / 180)
    zoom = _uniform(count, math.log(0.7), math.log(1.15), generator).exp()
    aspect = _uniform(count, math.log(0.87), math.log(1.15), generator).exp().sqrt()
    mirror = 1 - 2 * _chance(count, 0.2, generator).float()
    shift_x = _uniform(count, -0.12, 0.12, generator)
    shift_y = _uniform(count, -0.12, 0.12, generator)
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    matrix = torch.stack(
        [
            torch.stack([cosine * aspect * mirror, -sine * aspect, shift_x], dim=1),
            torch.stack([sine / aspect * mirror, cosine / aspect, shift_y], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def _cover_corner(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Paint a bar of one grey over a corner, where consoles burn in names and settings."""
    count, _, height, width = pictures.shape
    tall = _uniform(count, 0.05, 0.3, generator)
    wide = _uniform(count, 0.1, 0.5, generator)
    y = torch.linspace(0, 1, height).expand(count, height)
    x = torch.linspace(0, 1, width).expand(count, width)
    y = torch.where(_chance(count, 0.5, generator)[:, None], 1 - y, y)
    x = torch.where(_chance(count, 0.5, generator)[:, None], 1 - x, x)
    covered = (y < tall[:, None])[:, :, None] & (x < wide[:, None])[:, None, :]
    covered &= _chance(count, 0.3, generator)[:, None, None]
    grey = _uniform(count, 0, 1, generator) * _chance(count, 0.5, generator)
    return torch.where(covered[:, None], grey[:, None, None, None], pictures)


def _lose_resolution(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Bring a part of the batch down to about 64 pixels and up again.

    Sources differ in matrix size; without this a network learns the source.
    """
    height, width = pictures.shape[2:]
    changed = pictures.clone()
    chosen = _chance(len(pictures), 0.4, generator)
    # Two sizes per batch: half of the chosen at exactly 64, half around it.
    second = _chance(len(pictures), 0.5, generator)
    around = int(torch.randint(40, 97, (1,), generator=generator))
    for rows, longest in ((chosen & ~second, 64), (chosen & second, around)):
        scale = longest / max(height, width)
        if scale >= 1 or not rows.any():
            continue
        small = (max(1, round(height * scale)), max(1, round(width * scale)))
        reduced = functional.interpolate(
            pictures[rows], small, mode="bilinear", antialias=True, align_corners=False
        )
        changed[rows] = functional.interpolate(
            reduced, (height, width), mode="bilinear", align_corners=False
        )
    return changed


def _add_noise(pictures: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = pictures.shape
    strength = _uniform(count, 0, 0.04, generator) * _chance(count, 0.3, generator)
    noise = torch.randn(count, 1, height, width, generator=generator)
    return pictures + strength[:, None, None, None] * noise
