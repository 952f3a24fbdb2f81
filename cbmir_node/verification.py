"""Do archive, catalogue, vectors and index agree, and what mends them where they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cbmir_node.catalog import consistency
from cbmir_node.catalog.consistency import StoredInstance
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.retention.removal import empty_rows, remove_all_empty
from cbmir_node.catalog.retention.unused_files import all_unused_files
from cbmir_node.errors import CbmirError, ConfigurationError, InvalidObjectError
from cbmir_node.intake import Intake
from cbmir_node.node import open_search
from cbmir_node.presence import only_node
from cbmir_node.retention.removal import finish_removals
from cbmir_node.stores import Stores

Kind = Literal[
    "file without a row",
    "row without its file",
    "file damaged",
    "instance never queued",
    "embedded without a vector",
    "vector of a wrong length",
    "index differs",
    "removal not finished",
    "nothing in it",
]

_REMEDIES: dict[Kind, str] = {
    "file without a row": "stored but never acknowledged; --repair takes it in",
    "row without its file": (
        "send the object again; or --repair counts its pixels as not kept, so that "
        "'pull SOURCE --again' fetches them"
    ),
    "file damaged": "send the object again",
    "instance never queued": "--repair queues it",
    "embedded without a vector": "--repair queues it again",
    "vector of a wrong length": "--repair queues it again",
    "index differs": "--repair rebuilds it from the catalogue while no node runs",
    "removal not finished": "--repair, or a running node, finishes it",
    "nothing in it": "--repair removes it",
}
_YOUNG_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One disagreement.

    Attributes
    ----------
    kind : str
        What is wrong.
    subject : str
        SOP Instance UID, file, table or index concerned.
    row : int
        Instance concerned, 0 where there is none.
    model : int
        Model concerned, 0 where there is none.
    """

    kind: Kind
    subject: str
    row: int = 0
    model: int = 0

    @property
    def remedy(self) -> str:
        """What can be done about it."""
        return _REMEDIES[self.kind]


