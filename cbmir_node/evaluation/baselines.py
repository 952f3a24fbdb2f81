"""What a network has to beat: pixels, and one linear layer on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cbmir_node.errors import ConfigurationError
from cbmir_node.evaluation.items import Float32Array, Items, Outputs
from cbmir_node.evaluation.manifest import read_picture

PIXELS = "pixels 24 × 24"
_SIDE = 24

SHRINKAGE = 0.1
"""Chosen on val with ImageNet features, among .1, .5 and Ledoit and Wolf's estimate."""


def pixel_outputs(
    files: Sequence[Path], progress: Callable[[int], None] = lambda _: None
) -> Outputs:
    """Return 24 × 24 grey levels without their mean: the cosine is their correlation."""
    rows = []
    for file in files:
        image = Image.fromarray(read_picture(file)).convert("L")
        rows.append(np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)).ravel())
        progress(1)
    levels = np.stack(rows).astype(np.float32)
    return Outputs({"embedding": levels - levels.mean(axis=1, keepdims=True)})


class LinearDiscriminant:
    """Linear discriminant of a model's embedding, fitted on labelled images.

    The classes that it separates are those of label and finding together, so that one layer serves
    both grains; the covariance is shrunk, since many classes are small.

    Parameters
    ----------
    vectors : float32 [N, D]
        Embeddings of the images to fit on.
    items : Items
        Of the same images.

    Attributes
    ----------
    labels : list of str
        Classes that it tells apart.

    Raises
    ------
    ConfigurationError
        There are fewer than two classes, or not more images than classes.
    """

    def __init__(self, vectors: Float32Array, items: Items) -> None:
        from sklearn.discriminant_analysis import (  # noqa: PLC0415  (optional package)
            LinearDiscriminantAnalysis,
        )

        names = np.char.add(np.char.add(items.labels, "\t"), items.findings)
        if not 1 < len(np.unique(names)) < len(names):
            raise ConfigurationError(
                "a linear discriminant needs several images of each of at least two classes in "
                "splits train and val; leave out --baseline"
            )
        self._model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
        self._model.fit(vectors.astype(np.float64), names)
        self._label_of = np.array([name.split("\t")[0] for name in self._model.classes_])
        self.labels = sorted(set(self._label_of.tolist()))

    def outputs(self, vectors: Float32Array) -> Outputs:
        """Return the discriminant coordinates of embeddings, and the class they are taken for."""
        wide = vectors.astype(np.float64)
        fine = self._model.predict_proba(wide)
        labels = np.array(self.labels)
        probabilities = np.stack(
            [fine[:, self._label_of == label].sum(axis=1) for label in labels], axis=1
        )
        best = probabilities.argmax(axis=1)
        return Outputs(
            {"embedding": self._model.transform(wide).astype(np.float32)},
            predicted=labels[best],
            probability=probabilities.max(axis=1).astype(np.float32),
        )
