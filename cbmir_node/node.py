"""The composition root: builds the node from its settings, starts it and stops it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping

from cbmir_node.catalog.forwarding.overview import count_forwards
from cbmir_node.catalog.statistics import count_objects, count_states
from cbmir_node.config import Settings
from cbmir_node.dicom.server import DicomServer
from cbmir_node.errors import CbmirError
from cbmir_node.forwarding.forwarder import Forwarder
from cbmir_node.forwarding.rules import ForwardingRules
from cbmir_node.intake import Intake
from cbmir_node.presence import make_data_folder, only_node
from cbmir_node.retention.duty import RetentionDuty
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.stores import Stores, open_stores
from cbmir_node.supervisor import WorkerSupervisor
from cbmir_node.web.app import create_app
from cbmir_node.web.server import HttpServer

_MAINTENANCE_S = 2.0

_log = logging.getLogger(__name__)


class Node:
    """A running node; a context manager that starts and stops it.

    Parameters
    ----------
    settings : Settings
        Validated.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._exits = contextlib.ExitStack()
        self._stop = threading.Event()
        self._maintenance_error = ""

    def __enter__(self) -> Node:
        with contextlib.ExitStack() as exits:
            self._start(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._exits.close()

    def _start(self, exits: contextlib.ExitStack) -> None:
        """Start part by part; what was started is stopped in reverse order."""
        settings = self.settings
        make_data_folder(settings.data_dir)
        exits.enter_context(only_node(settings.data_dir))
        self.stores: Stores = open_stores(settings, create=True, alone=True)
        exits.callback(self.stores.close)
        swept = self.stores.archive.sweep()
        if swept:
            _log.info("removed %d interrupted receptions", swept)
        self.search = open_search(self.stores, writable=True)
        self.intake = open_intake(self.stores)
        exits.callback(self.intake.close)
        self._forwarder = Forwarder(self.stores)
        self._forwarder.start()
        exits.callback(self._forwarder.stop)
        self._retention = RetentionDuty(self.stores)
        self._retention.start()
        exits.callback(self._retention.stop)
        self._supervisor = WorkerSupervisor(settings)
        self._supervisor.start()
        exits.callback(self._supervisor.stop)
        maintenance = threading.Thread(target=self._maintain, name="maintenance", daemon=True)
        maintenance.start()
        exits.callback(maintenance.join)
        exits.callback(self._stop.set)
        self.dicom = DicomServer(settings, self.intake, self.stores.catalog, self.search)
        self.dicom.start()
        exits.callback(self.dicom.stop)
        self.http = HttpServer(settings.http, create_app(self))
        self.http.start()
        exits.callback(self.http.stop)

    def _maintain(self) -> None:
        """Keep the index warm, so that no query waits for a long catch-up.

        A model takes over here, not in the worker: after a round that has opened its index. A
        snapshot that cannot be written does not keep it from that.
        """
        while not self._stop.wait(_MAINTENANCE_S):
            problems = []
            for duty in (self._switch, self.search.tidy):
                try:
                    duty()
                except Exception as error:  # this thread must live on, and /readyz tell
                    problems.append(str(error))
                    if str(error) not in self._maintenance_error:
                        _log.exception("index maintenance failed; it is tried again")
            self._maintenance_error = "; ".join(problems)

    def _switch(self) -> None:
        """Let the next model take over, if it is ready and its index is open."""
        prepared = self.search.prepare()
        self.stores.registry.switch_if_ready(prepared)

    def problems(self) -> list[str]:
        """Return why the node cannot do its work right now; empty when it can."""
        problems = []
        if not self.stores.archive.has_room():
            problems.append("the disk reserve is reached: nothing more is stored")
        if not self._supervisor.is_running():
            problems.append("the embedding worker is not running")
        if self._maintenance_error:
            problems.append(f"the index is not up to date: {self._maintenance_error}")
        if self._forwarder.problem:
            problems.append(f"objects are not sent on: {self._forwarder.problem}")
        if self._retention.problem:
            problems.append(f"nothing is deleted or evicted: {self._retention.problem}")
        try:
            self.stores.registry.active()
        except CbmirError as error:
            problems.append(f"the catalogue does not answer: {error}")
        return problems

    def gauges(self) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """Return the present values for Prometheus."""
        model = self.stores.registry.active()
        objects = count_objects(self.stores.catalog)
        return {
            "cbmir_objects": ("Rows of the catalogue", objects),
            "cbmir_embedding_state": (
                "Instances by state of their embedding with the active model",
                count_states(self.stores.catalog, model.row),
            ),
            "cbmir_forwards": (
                "Objects to be sent on by state",
                count_forwards(self.stores.catalog),
            ),
            "cbmir_index_vectors": ("Vectors in the index", {"": len(self.search.active_cache())}),
            "cbmir_archive_free_bytes": (
                "Free space of the archive's file system",
                {"": self.stores.archive.free_bytes()},
            ),
            "cbmir_associations": ("Open associations", {"": self.dicom.active_associations()}),
        }

    def counters(self) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """Return what only grows, for Prometheus."""
        dicom = self.dicom.statistics
        return {
            "cbmir_associations_seen": (
                "Associations accepted, rejected, aborted",
                dict(dicom.associations),
            ),
            "cbmir_c_store": (
                "C-STORE responses by status",
                {f"{status:04X}": number for status, number in dicom.stores.items()},
            ),
            "cbmir_c_find": (
                "C-FIND operations by view and final status",
                {f"{view} {status:04X}": number for (view, status), number in dicom.finds.items()},
            ),
            "cbmir_retrievals": (
                "C-MOVE and C-GET operations by kind and final status",
                {
                    f"{kind} {status:04X}": number
                    for (kind, status), number in dicom.retrievals.items()
                },
            ),
            "cbmir_sub_operations": (
                "Objects of C-MOVE and C-GET operations by kind and outcome",
                {
                    f"{kind} {outcome}": number
                    for (kind, outcome), number in dicom.sub_operations.items()
                },
            ),
            "cbmir_forwarded": (
                "Objects sent on by destination and outcome",
                self._forwarder.counts(),
            ),
            "cbmir_retention": (
                "Objects that were removed, or lost their pixels, in the background",
                self._retention.counts(),
            ),
            "cbmir_worker_restarts": (
                "Times the worker ended and was started again",
                {"": self._supervisor.restarts},
            ),
        }


def open_intake(stores: Stores) -> Intake:
    """Build the way in, as configured."""
    settings = stores.settings
    return Intake(
        stores.archive,
        stores.catalog,
        settings.catalog.group_commit,
        settings.archive.duplicates,
        ForwardingRules(settings.forwarding.rules).destinations,
        settings.retention,
    )


def open_search(stores: Stores, *, writable: bool) -> SimilaritySearch:
    """Build the retrieval pipeline, as configured."""
    settings = stores.settings
    return SimilaritySearch(
        stores.catalog, settings.index_path, settings.search, settings.index, writable=writable
    )
