"""From images to studies, as the product ranks them (docs/retrieval.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cbmir_node.evaluation.items import (
    UNKNOWN,
    BoolArray,
    CodedItems,
    Float32Array,
    IntArray,
)
from cbmir_node.search.ranking import score_groups


@dataclass(frozen=True)
class Studies:
    """The studies of some images.

    Attributes
    ----------
    items : CodedItems
        One row per study; its finding is that of all its images, or `UNKNOWN` where they differ.
    first : int [S]
        Position of each study's first image.
    study_of : int [N]
        Which study each image belongs to.
    """

    items: CodedItems
    first: IntArray
    study_of: IntArray


def group_studies(images: CodedItems) -> Studies:
    """Group images by their study."""
    _, first, study_of = np.unique(images.study, return_index=True, return_inverse=True)
    finding = images.finding[first].copy()
    mixed = images.finding != finding[study_of]
    finding[study_of[mixed]] = UNKNOWN
    one = images.take(first)
    items = CodedItems(one.label, finding, one.patient, one.study)
    return Studies(items, first.astype(np.intp), study_of.astype(np.intp))


def study_similarity(
    similarity: Float32Array, eligible: BoolArray, queries: Studies, candidates: Studies
) -> Float32Array:
    """Return how alike studies are, float32 [S, T].

    Parameters
    ----------
    similarity : float32 [M, N]
        Of images; -inf where a candidate image is left out.
    eligible : bool [M, N]
        Images of other patients.
    queries, candidates : Studies
        Of the M and the N images.

    Returns
    -------
    float32 [S, T]
        -inf for studies of which every image is left out.
    """
    result = np.full((len(queries.items), len(candidates.items)), -np.inf, dtype=np.float32)
    for number in range(len(queries.items)):
        rows = np.flatnonzero(queries.study_of == number)
        part = similarity[rows]
        usable = np.flatnonzero(eligible[rows[0]] & (part > -np.inf).any(axis=0))
        if len(usable):
            # what one image of the example leaves out and another does not: as unlike as can be
            pairs = np.maximum(part[:, usable], 0)
            scores = score_groups(pairs, candidates.study_of[usable].astype(np.int64), mutual=True)
            result[number, scores.groups] = scores.similarity
    return result
