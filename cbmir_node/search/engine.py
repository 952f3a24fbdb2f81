"""Answers similarity queries with the active model, and keeps its indexes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.vector_lookup import VectorLookup
from cbmir_node.catalog.vectors import VectorRows
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import CatalogError, NoExampleError, QueryError
from cbmir_node.index import Metric, SpaceCache, SpaceIdentity, remove_snapshots
from cbmir_node.search.pipeline import Pipeline
from cbmir_node.search.query import METHODS, SimilarityAnswer, SimilarityQuery

_SPACE = "embedding"
_ATTEMPTS = 3

_log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """Room for the index of one model and metric, empty until somebody needs it."""

    opening: threading.Lock = field(default_factory=threading.Lock)
    cache: SpaceCache | None = None


class SimilaritySearch:
    """The retrieval pipeline over one catalogue; safe to use from many threads.

    Parameters
    ----------
    catalog : Catalog
        Tags and vectors.
    index_folder : Path
        Where index snapshots are.
    search, index : SearchSettings, IndexSettings
        Defaults, limits and device.
    writable : bool
        Whether this process may write snapshots: the node, not the tools beside it.
    """

    def __init__(
        self,
        catalog: Catalog,
        index_folder: Path,
        search: SearchSettings,
        index: IndexSettings,
        *,
        writable: bool,
    ) -> None:
        self._catalog = catalog
        self._folder = index_folder
        self._settings = search
        self._index_settings = index
        self._writable = writable
        self._registry = ModelRegistry(catalog)
        self._slots: dict[tuple[int, Metric], _Slot] = {}
        self._lock = threading.Lock()

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        """Rank studies, series or images by similarity to the query's examples.

        Raises
        ------
        NoExampleError, UnknownExampleError, NotEmbeddedError
            There is nothing to compare with.
        QueryError
            A filter, method or number is not usable.
        CatalogError
            The catalogue does not answer, or changed faster than the query could follow.
        """
        if not query.examples:
            raise NoExampleError(
                "the query names no study, series, instance or file to compare with"
            )
        method = query.method or self._settings.method
        if method not in METHODS:
            raise QueryError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        k = self._settings.results if query.k is None else query.k
        if k < 1:
            raise QueryError("the number of results must be at least 1")
        same_patient = query.exclude_same_patient
        model = self._registry.active()
        pipeline = Pipeline(
            query=query,
            method=method,
            k=min(k, self._settings.max_results),
            exclude_same_patient=(
                self._settings.exclude_same_patient if same_patient is None else same_patient
            ),
            lookup=VectorLookup(self._catalog, model.row, _SPACE),
            cache=self.cache(model, method),
        )
        for attempt in range(1, _ATTEMPTS + 1):
            pipeline.cache.catch_up()
            try:
                matches = pipeline.run()
                break
            except KeyError as error:  # a worker replaced vectors between catalogue and index
                if attempt == _ATTEMPTS:
                    raise CatalogError(
                        "the catalogue changed during the query; ask again"
                    ) from error
        return SimilarityAnswer(query.level, method, f"{model.name}:{model.version}", matches)

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return the Study Instance UID of the newest study that matches ordinary keys."""
        model = self._registry.active()
        return VectorLookup(self._catalog, model.row, _SPACE).newest_study(filters)

    def cache(self, model: InstalledModel, metric: Metric) -> SpaceCache:
        """Return the index of a model's vectors under a metric, opened when first needed.

        Opening may take long; only those who want the same index wait for it.
        """
        with self._lock:
            slot = self._slots.setdefault((model.row, metric), _Slot())
        with slot.opening:
            if slot.cache is None:
                dimension = model.spaces[_SPACE]
                slot.cache = SpaceCache.open(
                    self._folder,
                    SpaceIdentity(model.sha256, _SPACE, metric, dimension),
                    VectorRows(self._catalog, model.row, _SPACE, dimension),
                    self._index_settings.device,
                    writable=self._writable,
                )
            return slot.cache

    def active_cache(self) -> SpaceCache:
        """Return the index that a query without wishes would use."""
        return self.cache(self._registry.active(), self._settings.method)

    def maintain(self) -> None:
        """Keep the indexes of the models in use up to date, and drop those of all others.

        The next model's index is opened while the active one answers, so that no query waits when
        it takes over. Snapshots are written when they are due.
        """
        models = sorted(self._registry.in_use(), key=lambda model: model.state != "active")
        with self._lock:
            metrics = {metric for _, metric in self._slots} | {self._settings.method}
        for model in models:
            for metric in metrics:
                self._maintain(self.cache(model, metric))
        in_use = {model.row for model in models}
        with self._lock:
            self._slots = {key: slot for key, slot in self._slots.items() if key[0] in in_use}
        if self._writable:
            remove_snapshots(self._folder, {model.sha256 for model in models})

    def _maintain(self, cache: SpaceCache) -> None:
        cache.catch_up()
        if self._writable and cache.snapshot_if_due(self._index_settings.snapshot_rows):
            _log.info("index snapshot written, %d vectors", len(cache))
