"""Relevance feedback: one similarity out of those to several positive and negative examples.

The form is Rocchio's (The SMART Retrieval System, 1971, chapter 14), towards the mean of the
relevant and away from the mean of the rest, on similarities instead of vectors: so it serves every
distance, hash codes, and studies, which are no single vector. The negative examples turn only what
is near: else what resembles nothing came first once an answer was marked that resembles the
example. docs/retrieval.md has what it was chosen from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbmir_node.search.query import Float32Array

NEGATIVE_WEIGHT = 0.75
"""What the negative examples together weigh; the positive ones together weigh 1."""
NEAR = 0.9
"""Share of the best candidate's similarity to the positive examples from which on one is near."""


def similarity_to_positive(positive: Sequence[Float32Array] | Float32Array) -> Float32Array:
    """Return the mean similarity of each candidate to the positive examples, float32 [G].

    Parameters
    ----------
    positive : float32 [E, G]
        Similarity in [0, 1] of each of G candidates to each example, E at least 1.
    """
    mean: Float32Array = np.asarray(positive, np.float32).mean(axis=0)
    return mean


def fused_similarity(
    towards: Float32Array, negative: Sequence[Float32Array] | Float32Array = ()
) -> Float32Array:
    """Return how alike each candidate is to the positive and unlike the negative examples.

    With P and N the means over the positive and over the negative examples and w the weight of the
    negative ones: ``(P + w (1 - N)) / (1 + w)``, which orders as ``P - w N`` does. Without negative
    examples it is P. A candidate whose P is below `NEAR` of the best one's gains nothing by being
    unlike the negative examples: its N counts as 1, which puts it behind all that are near.

    Parameters
    ----------
    towards : float32 [G]
        P of each of G candidates: of all that are ranked, and of nothing else.
    negative : float32 [F, G]
        Their similarity in [0, 1] to each negative example; F may be 0.

    Returns
    -------
    float32 [G]
        In [0, 1]. With negative examples it is on a scale of its own: compare it within one query.
    """
    if not len(negative) or not len(towards):
        return towards
    against: Float32Array = np.asarray(negative, np.float32).mean(axis=0)
    against[towards < NEAR * towards.max()] = 1
    fused = (towards + NEGATIVE_WEIGHT * (1 - against)) / (1 + NEGATIVE_WEIGHT)
    return np.clip(fused, 0, 1).astype(np.float32)
