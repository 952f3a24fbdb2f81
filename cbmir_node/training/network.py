"""EfficientNet-Lite0 with the heads of the ONNX contract.

The backbone follows EfficientNet (Tan and Le, ICML 2019, table 1) in its "Lite" variant, which
drops squeeze-and-excitation and swaps swish for ReLU6 so that it also quantises well; stem and
head keep their width. Padding is TensorFlow's ``SAME``, because the ImageNet start weights were
trained with it: for stride 2 and even sizes it is one pixel wider at the bottom and the right.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS
from cbmir_node.training.recipe import ContractNetwork

EMBEDDING_LENGTH = 256
CODE_BITS = 128
FEATURES = 1280
_STEM = 32
_STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LAST_BLOCKS = (10, 14, 15)
"""The last blocks of the last three stages."""


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation (TensorFlow's constants) and ReLU6."""
    surplus = kernel - stride
    layers: list[nn.Module] = []
    if stride > 1:
        before = surplus // 2
        after = surplus - before
        layers.append(nn.ZeroPad2d((before, after, before, after)))
    padding = 0 if stride > 1 else kernel // 2
    layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
    if activate:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _convolution(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _convolution(hidden, outputs, 1, activate=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, inputs, h, w] to [N, outputs, h / stride, w / stride]."""
        projected: Tensor = self.project(self.depthwise(self.expand(features)))
        return features + projected if self.residual else projected


class EfficientNetLite0(nn.Module):
    """The backbone: pictures to pooled features.

    Parameters
    ----------
    width : float
        Factor on the channels of the stages, rounded to multiples of 8. 1 is Lite0.

    Attributes
    ----------
    map_channels : tuple of int
        Channels of what `maps` returns.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM, 3, 2)
        blocks: list[nn.Module] = []
        inputs = _STEM
        for kernel, stride, expansion, channels, count in _STAGES:
            outputs = max(8, round(channels * width / 8) * 8)
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(inputs, FEATURES, 1)
        stages = (max(8, round(channels * width / 8) * 8) for *_, channels, _ in _STAGES[-3:])
        self.map_channels = (*stages, FEATURES)

    def maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map float32 [N, 3, H, W] to the feature maps of the last three stages and the head.

        Returns
        -------
        float32 [N, 112, H / 16, W / 16], [N, 192, H / 32, W / 32], [N, 320, …], [N, 1280, …]
        """
        features = self.stem(image)
        kept = []
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index in _LAST_BLOCKS:
                kept.append(features)
        return (*kept, self.head(features))

    def forward(self, image: Tensor) -> Tensor:
        """Map float32 [N, 3, H, W] to [N, 1280]."""
        return self.maps(image)[-1].mean(dim=(2, 3))


class RetrievalNetwork(ContractNetwork):
    """Backbone and heads: what is trained, and what is exported.

    Parameters
    ----------
    labels, findings : int
        Number of coarse classes and of (class, finding) pairs; the latter's head only shapes the
        embedding during training and is not exported.
    width : float
        See `EfficientNetLite0`.

    Notes
    -----
    Class scores are scaled cosines between the embedding and one prototype per class (CosFace,
    Wang et al., CVPR 2018), so that ``embedding`` alone carries all that ``logits`` know.

    The hash is a fixed random projection onto orthogonal directions; two signs differ with
    probability angle / pi (Charikar, STOC 2002; orthogonal directions vary less, Ji et al.,
    NeurIPS 2012). It keeps the order within a class, which a hash trained on the cosines of a
    well-clustered embedding gives up: that one put 726 pictures on 87 codes.
    """

    output_names = (EMBEDDING, LOGITS, CODE)
    scale = 24.0

    def __init__(self, labels: int, findings: int, width: float = 1.0) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(width)
        self.dropout = nn.Dropout(0.2)
        self.project = nn.Linear(FEATURES, EMBEDDING_LENGTH, bias=False)
        self.normalise = nn.BatchNorm1d(EMBEDDING_LENGTH)
        self.label_prototypes = nn.Parameter(torch.randn(labels, EMBEDDING_LENGTH))
        self.finding_prototypes = nn.Parameter(torch.randn(findings, EMBEDDING_LENGTH))
        directions = nn.init.orthogonal_(torch.empty(CODE_BITS, EMBEDDING_LENGTH))
        self.register_buffer("hash_directions", directions)

    def embed(self, image: Tensor) -> Tensor:
        """Map float32 [N, 3, H, W] to unit vectors [N, 256]."""
        return self.embed_features(self.backbone(image))

    def embed_features(self, features: Tensor) -> Tensor:
        """Map pooled features [N, 1280] to unit vectors [N, 256]."""
        return functional.normalize(self.normalise(self.project(self.dropout(features))), dim=1)

    def label_cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding with each class prototype, [N, labels]."""
        return functional.linear(embedding, functional.normalize(self.label_prototypes, dim=1))

    def finding_cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding with each (class, finding) prototype, [N, findings]."""
        return functional.linear(embedding, functional.normalize(self.finding_prototypes, dim=1))

    def code(self, embedding: Tensor) -> Tensor:
        """Hash before its signs are taken, [N, 128]."""
        return functional.linear(embedding, self.hash_directions)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs that `output_names` lists."""
        embedding = self.embed(image)
        return embedding, self.scale * self.label_cosines(embedding), self.code(embedding)
