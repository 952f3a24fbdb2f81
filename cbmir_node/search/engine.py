"""Answers similarity queries with the active model, and keeps its indexes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.vectors.lookup import VectorLookup
from cbmir_node.catalog.vectors.rows import EMBEDDING, CodeRows, VectorRows
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import CatalogError, NoExampleError, QueryError
from cbmir_node.index import Metric, SpaceCache, SpaceIdentity, remove_snapshots
from cbmir_node.search.choices import choose, missing
from cbmir_node.search.comparison import Comparison
from cbmir_node.search.pipeline import Pipeline
from cbmir_node.search.query import Choices, Method, SimilarityAnswer, SimilarityQuery

_ATTEMPTS = 3
_IDLE_S = 600.0
"""How long an index that only some query asked for is kept after the last such query."""

_log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """Room for the index of one model, space and metric, empty until somebody needs it."""

    opening: threading.Lock = field(default_factory=threading.Lock)
    cache: SpaceCache | None = None
    used_at: float = 0.0


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
        self._slots: dict[tuple[int, str, Metric], _Slot] = {}
        self._warned_of: set[int] = set()
        self._lock = threading.Lock()

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        """Rank studies, series or images by similarity to the query's examples.

        Raises
        ------
        NoExampleError, UnknownExampleError, NotEmbeddedError
            There is nothing to compare with.
        QueryError
            A choice, filter or number is not usable, or the model lacks what it takes.
        CatalogError
            The catalogue does not answer, or changed faster than the query could follow.
        """
        if not query.examples:
            raise NoExampleError(
                "the query names no study, series, instance or file to compare with"
            )
        model = self._registry.active()
        choices = choose(query, self._settings, model)
        pipeline = Pipeline(query, choices, *self._comparisons(model, choices))
        for attempt in range(1, _ATTEMPTS + 1):
            for cache in {pipeline.near.cache, pipeline.final.cache}:
                cache.catch_up()
            try:
                matches = pipeline.run()
                break
            except KeyError as error:  # a worker replaced vectors between catalogue and index
                if attempt == _ATTEMPTS:
                    raise CatalogError(
                        "the catalogue changed during the query; ask again"
                    ) from error
        name = f"{model.name}:{model.version}"
        return SimilarityAnswer(query.level, name, matches, choices)

    def _comparisons(
        self, model: InstalledModel, choices: Choices
    ) -> tuple[Comparison, Comparison]:
        """Return what finds near images, and what ranks them."""
        indexes = _indexes(choices.method, choices.space, rerank=choices.rerank)
        lookups = {space: VectorLookup(self._catalog, model.row, space) for space, _ in indexes}
        found = [
            Comparison(metric, self.cache(model, metric, space), lookups[space])
            for space, metric in indexes
        ]
        return found[0], found[-1]

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        """Return the Study Instance UID of the newest study that matches ordinary keys."""
        model = self._registry.active()
        return VectorLookup(self._catalog, model.row, EMBEDDING).newest_study(filters)

    def cache(self, model: InstalledModel, metric: Metric, space: str = EMBEDDING) -> SpaceCache:
        """Return the index of a model's vectors under a metric, opened when first needed.

        Opening may take long; only those who want the same index wait for it.

        Parameters
        ----------
        model : InstalledModel
            It has the space; with ``hamming`` a hash code.
        metric : {"cosine", "euclidean", "hamming"}
        space : str
            With ``hamming`` always ``embedding``, in whose rows the codes are.
        """
        with self._lock:
            slot = self._slots.setdefault((model.row, space, metric), _Slot())
            slot.used_at = time.monotonic()
        with slot.opening:
            if slot.cache is None:
                slot.cache = SpaceCache.open(
                    self._folder,
                    _identity(model, metric, space),
                    self._source(model, metric, space),
                    self._index_settings.device,
                    writable=self._writable,
                )
            return slot.cache

    def _source(self, model: InstalledModel, metric: Metric, space: str) -> VectorRows:
        dimension = _identity(model, metric, space).dimension
        if metric == "hamming":
            return CodeRows(self._catalog, model.row, dimension)
        return VectorRows(self._catalog, model.row, space, dimension)

    def active_cache(self) -> SpaceCache:
        """Return the index that a query without wishes searches; see `active_caches`."""
        return self.active_caches()[0]

    def active_caches(self) -> list[SpaceCache]:
        """Return the indexes that a query without wishes uses, the searched one first.

        Where the model in use lacks the configured code or space, so that such a query is refused,
        it is that of the vectors which every model has.
        """
        model = self._registry.active()
        return [self.cache(model, metric, space) for space, metric in self._configured(model)]

    def prepare(self) -> set[int]:
        """Open the configured indexes of the models in use, and let them catch up.

        The next model's are opened while the active one answers, so that no query waits when it
        takes over.

        Returns
        -------
        set of int
            Rows of the models that are ready to answer.
        """
        models = sorted(self._registry.in_use(), key=lambda model: model.state != "active")
        for model in models:
            self._warn_if_unanswerable(model)
            for space, metric in self._configured(model):
                self.cache(model, metric, space).catch_up()
        return {model.row for model in models}

    def tidy(self) -> None:
        """Drop the indexes that nobody needs, and write the snapshots that are due.

        Not needed are those of models that are not in use, and those that are not configured and
        were not asked for lately: a peer may choose any space and metric.

        Raises
        ------
        SnapshotError
            One could not be written; searches go on.
        """
        models = {model.row: model for model in self._registry.in_use()}
        configured = {
            (row, space, metric)
            for row, model in models.items()
            for space, metric in self._configured(model)
        }
        latest = time.monotonic() - _IDLE_S
        with self._lock:
            self._slots = {
                key: slot
                for key, slot in self._slots.items()
                if key in configured or (key[0] in models and slot.used_at > latest)
            }
            kept = dict(self._slots)
        if not self._writable:
            return
        identities = [
            _identity(models[row], metric, space) for row, space, metric in {*kept, *configured}
        ]
        remove_snapshots(self._folder, identities)
        for slot in kept.values():
            if slot.cache is not None:
                self._write_if_due(slot.cache)

    def _configured(self, model: InstalledModel) -> list[tuple[str, Metric]]:
        """Return space and metric of the indexes that a query without wishes uses."""
        settings = self._settings
        wanted = _indexes(settings.method, settings.space, rerank=settings.rerank)
        if any(missing(model, metric, space) for space, metric in wanted):
            return [(EMBEDDING, "cosine" if settings.method == "hamming" else settings.method)]
        return wanted

    def _warn_if_unanswerable(self, model: InstalledModel) -> None:
        """Tell once of a model that lacks what is configured."""
        try:
            choose(SimilarityQuery([]), self._settings, model)
        except QueryError as error:
            if model.row not in self._warned_of:
                self._warned_of.add(model.row)
                _log.warning(
                    "with the model %s:%s queries that choose nothing else are refused: %s",
                    *(model.name, model.version, error),
                )

    def _write_if_due(self, cache: SpaceCache) -> None:
        cache.catch_up()
        if cache.snapshot_if_due(self._index_settings.snapshot_rows):
            _log.info("index snapshot written, %d vectors", len(cache))


def _identity(model: InstalledModel, metric: Metric, space: str) -> SpaceIdentity:
    dimension = model.code_bits // 8 if metric == "hamming" else model.spaces[space]
    return SpaceIdentity(model.sha256, space, metric, dimension)


def _indexes(method: Method, space: str, *, rerank: bool) -> list[tuple[str, Metric]]:
    """Return space and metric of the index that is searched, and of the one that re-ranks."""
    if method != "hamming":
        return [(space, method)]
    codes: tuple[str, Metric] = (EMBEDDING, "hamming")
    return [codes, (space, "cosine")] if rerank else [codes]
