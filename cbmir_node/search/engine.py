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
from cbmir_node.catalog.vectors import EMBEDDING, CodeRows, VectorRows
from cbmir_node.config import IndexSettings, SearchSettings
from cbmir_node.errors import CatalogError, NoExampleError
from cbmir_node.index import Metric, SpaceCache, SpaceIdentity, remove_snapshots
from cbmir_node.search.choices import Choices, choose, missing
from cbmir_node.search.comparison import Comparison
from cbmir_node.search.pipeline import Pipeline
from cbmir_node.search.query import Method, SimilarityAnswer, SimilarityQuery

_ATTEMPTS = 3

_log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """Room for the index of one model, space and metric, empty until somebody needs it."""

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
            pipeline.near.cache.catch_up()
            pipeline.final.cache.catch_up()
            try:
                matches = pipeline.run()
                break
            except KeyError as error:  # a worker replaced vectors between catalogue and index
                if attempt == _ATTEMPTS:
                    raise CatalogError(
                        "the catalogue changed during the query; ask again"
                    ) from error
        name = f"{model.name}:{model.version}"
        return SimilarityAnswer(query.level, choices.method, name, matches, choices.space)

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
        with slot.opening:
            if slot.cache is None:
                source = self._source(model, metric, space)
                slot.cache = SpaceCache.open(
                    self._folder,
                    SpaceIdentity(model.sha256, space, metric, source.dimension),
                    source,
                    self._index_settings.device,
                    writable=self._writable,
                )
            return slot.cache

    def _source(self, model: InstalledModel, metric: Metric, space: str) -> VectorRows:
        if metric == "hamming":
            return CodeRows(self._catalog, model.row, model.code_bits // 8)
        return VectorRows(self._catalog, model.row, space, model.spaces[space])

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

    def maintain(self) -> None:
        """Keep the indexes of the models in use up to date, and drop those of all others.

        The next model's index is opened while the active one answers, so that no query waits when
        it takes over. Snapshots are written when they are due.
        """
        models = sorted(self._registry.in_use(), key=lambda model: model.state != "active")
        with self._lock:
            used = {(space, metric) for _, space, metric in self._slots}
        for model in models:
            self._warn_if_unanswerable(model)
            possible = {one for one in used if not missing(model, one[1], one[0])}
            for space, metric in sorted(possible | set(self._configured(model))):
                self._maintain(self.cache(model, metric, space))
        in_use = {model.row for model in models}
        with self._lock:
            self._slots = {key: slot for key, slot in self._slots.items() if key[0] in in_use}
        if self._writable:
            remove_snapshots(self._folder, {model.sha256 for model in models})

    def _configured(self, model: InstalledModel) -> list[tuple[str, Metric]]:
        """Return space and metric of the indexes that a query without wishes uses."""
        settings = self._settings
        wanted = _indexes(settings.method, settings.space, rerank=settings.rerank)
        if any(missing(model, metric, space) for space, metric in wanted):
            return [(EMBEDDING, "cosine" if settings.method == "hamming" else settings.method)]
        return wanted

    def _warn_if_unanswerable(self, model: InstalledModel) -> None:
        """Tell once of a model that lacks what is configured."""
        settings = self._settings
        problems = [
            problem
            for space, metric in _indexes(settings.method, settings.space, rerank=settings.rerank)
            if (problem := missing(model, metric, space))
        ]
        if problems and model.row not in self._warned_of:
            self._warned_of.add(model.row)
            _log.warning("queries that choose nothing else will be refused: %s", problems[0])

    def _maintain(self, cache: SpaceCache) -> None:
        cache.catch_up()
        if self._writable and cache.snapshot_if_due(self._index_settings.snapshot_rows):
            _log.info("index snapshot written, %d vectors", len(cache))


def _indexes(method: Method, space: str, *, rerank: bool) -> list[tuple[str, Metric]]:
    """Return space and metric of the index that is searched, and of the one that re-ranks."""
    if method != "hamming":
        return [(space, method)]
    codes: tuple[str, Metric] = (EMBEDDING, "hamming")
    return [codes, (space, "cosine")] if rerank else [codes]
