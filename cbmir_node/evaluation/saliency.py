"""Does a saliency map show what matters? The deletion test.

What the map calls most salient is deleted first, in growing shares of the picture, and the picture
asks again (RISE, Petsiuk et al., BMVC 2018). A map that is right loses the answer sooner than one
that deletes the centre or random places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.evaluation.bootstrap import PatientBootstrap, intervals
from cbmir_node.evaluation.items import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
    Items,
    Outputs,
)
from cbmir_node.evaluation.manifest import read_picture
from cbmir_node.evaluation.protocols import Protocol
from cbmir_node.evaluation.result import DeletionCurve, Saliency
from cbmir_node.evaluation.ties import TiedRankings
from cbmir_node.imaging.network_input import Preprocessing, network_input
from cbmir_node.search.ranking import pairwise_similarity

PICTURES = 260
"""Query pictures that are tried at most, as many of each class as there are."""
SHARES = tuple(tenth / 10 for tenth in range(10))
MASKS = ("saliency", "centre", "random")

_SEED = 0


def deletion_test(
    model: EmbeddingModel,
    name: str,
    files: Sequence[Path],
    items: Items,
    protocol: Protocol,
    outputs: Outputs,
    progress: Callable[[int], None],
) -> Saliency | None:
    """Delete growing shares of some query pictures and let them ask again.

    Parameters
    ----------
    model : EmbeddingModel
        With saliency.
    files : sequence of Path
        Pictures of all items.
    protocol : Protocol
    outputs : Outputs
        Of all items: the database stays as it is.
    progress : callable
        Given the number of pictures done.

    Returns
    -------
    Saliency or None
        ``None`` where no query has anything to find.
    """
    random = np.random.default_rng(_SEED)
    database = items.take(protocol.database)
    vectors = outputs.spaces["embedding"][protocol.database]
    chosen, scores, probabilities = [], [], []
    for query in balanced(items, protocol.queries, random):
        eligible = database.patients != items.patients[query]
        relevant = eligible & (database.labels == items.labels[query])
        progress(1)
        if not relevant.any():
            continue
        embeddings = model.embed(deleted_inputs(model, read_picture(files[query]), random))
        similarity = pairwise_similarity(embeddings.spaces["embedding"], vectors, "cosine")
        rankings = TiedRankings(
            np.where(eligible, similarity, np.float32(-np.inf)),
            np.broadcast_to(relevant, similarity.shape),
        )
        shape = (len(MASKS), len(SHARES))
        chosen.append(query)
        scores.append(rankings.average_precision().reshape(shape))
        own = _own_probability(model, embeddings.probabilities, str(items.labels[query]))
        probabilities.append(own.reshape(shape))
    if not chosen:
        return None
    curves = _curves(items.take(np.array(chosen)), np.array(scores), np.array(probabilities))
    return Saliency(name, len(chosen), list(SHARES), curves)


def balanced(items: Items, queries: IntArray, random: np.random.Generator) -> list[int]:
    """Choose up to `PICTURES` queries, as evenly over the classes as their numbers allow."""
    labels = items.labels[queries]
    shuffled = [random.permutation(queries[labels == name]) for name in np.unique(labels)]
    rounds = range(max(len(rows) for rows in shuffled))
    turns = [int(rows[turn]) for turn in rounds for rows in shuffled if turn < len(rows)]
    return sorted(turns[:PICTURES])


def deleted_inputs(
    model: EmbeddingModel, picture: npt.NDArray[np.uint8], random: np.random.Generator
) -> Float32Array:
    """Return a picture's network input with every share of `SHARES` deleted, mask by mask.

    Deleted places get the picture's mean colour. Masks have the resolution of the saliency map, and
    none of them spends its share on the black border around the picture.

    Returns
    -------
    float32 [len(MASKS) * len(SHARES), C, H, W]
    """
    preprocessing = model.description.preprocessing
    whole = network_input(picture, preprocessing)
    inside = picture_area(picture, preprocessing)
    saliency = model.embed(whole[None], saliency=True).saliency
    assert saliency is not None  # noqa: S101  (asked only of models with saliency)
    size = (preprocessing.height, preprocessing.width)
    noise = random.standard_normal(saliency[0].shape, dtype=np.float32)
    orders = {
        "saliency": _enlarged(saliency[0], size),
        "centre": _towards_centre(inside),
        "random": _enlarged(noise, size),
    }
    places = np.flatnonzero(inside)
    mean = whole[:, inside].mean(axis=1)
    result = np.repeat(whole[None], len(MASKS) * len(SHARES), axis=0)
    for number, mask in enumerate(MASKS):
        first = places[np.argsort(-orders[mask].ravel()[places], kind="stable")]
        for step, share in enumerate(SHARES):
            flat = result[number * len(SHARES) + step].reshape(len(whole), -1)
            flat[:, first[: round(share * len(first))]] = mean[:, None]
    return result


def picture_area(picture: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> BoolArray:
    """Return which places of the network input show the picture and not the border around it."""
    white = network_input(np.full(picture.shape[:2], 255, np.uint8), preprocessing)[0]
    return np.asarray(white >= white.max())


def _enlarged(values: Float32Array, size: tuple[int, int]) -> Float32Array:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), dtype=np.float32)


def _towards_centre(inside: BoolArray) -> Float32Array:
    """Return higher values nearer to the middle of an area, in units of its height and width."""
    rows, columns = np.nonzero(inside)
    grid = np.mgrid[: inside.shape[0], : inside.shape[1]]
    parts = [
        (axis - (used.min() + used.max()) / 2) / (used.max() - used.min() + 1)
        for axis, used in zip(grid, (rows, columns), strict=True)
    ]
    return np.asarray(-(parts[0] ** 2 + parts[1] ** 2), dtype=np.float32)


def _own_probability(
    model: EmbeddingModel, probabilities: Float32Array | None, label: str
) -> Float64Array:
    labels = model.description.labels
    if probabilities is None or label not in labels:
        return np.full(len(MASKS) * len(SHARES), np.nan)
    return probabilities[:, labels.index(label)].astype(np.float64)


def _curves(
    queries: Items, scores: Float64Array, probabilities: Float64Array
) -> list[DeletionCurve]:
    """Average [Q, masks, shares] over classes and compare the areas in pairs."""
    resample = PatientBootstrap(queries.labels, queries.patients)
    areas = resample.macro(scores.mean(axis=2))
    known = ~np.isnan(probabilities).any(axis=(1, 2))
    return [
        DeletionCurve(
            mask=mask,
            average_precision=resample.macro(scores[:, number])[0].tolist(),
            probability=probabilities[known, number].mean(axis=0).tolist() if known.any() else [],
            area=intervals(areas[:, number : number + 1])[0],
            saliency_minus_this=(
                None if number == 0 else intervals(areas[:, :1] - areas[:, number : number + 1])[0]
            ),
        )
        for number, mask in enumerate(MASKS)
    ]
