"""ResNet-18 (He et al., CVPR 2016, table 1) without its classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from cbmir_node.training.recipes.classifier import scaled

_GROUPS = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and first stride; two blocks each."""


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3 around which the input passes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residue = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        return functional.relu(self.residue(features) + self.shortcut(features))


class ResNet18(nn.Module):
    """Pictures to pooled features.

    Parameters
    ----------
    width : float
        Factor on the channels; 1 is ResNet-18.

    Attributes
    ----------
    features : int
        Length D of the vectors, 512 at width 1.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        inputs = scaled(_GROUPS[0][0], width)
        layers: list[nn.Module] = [
            nn.Conv2d(3, inputs, 7, 2, 3, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        for channels, stride in _GROUPS:
            outputs = scaled(channels, width)
            layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.features = inputs

    def forward(self, image: Tensor) -> Tensor:
        """Map float32 [N, 3, H, W] to [N, D]."""
        features: Tensor = self.layers(image)
        return features.mean(dim=(2, 3))
