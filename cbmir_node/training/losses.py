"""What the network is trained to minimise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine_margin(cosines: Tensor, targets: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy with a margin on the true class's cosine.

    CosFace: Wang et al., "CosFace: Large Margin Cosine Loss", CVPR 2018, equation 4.

    Parameters
    ----------
    cosines : float [N, K]
    targets : int64 [N]
    """
    true_class = functional.one_hot(targets, cosines.shape[1])
    return functional.cross_entropy(scale * (cosines - margin * true_class), targets)


def supervised_contrastive(embedding: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Pull pictures of one class together, push the others away.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2. Pictures that are
    alone with their class in the batch are left out.

    Parameters
    ----------
    embedding : float [N, D]
        Unit vectors.
    targets : int64 [N]
    """
    itself = torch.eye(len(targets), dtype=torch.bool)
    similarity = (embedding @ embedding.T / temperature).masked_fill(itself, float("-inf"))
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
    positive = (targets[:, None] == targets[None, :]) & ~itself
    partners = positive.sum(dim=1)
    paired = partners > 0
    if not paired.any():
        return embedding.sum() * 0
    summed = log_share.masked_fill(~positive, 0).sum(dim=1)
    return -(summed[paired] / partners[paired]).mean()


def finding_within_class(
    cosines: Tensor, findings: Tensor, candidates: Tensor, scale: float
) -> Tensor:
    """Cross-entropy among the findings of a picture's own class.

    Parameters
    ----------
    cosines : float [N, F]
    findings : int64 [N]
        Number of the picture's finding, -1 where unknown; such pictures are left out.
    candidates : bool [N, F]
        The findings of the picture's class. The others do not compete: telling classes apart is
        the label's task.
    """
    known = findings >= 0
    if not known.any():
        return cosines.sum() * 0
    scores = (scale * cosines).masked_fill(~candidates, float("-inf"))
    return functional.cross_entropy(scores[known], findings[known])
