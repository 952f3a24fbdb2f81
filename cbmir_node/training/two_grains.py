"""The default model: one network with two eyes, one for the class and one for the finding.

The class eye is trained and sees the picture at half size: what a picture shows is plain at 128
pixels. Findings are small, and a few hundred pictures of a class are too few to train a network
on: whatever was trained on them knew its training pictures by heart. The finding eye therefore
keeps its ImageNet weights, sees the whole picture, and only linear heads on its features are
fitted; these know in which ninth of the picture a feature is, because anatomy has its place. Its
features also describe what no class of the training names.

The embedding is three unit vectors side by side, each with a weight:

===========  =============================================================================
class        the class eye's embedding
joint        square roots of the probabilities of every (class, finding): the inner product
             of two is their Bhattacharyya coefficient, 1 for equal beliefs
appearance   principal components of the finding eye's features
===========  =============================================================================

The first two know only what they were trained on. In a novel picture, one far from all training
pictures, weight moves from them to the appearance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cbmir_node.embedding.contract import CODE, EMBEDDING, LOGITS, SALIENCY
from cbmir_node.training.network import CODE_BITS, EfficientNetLite0, RetrievalNetwork
from cbmir_node.training.recipe import ContractNetwork

APPEARANCE_LENGTH = 96
STRIDE = 16
"""Pixels of the class eye's picture for one cell of the saliency map."""
_SMOOTHING = 1.9
"""Deviation of the Gaussian that smooths the saliency map, cells. What a network loses depends on
connected regions: scattered cells can be made good from their neighbours. Chosen on val."""

_JOINT_WEIGHT = 0.7
"""Against the class part's 1. More costs the hash its coarse order. Chosen on val, as the next."""
_APPEARANCE_WEIGHT = 0.5
"""Of a familiar picture; 1 of a novel one."""
_SHARPNESS = 24.0
"""Factor on the findings' least-squares scores before the softmax; chosen with the ridge."""
_CELLS = 3
"""Parts of the picture along each side that the finding heads tell apart."""
_CERTAINTY_POWER = 8
_WEIGHT_POWER = 4
"""How suddenly trust ends at the distance that hardly any training picture has: in the class
scores, and in the weights of the embedding. Chosen on val with a network that five classes had been
kept from."""


