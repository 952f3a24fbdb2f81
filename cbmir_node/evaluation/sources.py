"""Models and baselines applied to the pictures of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.evaluation.baselines import PIXELS, LinearDiscriminant, pixel_outputs
from cbmir_node.evaluation.changes import LOW_RESOLUTION, UNCHANGED, Change, low_resolution, windows
from cbmir_node.evaluation.comparison import Source, Stage
from cbmir_node.evaluation.embedding import OutputCache, embed_files
from cbmir_node.evaluation.items import IntArray, Items, Outputs
from cbmir_node.evaluation.manifest import Manifest

_PIXELS_KEY = "pixels-correlation"


@dataclass(frozen=True)
class Embedder:
    """Embeds a manifest's pictures, or takes what an earlier run kept.

    Parameters
    ----------
    manifest : Manifest
    queries : int [Q]
        Positions of the pictures that are changed too.
    cache : OutputCache
    stage : Stage
    """

    manifest: Manifest
    queries: IntArray
    cache: OutputCache
    stage: Stage

    def pixels(self) -> Source:
        """Return the baseline without any network."""
        outputs = self.cache.read(_PIXELS_KEY, UNCHANGED)
        if outputs is None:
            files = self.manifest.files
            with self.stage(PIXELS, len(files)) as step:
                outputs = pixel_outputs(files, step)
            self.cache.keep(_PIXELS_KEY, UNCHANGED, outputs)
        return Source(PIXELS, outputs, baseline=True)

    def source(self, model: EmbeddingModel, name: str, *, baseline: bool) -> Source:
        """Return a model's outputs of all pictures, and of the queries brought to 64 pixels."""
        return Source(
            name,
            self._outputs(model, name, UNCHANGED, None, np.arange(len(self.manifest.files))),
            {LOW_RESOLUTION: self.changed(model, name, LOW_RESOLUTION, low_resolution)},
            frozenset(model.description.labels),
            baseline,
        )

    def changed(self, model: EmbeddingModel, name: str, change: str, function: Change) -> Outputs:
        """Return a model's outputs of the changed queries."""
        return self._outputs(model, name, change, function, self.queries)

    def windows(self, model: EmbeddingModel, name: str) -> dict[str, Outputs]:
        """Return a model's outputs of the queries in other display windows."""
        return {
            window: self.changed(model, name, window, function)
            for window, function in windows().items()
        }

    def _outputs(
        self,
        model: EmbeddingModel,
        name: str,
        change: str,
        function: Change | None,
        chosen: IntArray,
    ) -> Outputs:
        # another split changes other pictures
        key = f"{change} of {len(chosen)}" if function else change
        outputs = self.cache.read(model.description.sha256, key)
        if outputs is None:
            files = [self.manifest.files[position] for position in chosen]
            with self.stage(f"{name} {change}".strip(), len(files)) as step:
                outputs = embed_files(model, files, function, step)
            self.cache.keep(model.description.sha256, key, outputs)
        return outputs


def linear_source(source: Source, items: Items, fitted_on: IntArray) -> Source:
    """Return a source with one linear layer, fitted on some items, on top of its embedding."""
    outputs = source.outputs.take(fitted_on)
    discriminant = LinearDiscriminant(outputs.spaces["embedding"], items.take(fitted_on))
    return Source(
        f"{source.name} + linear discriminant",
        discriminant.outputs(source.outputs.spaces["embedding"]),
        {
            change: discriminant.outputs(changed.spaces["embedding"])
            for change, changed in source.changed.items()
        },
        frozenset(discriminant.labels),
        baseline=True,
    )


def fitting_rows(manifest: Manifest, split: str) -> IntArray:
    """Return the items that a discriminant may be fitted on: never test, never the queries."""
    allowed = {"test": ("train", "val"), "val": ("train",)}.get(split, ())
    return np.flatnonzero(np.isin(manifest.splits, allowed))


def sources_of(
    embedder: Embedder,
    models: Sequence[tuple[str, EmbeddingModel]],
    baselines: Sequence[tuple[str, EmbeddingModel]],
    fitted_on: IntArray,
) -> list[Source]:
    """Return pixels, each baseline without and with a linear layer, then the models."""
    sources = [embedder.pixels()]
    for name, model in baselines:
        sources.append(embedder.source(model, name, baseline=True))
        if len(fitted_on):
            sources.append(linear_source(sources[-1], embedder.manifest.items, fitted_on))
    return [*sources, *(embedder.source(m, name, baseline=False) for name, m in models)]
