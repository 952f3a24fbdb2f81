"""The composition root: builds the node from its settings, starts it and stops it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading

from prometheus_client import CollectorRegistry
from threadpoolctl import threadpool_limits

from cbmir_node.config import Settings
from cbmir_node.dicom.server import DicomServer
from cbmir_node.forwarding.forwarder import Forwarder
from cbmir_node.forwarding.rules import ForwardingRules
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.intake import Intake
from cbmir_node.logs import recent_troubles
from cbmir_node.observation.counts import CatalogCounts
from cbmir_node.observation.health import NodeObservation
from cbmir_node.observation.queries import TimedSearch
from cbmir_node.observation.rates import RateSampler
from cbmir_node.presence import make_data_folder, only_node
from cbmir_node.presentation.examples import TemporaryExamples
from cbmir_node.presentation.explanations import Explanations
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.presentation.pictures import Pictures
from cbmir_node.retention.duty import RetentionDuty
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.stores import Stores, open_stores
from cbmir_node.supervisor import WorkerSupervisor
from cbmir_node.web.app import create_app
from cbmir_node.web.server import HttpServer
from cbmir_node.web.services import WebServices

_MAINTENANCE_S = 2.0
_SWITCH_S = 0.001
_MOST_DECODERS = 16
_MOST_WAITING = 16
"""Requests over HTTP have 40 threads: some are left for those that need no decoder."""

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
        # queries come from many threads at a time; those of each matrix product would wait for
        # one another, spinning, and each of a query's many small reads for another's computing
        exits.enter_context(threadpool_limits(1, user_api="blas"))
        exits.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_S)
        self._troubles = exits.enter_context(recent_troubles())
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
        self._supervisor = WorkerSupervisor(settings, self._troubles)
        self._supervisor.start()
        exits.callback(self._supervisor.stop)
        self._registry = CollectorRegistry(auto_describe=False)
        self._queries = TimedSearch(self.search, self._registry)
        self.dicom = DicomServer(settings, self.intake, self.stores.catalog, self._queries)
        self.dicom.start()
        exits.callback(self.dicom.stop)
        self._counts = CatalogCounts(self.stores)
        self._rates = RateSampler(self._counts, self._queries.answered)
        self._rates.start()
        exits.callback(self._rates.stop)
        decoders = exits.enter_context(
            DecoderPool(settings.imaging, min(os.cpu_count() or 1, _MOST_DECODERS), _MOST_WAITING)
        )
        self.services = self._web_services(decoders)
        exits.callback(self.services.examples.close)
        maintenance = threading.Thread(target=self._maintain, name="maintenance", daemon=True)
        maintenance.start()
        exits.callback(maintenance.join)
        exits.callback(self._stop.set)
        self.http = HttpServer(settings.http, create_app(self.services))
        self.http.start()
        exits.callback(self.http.stop)

    def _web_services(self, decoders: DecoderPool) -> WebServices:
        """Gather what requests over HTTP are answered with."""
        network = ActiveNetwork(self.stores)
        return WebServices(
            settings=self.settings,
            stores=self.stores,
            intake=self.intake,
            search=self._queries,
            decoders=decoders,
            pictures=Pictures(self.stores, decoders),
            examples=TemporaryExamples(self.settings.examples_path, self.stores, decoders, network),
            network=network,
            explanations=Explanations(network, decoders),
            health=self._observation(network),
        )

    def _observation(self, network: ActiveNetwork) -> NodeObservation:
        """Gather what tells how the node is."""
        return NodeObservation(
            registry=self._registry,
            index_problem=lambda: self._maintenance_error,
            counts=self._counts,
            rates=self._rates,
            troubles=self._troubles,
            stores=self.stores,
            search=self.search,
            dicom=self.dicom,
            forwarder=self._forwarder,
            retention=self._retention,
            supervisor=self._supervisor,
            network=network,
        )

    def _maintain(self) -> None:
        """Keep the index warm, so that no query waits for a long catch-up.

        A model takes over here, not in the worker: after a round that has opened its index. A
        snapshot that cannot be written does not keep it from that.
        """
        while not self._stop.wait(_MAINTENANCE_S):
            problems = []
            for duty in (self._switch, self.search.tidy, self.services.examples.forget_unused):
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