class Verification:
    """Compares the stores with each other.

    Parameters
    ----------
    stores : Stores
        Opened; a node may run beside.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._receiving = stores.archive.is_receiving()

    def findings(
        self, *, deep: bool = False, on_checked: Callable[[int], None] = lambda _: None
    ) -> list[Finding]:
        """Return every disagreement.

        Parameters
        ----------
        deep : bool
            Read every file and compare its content's digest.
        on_checked : callable
            Called with the number of instances whose files were looked at since the last call.
        """
        found = [*self._archive(deep=deep, on_checked=on_checked), *self._removals()]
        for model in self._stores.registry.in_use():
            found += self._vectors(model)
        if any(model.state == "active" for model in self._stores.registry.in_use()):
            found += self._index()
        return found

    def repair(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mend what can be mended; return what was."""
        # "keep", whatever is configured: a file without a row was never acknowledged, or a newer
        # one has taken its place
        intake = Intake(
            self._stores.archive,
            self._stores.catalog,
            duplicates="keep",
            retention=self._stores.settings.retention,
        )
        try:
            mended = [finding for finding in findings if self._mend(finding, intake.adopt)]
        finally:
            intake.close()
        mended += self._let_go(findings)
        mended += self._finish_removals(findings)
        index = [finding for finding in findings if finding.kind == "index differs"]
        if index and self._rebuild_index():
            mended += index
        return mended

    def _let_go(self, findings: Sequence[Finding]) -> list[Finding]:
        """Take lost files from their rows, so that the objects count as ones without pixels."""
        archive, catalog = self._stores.archive, self._stores.catalog
        lost = [finding for finding in findings if finding.kind == "row without its file"]
        if not lost or next(archive.files(), None) is None:
            return []  # an archive without any file may just not be mounted
        mended = []
        for finding in lost:
            path = consistency.file_of(catalog, finding.row)
            if path and not archive.path(path).exists():
                consistency.let_go(catalog, finding.row, path)
                mended.append(finding)
        return mended

    def _finish_removals(self, findings: Sequence[Finding]) -> list[Finding]:
        """Remove what is to be removed, and rows that nothing is in."""
        catalog, archive = self._stores.catalog, self._stores.archive
        left = [finding for finding in findings if finding.kind == "removal not finished"]
        if left:
            finish_removals(catalog, archive)
        empty = [finding for finding in findings if finding.kind == "nothing in it"]
        if empty:
            remove_all_empty(catalog)
        return [*left, *empty]

    def _rebuild_index(self) -> bool:
        """Rebuild the snapshot, unless a running node owns it."""
        try:
            with only_node(self._stores.settings.data_dir):
                for cache in open_search(self._stores, writable=True).active_caches():
                    cache.rebuild()
        except ConfigurationError:
            return False
        return True

    def _archive(self, *, deep: bool, on_checked: Callable[[int], None]) -> Iterator[Finding]:
        # files first: what is acknowledged in between has a row by the time rows are read, and
        # what is removed in between is known as unused until it is gone
        files = set(self._stores.archive.files())
        instances = consistency.stored_instances(self._stores.catalog)
        rows = {row.path: row for row in instances if row.path}
        unused = all_unused_files(self._stores.catalog)
        for path in sorted(files - rows.keys() - unused):
            if not self._may_be_on_its_way(path):
                yield Finding("file without a row", path)
        for path, row in rows.items():
            on_checked(1)
            kind = self._problem(row, present=path in files, deep=deep)
            if kind is not None and consistency.has_file(self._stores.catalog, row):
                yield Finding(kind, row.sop_instance_uid, row.instance)

    def _problem(self, row: StoredInstance, *, present: bool, deep: bool) -> Kind | None:
        """Tell what is wrong with an instance's file, as far as its row is not out of date."""
        if not present and not self._stores.archive.path(row.path).exists():
            return "row without its file"
        return "file damaged" if self._is_damaged(row, deep=deep) else None

    def _removals(self) -> Iterator[Finding]:
        """Name what an interrupted deletion left; a running node is at the youngest of it."""
        until = time.time() - (_YOUNG_S if self._receiving else 0)
        for uid in consistency.to_be_removed(self._stores.catalog, until):
            yield Finding("removal not finished", uid)
        for path in consistency.unused_since(self._stores.catalog, until):
            if self._stores.archive.path(path).exists():
                yield Finding("removal not finished", path)
        for table, row in empty_rows(self._stores.catalog):
            yield Finding("nothing in it", f"{table} {row}")

    def _is_damaged(self, row: StoredInstance, *, deep: bool) -> bool:
        """Tell whether a file has another size, on a deep look another content, than it should."""
        archive = self._stores.archive
        try:
            if archive.path(row.path).stat().st_size != row.size_bytes:
                return True
            return deep and archive.content_sha256(row.path) != row.sha256
        except (InvalidObjectError, OSError):
            return True

    def _may_be_on_its_way(self, path: str) -> bool:
        """Tell whether a file is being received, or has been removed since it was listed."""
        try:
            age = time.time() - self._stores.archive.path(path).stat().st_mtime
        except FileNotFoundError:
            return True
        return self._receiving and age < _YOUNG_S

    def _vectors(self, model: InstalledModel) -> Iterator[Finding]:
        checks: dict[Kind, Callable[..., list[tuple[int, str]]]] = {
            "instance never queued": consistency.never_queued,
            "embedded without a vector": consistency.without_vector,
            "vector of a wrong length": consistency.wrong_length,
        }
        for kind, check in checks.items():
            for row, uid in check(self._stores.catalog, model):
                yield Finding(kind, uid, row, model.row)

    def _index(self) -> Iterator[Finding]:
        for cache in open_search(self._stores, writable=False).active_caches():
            if cache.snapshot_problem:
                yield Finding("index differs", cache.snapshot_problem)
            cache.catch_up()
            for disagreement in cache.disagreements():
                yield Finding("index differs", str(disagreement))

    def _mend(self, finding: Finding, adopt: Callable[[str], object]) -> bool:
        match finding.kind:
            case "file without a row":
                try:
                    adopt(finding.subject)
                except (CbmirError, OSError):  # no object, or a node has just dealt with it
                    return False
                return True
            case "instance never queued" | "embedded without a vector" | "vector of a wrong length":
                consistency.queue_again(self._stores.catalog, finding.model, finding.row)
                return True
            case _:
                return False