class TwoGrainNetwork(ContractNetwork):
    """Both eyes, and the heads that `cbmir_node.training.fitting` fits.

    Parameters
    ----------
    labels : int
        Number of classes, K.
    label_of_joint : list of int
        The class of each (class, finding); a class without findings has one entry of its own.
    findings : int
        See `RetrievalNetwork`.
    size : int
        Height and width that the class eye sees; the picture has twice that.
    width : float
        See `EfficientNetLite0`.
    """

    output_names = (EMBEDDING, LOGITS, CODE, SALIENCY)

    def __init__(
        self, labels: int, label_of_joint: list[int], findings: int, size: int, width: float
    ) -> None:
        super().__init__()
        self.class_eye = RetrievalNetwork(labels, findings, width)
        self.finding_eye = EfficientNetLite0(width)
        *fine, last = self.finding_eye.map_channels
        features, cells = sum(fine) + last, sum(fine) * _CELLS**2 + last
        joint = len(label_of_joint)
        grid = size // STRIDE
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.register_buffer("components", torch.zeros(features, APPEARANCE_LENGTH))
        self.register_buffer("whitening", torch.zeros(APPEARANCE_LENGTH, APPEARANCE_LENGTH))
        self.register_buffer("class_centres", torch.zeros(labels, APPEARANCE_LENGTH))
        self.register_buffer("farthest", torch.ones(()))
        self.register_buffer("finding_weight", torch.zeros(joint, cells))
        self.register_buffer("finding_bias", torch.zeros(joint))
        self.register_buffer(
            "membership", functional.one_hot(torch.tensor(label_of_joint), labels).float()
        )
        length = self.class_eye.label_prototypes.shape[1] + joint + APPEARANCE_LENGTH
        directions = torch.empty(CODE_BITS, length)
        self.register_buffer("hash_directions", nn.init.orthogonal_(directions))
        channels = self.class_eye.backbone.map_channels[0]
        self.register_buffer("saliency_weight", torch.zeros(channels + 2))
        self.register_buffer("saliency_place", torch.zeros(grid, grid))
        self.register_buffer("smoothing", _gaussian(_SMOOTHING))

    def finding_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to what the finding eye sees.

        Returns
        -------
        float32 [N, F]
            Features pooled over the picture.
        float32 [N, G]
            Pooled over each ninth of the picture; those of the head over the picture.
        """
        maps = self.finding_eye.maps(image)
        means = [part.mean(dim=(2, 3)) for part in maps]
        cells = [_pooled_by_cell(part) for part in maps[:-1]]
        return torch.cat(means, dim=1), torch.cat([*cells, means[-1]], dim=1)

    def class_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to what the class eye has at a 16th and a 32nd of its size."""
        fine, *_, coarse = self.class_eye.backbone.maps(functional.avg_pool2d(image, 2))
        return fine, coarse

    def appearance(self, features: Tensor) -> Tensor:
        """Map pooled features [N, F] to principal components [N, 96]."""
        return ((features - self.feature_mean) / self.feature_scale) @ self.components

    def novelty(self, appearance: Tensor) -> Tensor:
        """Return the squared distance to the nearest class [N], 1 where hardly any is farther.

        The Mahalanobis distance with one covariance for all classes (Lee et al., NeurIPS 2018).
        """
        whitened = appearance @ self.whitening
        offsets = whitened[:, None, :] - self.class_centres[None, :, :]
        return offsets.square().sum(dim=2).amin(dim=1) / self.farthest

    def logits(self, embedding: Tensor, appearance: Tensor) -> Tensor:
        """Return the class eye's scores [N, K], brought together where a picture is novel.

        A network is as sure of what it never saw as of the rest; its features are farther off.
        """
        trust = _trust(self.novelty(appearance), _CERTAINTY_POWER)
        return self.class_eye.scale * self.class_eye.label_cosines(embedding) * trust

    def joint_probabilities(self, embedding: Tensor, cells: Tensor) -> Tensor:
        """Return the probability of every (class, finding) [N, J]; each row's sum is 1."""
        scores = self.class_eye.scale * self.class_eye.label_cosines(embedding)
        of_class = torch.softmax(scores, dim=1) @ self.membership.T
        finding_scores = functional.linear(cells, self.finding_weight, self.finding_bias)
        shares = torch.exp(_SHARPNESS * finding_scores.clamp(-1, 2))
        of_finding = shares / ((shares @ self.membership) @ self.membership.T)
        return of_class * of_finding

    def saliency_features(self, fine: Tensor, coarse: Tensor, embedding: Tensor) -> Tensor:
        """Describe each cell of the saliency grid, float32 [N, C + 2, g, g].

        The class eye's fine map, how much each cell adds to the embedding's direction, and how
        strongly it is activated; the latter two standardised over the picture.
        """
        projected = torch.einsum("nchw,dc->ndhw", coarse, self.class_eye.project.weight)
        adds = torch.einsum("ndhw,nd->nhw", projected, embedding)[:, None]
        adds = functional.interpolate(adds, size=tuple(fine.shape[2:]), mode="nearest")
        active = fine.square().sum(dim=1, keepdim=True).sqrt()
        return torch.cat([fine, _standardised(adds), _standardised(active)], dim=1)

    def saliency(self, fine: Tensor, coarse: Tensor, embedding: Tensor) -> Tensor:
        """Return where the class eye looked [N, 1, g, g], 0 to 1 in every picture."""
        cells = self.saliency_features(fine, coarse, embedding)
        weighted = (cells * self.saliency_weight[:, None, None]).sum(dim=1, keepdim=True)
        values = weighted + self.saliency_place
        values = values - values.amin(dim=(2, 3), keepdim=True)
        smooth = functional.conv2d(values, self.smoothing, padding=self.smoothing.shape[-1] // 2)
        low, high = smooth.amin(dim=(2, 3), keepdim=True), smooth.amax(dim=(2, 3), keepdim=True)
        return (smooth - low) / (high - low).clamp_min(1e-6)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map float32 [N, 3, H, W] to the outputs that `output_names` lists."""
        fine, coarse = self.class_maps(image)
        class_part = self.class_eye.embed_features(coarse.mean(dim=(2, 3)))
        features, cells = self.finding_features(image)
        appearance = self.appearance(features)
        joint = self.joint_probabilities(class_part, cells).sqrt()
        trust = _trust(self.novelty(appearance), _WEIGHT_POWER)
        appearance_weight = _APPEARANCE_WEIGHT + (1 - _APPEARANCE_WEIGHT) * (1 - trust)
        parts = [
            trust * class_part,
            trust * _JOINT_WEIGHT * joint,
            appearance_weight * functional.normalize(appearance, dim=1),
        ]
        embedding = functional.normalize(torch.cat(parts, dim=1), dim=1)
        return (
            embedding,
            self.logits(class_part, appearance),
            functional.linear(embedding, self.hash_directions),
            self.saliency(fine, coarse, class_part),
        )


def _trust(novelty: Tensor, power: int) -> Tensor:
    """Return [N, 1] in (0, 1]: 1 amid the training pictures, a half at the novelty 1."""
    return (1 / (1 + novelty**power))[:, None]


def _pooled_by_cell(features: Tensor) -> Tensor:
    """Average a map [N, C, h, w] over 3 × 3 parts that overlap where the size is no multiple."""
    rows, columns = _bins(features.shape[2]), _bins(features.shape[3])
    return torch.einsum("ih,nchw,jw->ncij", rows, features, columns).flatten(1)


def _bins(length: int) -> Tensor:
    """Return the weights [3, length] of an adaptive average pooling."""
    weights = torch.zeros(_CELLS, length)
    for cell in range(_CELLS):
        start, end = cell * length // _CELLS, -(-(cell + 1) * length // _CELLS)
        weights[cell, start:end] = 1 / (end - start)
    return weights


def _gaussian(deviation: float) -> Tensor:
    """Return a Gaussian kernel [1, 1, k, k] that reaches three deviations, with sum 1."""
    reach = torch.arange(-int(3 * deviation), int(3 * deviation) + 1)
    profile = torch.exp(-0.5 * (reach / deviation) ** 2)
    kernel = profile[:, None] * profile[None, :]
    return (kernel / kernel.sum())[None, None]


def _standardised(values: Tensor) -> Tensor:
    """Bring each picture's map [N, 1, h, w] to mean 0 and deviation 1."""
    centred = values - values.mean(dim=(2, 3), keepdim=True)
    return centred / centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-6)
