"""Relevance feedback: one similarity out of those to several positive and negative examples.

The form is Rocchio's (The SMART Retrieval System, 1971, chapter 14), towards the mean of the
relevant and away from the mean of the rest, on similarities instead of vectors: so it serves every
distance, hash codes, and studies, which are no single vector. docs/retrieval.md has what it was
chosen from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbmir_node.search.query import Float32Array

NEGATIVE_WEIGHT = 0.75
"""What the negative examples together weigh; the positive ones together weigh 1."""


def fused_similarity(
    positive: Sequence[Float32Array] | Float32Array,
    negative: Sequence[Float32Array] | Float32Array = (),
) -> Float32Array:
    """Return how alike each candidate is to the positive and unlike the negative examples.

    With P and N the means over the positive and over the negative examples and w the weight of the
    negative ones: ``(P + w (1 - N)) / (1 + w)``, which orders as ``P - w N`` does. Without negative
    examples it is P.

    Parameters
    ----------
    positive : float32 [E, G]
        Similarity in [0, 1] of each of G candidates to each positive example, E at least 1.
    negative : float32 [F, G]
        The same to each negative example; F may be 0.

    Returns
    -------
    float32 [G]
        In [0, 1]. With negative examples it is on a scale of its own: compare it within one query.
    """
    towards: Float32Array = np.asarray(positive, np.float32).mean(axis=0)
    if not len(negative):
        return towards
    unlike = 1 - np.asarray(negative, np.float32).mean(axis=0)
    fused: Float32Array = (towards + NEGATIVE_WEIGHT * unlike) / (1 + NEGATIVE_WEIGHT)
    return np.clip(fused, 0, 1)
