"""One vector space of the catalogue, kept ready for search.

The catalogue's rows are the truth. The cache starts from a snapshot, follows the catalogue's
additions and removals by row number, and writes a new snapshot when much has changed; whatever is
lost or damaged on disk costs time, never data.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cbmir_node.errors import SnapshotError
from cbmir_node.index import exact
from cbmir_node.index.base_and_tail import BaseAndTail
from cbmir_node.index.comparison import Disagreement, compare
from cbmir_node.index.faiss_gpu import Device, GpuFlatIndex, flat_index
from cbmir_node.index.hamming import HammingIndex
from cbmir_node.index.protocol import BoolArray, Int64Array, Neighbours, VectorArray
from cbmir_node.index.rows import Rows
from cbmir_node.index.snapshot import SpaceIdentity, read_snapshot, write_snapshot
from cbmir_node.index.source import SourceCounts, VectorSource, additions, removals

_COUNT_ATTEMPTS = 10

_SNAPSHOT_SHARE = 0.05
"""A snapshot also waits for this share of the rows, so that all snapshots together write a fixed
multiple of the final size and not its square."""

_log = logging.getLogger(__name__)


@dataclass
class _Followed:
    """An index and the last catalogue rows it has seen."""

    index: BaseAndTail
    last_vector_row: int = 0
    last_removal_row: int = 0


class SpaceCache:
    """The index of one vector space, following the catalogue; see `open`.

    All methods may be called from several threads. Searches never wait: rebuilding and writing a
    snapshot happen beside the index in use, which is replaced in one step at the end.

    Attributes
    ----------
    snapshot_problem : str
        Why the snapshot on disk could not be used when the cache was opened; empty when it could.
    """

    def __init__(
        self,
        folder: Path,
        identity: SpaceIdentity,
        source: VectorSource,
        device: Device,
        *,
        writable: bool,
    ) -> None:
        self.identity = identity
        self._folder = folder
        self._source = source
        self._device: Device = device
        self._writable = writable
        self._following = threading.Lock()
        self._replacing = threading.Lock()
        self._warned_of: set[int] = set()
        self.snapshot_problem = ""
        self._followed = self._opened() or self._rebuilt()

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: SpaceIdentity,
        source: VectorSource,
        device: Device,
        *,
        writable: bool,
    ) -> SpaceCache:
        """Load the snapshot and catch up, or rebuild from the catalogue.

        Parameters
        ----------
        folder : Path
            Root of all snapshots; each identity has its own folder below.
        identity : SpaceIdentity
        source : VectorSource
            The catalogue's rows of this model and space.
        device : {"auto", "gpu", "cpu"}
            Of vectors; codes are always searched on the CPU.
        writable : bool
            Whether this process writes snapshots; only one per `folder` may.

        Raises
        ------
        ConfigurationError
            ``gpu`` is wanted and not there.
        MissingPackageError
            FAISS is not installed.
        """
        return cls(folder, identity, source, device, writable=writable)

    def catch_up(self) -> int:
        """Apply what changed in the catalogue; call it before a search.

        Returns
        -------
        int
            Additions and removals applied. Costs two empty reads when there are none.
        """
        with self._following:
            return self._follow(self._followed)

    def search(
        self,
        queries: VectorArray,
        k: int,
        *,
        allowed: Int64Array | None = None,
        excluded: Int64Array | None = None,
    ) -> Neighbours:
        """Search what was last caught up with; see `VectorIndex.search`."""
        return self._followed.index.search(queries, k, allowed=allowed, excluded=excluded)

    def vectors(self, ids: Int64Array) -> VectorArray:
        """Return stored vectors; see `VectorIndex.vectors`."""
        return self._followed.index.vectors(ids)

    def holds(self, ids: Int64Array) -> BoolArray:
        """Return which `ids` [n] are searched: the catalogue may have newer and damaged ones."""
        return self._followed.index.holds(ids)

    def __len__(self) -> int:
        return len(self._followed.index)

    @property
    def device(self) -> Literal["gpu", "cpu"]:
        """What searches run on."""
        return "gpu" if isinstance(self._followed.index, GpuFlatIndex) else "cpu"

    def snapshot_if_due(self, rows: int) -> bool:
        """Write a snapshot without tombstones when enough has changed, and go on from it.

        Parameters
        ----------
        rows : int
            Unsaved additions and removals from which on it is due, and at least 5 % of all rows.

        Returns
        -------
        bool
            Whether one was written: never by a cache that is not writable.

        Raises
        ------
        SnapshotError
            It could not be written; the index in use is unharmed.
        """
        unsaved = self._followed.index.unsaved
        if not self._writable or unsaved < max(rows, _SNAPSHOT_SHARE * len(self)):
            return False
        if not self._replacing.acquire(blocking=False):
            return False  # another thread is at it
        try:
            with self._following:
                followed = self._followed
                parts = followed.index.parts
                last_rows = followed.last_vector_row, followed.last_removal_row
            write_snapshot(self._folder, self.identity, parts, *last_rows)
            fresh = self._loaded()
            if fresh is not None:
                self._replace(fresh)
        finally:
            self._replacing.release()
        return True

    def rebuild(self) -> None:
        """Read every vector from the catalogue again, beside the index in use."""
        with self._replacing:
            self._replace(self._rebuilt())

    def disagreements(self) -> list[Disagreement]:
        """Compare every row with the catalogue; `rebuild` repairs what is found.

        Returns
        -------
        list of Disagreement
            Ascending by id. Changes made meanwhile are not reported.
        """
        with self._following:
            followed = self._followed
            self._follow(followed)
            last_vector_row = followed.last_vector_row
        problems = compare(followed.index, self._source, last_vector_row)
        self.catch_up()
        remaining = set(self._followed.index.ids().tolist())
        return [
            problem
            for problem in problems
            if problem.problem == "not in the index" or problem.id in remaining
        ]

    def _follow(self, followed: _Followed) -> int:
        """Apply additions, then removals.

        In this order because a row may be added and removed between two looks: the additions do
        not show it then, and its removal finds nothing to do. Read the other way round, a row
        removed between the two reads could stay.

        One damaged vector must not keep all others from being found: it is left out.
        """
        applied = 0
        for ids, vectors in additions(self._source, followed.last_vector_row):
            usable = exact.usable(vectors)
            followed.index.add(ids[usable], vectors[usable])
            if not np.all(usable):
                self._warn_of(ids[~usable])
            followed.last_vector_row = int(ids[-1])
            applied += len(ids)
        for rows, ids in removals(self._source, followed.last_removal_row):
            followed.index.remove(ids)
            followed.last_removal_row = int(rows[-1])
            applied += len(rows)
        return applied

    def _warn_of(self, unusable: Int64Array) -> None:
        """Tell once of each vector that no index can hold."""
        new = set(unusable.tolist()) - self._warned_of
        if new:
            self._warned_of |= new
            _log.warning(
                "%d vectors are damaged and left out of the index, the first is row %d; "
                "'cbmir-node verify' lists them",
                len(new),
                min(new),
            )

    def _replace(self, fresh: _Followed) -> None:
        with self._following:
            self._follow(fresh)
            self._followed = fresh

    def _loaded(self) -> _Followed | None:
        """Return the snapshot as it lies on disk."""
        snapshot = read_snapshot(self._folder, self.identity)
        if snapshot is None:
            return None
        index = self._index(snapshot.rows, self._device)
        return _Followed(index, snapshot.last_vector_row, snapshot.last_removal_row)

    def _index(self, base: Rows | None, device: Device) -> BaseAndTail:
        """Build the index of this space; codes are searched on the CPU, whatever the device."""
        dimension, metric = self.identity.dimension, self.identity.metric
        if metric == "hamming":
            return HammingIndex(dimension, base)
        return flat_index(dimension, metric, device, base)

    def _opened(self) -> _Followed | None:
        """Return the caught-up snapshot, or ``None`` when it cannot be used."""
        try:
            followed = self._loaded()
            if followed is not None and not self._agrees(followed):
                raise SnapshotError("the index snapshot is not of this catalogue's content")
        except SnapshotError as error:
            _log.warning("%s; the index is rebuilt from the catalogue", error)
            self.snapshot_problem = str(error)
            return None
        return followed

    def _agrees(self, followed: _Followed) -> bool:
        """Catch up and tell whether the counts fit: not after a restored or replaced catalogue."""
        for _ in range(_COUNT_ATTEMPTS):
            counts = SourceCounts(*self._source.counts())
            self._follow(followed)
            if counts == self._source.counts():  # nothing came in between: comparable
                ids = followed.index.ids()
                return (
                    len(ids) == counts.vectors
                    and (not len(ids) or int(ids[-1]) <= counts.last_vector_row)
                    and followed.last_removal_row <= counts.last_removal_row
                )
        return True  # too busy to tell; `disagreements` finds out

    def _rebuilt(self) -> _Followed:
        """Return an index of all rows, from a fresh snapshot where one may be written."""
        # Read first: what is removed from now on is in the log behind this row.
        _, _, last_removal_row = self._source.counts()
        collected = _Followed(self._index(None, "cpu"), 0, last_removal_row)
        self._follow(collected)
        last_rows = collected.last_vector_row, collected.last_removal_row
        if self._writable:
            try:
                write_snapshot(self._folder, self.identity, collected.index.parts, *last_rows)
                return self._loaded() or collected
            except SnapshotError as error:
                _log.warning("%s", error)
        return _Followed(self._index(collected.index.parts[1], self._device), *last_rows)
