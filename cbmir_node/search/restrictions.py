"""Which images may be answers: by the examples' tags, and by the class the model takes them for.

The class restriction follows Qayyum et al. (Medical image retrieval using deep convolutional
neural network, Neurocomputing 266, 2017), who look for the nearest images within the predicted
class only. There a wrong class costs every relevant image; here a prediction counts from a
configured probability on, for the example and for each candidate. A probability of 0 is the strict
form of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from cbmir_node.catalog.vectors.candidates import CandidateConditions
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.search.examples import ResolvedExample
from cbmir_node.search.query import Choices, SimilarityQuery

T = TypeVar("T")


def candidate_conditions(
    query: SimilarityQuery,
    choices: Choices,
    examples: Sequence[ResolvedExample],
    lookup: VectorLookup,
) -> CandidateConditions:
    """Gather what candidates must fulfil.

    Several examples widen a restriction: what passes for one of them passes. Hence an example
    whose tag is empty, or whose class is not to be trusted, lifts that restriction for all.
    """
    same_tags: dict[str, set[str]] = {
        tag: values
        for tag in choices.same_tags
        if tag != "PatientAge"
        and (values := _union([example.tag_values(tag, lookup) for example in examples]))
    }
    near_ages: set[float] | None = None
    if "PatientAge" in choices.same_tags:
        near_ages = _union([example.ages(lookup) for example in examples])
    classes: set[str] | None = None
    if choices.by_class:
        classes = _union(
            [
                trusted_class(example.predictions(lookup), choices.trusted_probability)
                for example in examples
            ]
        )
    return CandidateConditions(
        filters=query.filters,
        minimum_age=query.minimum_age,
        maximum_age=query.maximum_age,
        same_tags=same_tags,
        near_ages=near_ages or (),
        age_difference=choices.same_age_years,
        predicted_class=choices.predicted_class,
        trusted_classes=classes,
        trusted_probability=choices.trusted_probability,
    )


def trusted_class(
    predictions: Sequence[tuple[str | None, float | None]], trusted_probability: float
) -> set[str]:
    """Return the class of an example, if it can be trusted.

    Parameters
    ----------
    predictions : sequence of (str or None, float or None)
        Most probable class and its probability of each of the example's images.
    trusted_probability : float
        In [0, 1].

    Returns
    -------
    set of str
        The class whose probability, averaged over the images and 0 where another class is the
        most probable one, is the highest; empty when that is less than `trusted_probability`.
    """
    shares: dict[str, list[float]] = {}
    for label, probability in predictions:
        if label is not None and probability is not None:
            shares.setdefault(label, []).append(probability)
    means = {label: math.fsum(found) / len(predictions) for label, found in shares.items()}
    best = max(sorted(means), key=means.__getitem__, default=None)
    return set() if best is None or means[best] < trusted_probability else {best}


def _union(values: Sequence[set[T]]) -> set[T] | None:
    """Join what each example allows; ``None``, no restriction, where one names nothing."""
    return set().union(*values) if all(values) else None
