"""Linear heads for findings, one for each class: closed form, few pictures, many features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cbmir_node.training.checkpoint import Vocabulary

FloatArray = npt.NDArray[np.float64]

_RIDGE = 0.3
"""Added to the diagonal of the Gram matrix, whose mean diagonal is about 1. Chosen by
cross-validation over train and val."""
_FLOOR = 0.3
"""Added to each feature's deviation, so that features that hardly vary do not shout."""


def joint_entries(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the (class, finding) pairs that are told apart, class by class.

    A class with fewer than two findings has one entry, with an empty finding.
    """
    entries = []
    for label in vocabulary.labels:
        findings = [finding for of, finding in vocabulary.findings if of == label]
        entries += (
            [(label, finding) for finding in findings] if len(findings) > 1 else [(label, "")]
        )
    return entries


def fit_finding_heads(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.str_],
    findings: npt.NDArray[np.str_],
    entries: list[tuple[str, str]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit a least-squares classifier among the findings of each class.

    Ridge regression on standardised features, solved in the dual: a class has some 200 pictures
    and 6,896 features.

    Parameters
    ----------
    features : float32 [N, F]
    labels, findings : array of str [N]
        Findings are empty where unknown; such pictures are left out.
    entries : list of (str, str)
        See `joint_entries`.

    Returns
    -------
    weight : float32 [J, F]
    bias : float32 [J]
        Of entries without a finding both are zero.
    """
    weight = np.zeros((len(entries), features.shape[1]))
    bias = np.zeros(len(entries))
    for label in sorted({label for label, finding in entries if finding}):
        mine = [number for number, entry in enumerate(entries) if entry[0] == label]
        chosen = (labels == label) & (findings != "")
        names = np.array([entries[number][1] for number in mine])
        targets = (findings[chosen][:, None] == names[None, :]).astype(np.float64)
        weight[mine], bias[mine] = _ridge(features[chosen].astype(np.float64), targets)
    return weight.astype(np.float32), bias.astype(np.float32)


def _ridge(features: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weight [M, F] and bias [M] for centred targets [N, M], standardisation folded in."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + _FLOOR
    standardised = (features - mean) / scale
    gram = standardised @ standardised.T / features.shape[1]
    dual = np.linalg.solve(gram + _RIDGE * np.eye(len(gram)), targets - targets.mean(axis=0))
    weight = (dual.T @ standardised) / features.shape[1] / scale
    return weight, -weight @ mean
