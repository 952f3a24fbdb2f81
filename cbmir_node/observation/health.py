"""What the node tells of itself: problems, metrics, and the administrator's report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, ProcessCollector

from cbmir_node import __version__
from cbmir_node.catalog.vectors.rows import EMBEDDING
from cbmir_node.dicom.server import DicomServer
from cbmir_node.errors import CbmirError
from cbmir_node.forwarding.forwarder import Forwarder
from cbmir_node.logs import RecentTroubles
from cbmir_node.observation.counts import CatalogCounts, Counts
from cbmir_node.observation.rates import RateSampler
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.retention.duty import RetentionDuty
from cbmir_node.search.engine import SimilaritySearch
from cbmir_node.stores import Stores
from cbmir_node.supervisor import WorkerSupervisor
from cbmir_node.web.node_health import Values
from cbmir_node.web.node_report import (
    Associations,
    DestinationReport,
    DiskReport,
    EmbeddingStates,
    FailedInstances,
    Forwards,
    IndexReport,
    LoggedTrouble,
    ModelReport,
    NextModel,
    NodeReport,
    ObjectCounts,
)


class NodeObservation:
    """Looks at the parts of a running node; see `cbmir_node.web.node_health.NodeHealth`.

    Parameters
    ----------
    registry : CollectorRegistry
        Of the metrics that are counted where they happen; gets those of the process, too.
    index_problem : callable
        Returns why the index is not up to date; empty when it is.
    counts, rates, troubles : CatalogCounts, RateSampler, RecentTroubles
    stores, search, dicom, forwarder, retention, supervisor, network
        The parts.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        index_problem: Callable[[], str],
        counts: CatalogCounts,
        rates: RateSampler,
        troubles: RecentTroubles,
        stores: Stores,
        search: SimilaritySearch,
        dicom: DicomServer,
        forwarder: Forwarder,
        retention: RetentionDuty,
        supervisor: WorkerSupervisor,
        network: ActiveNetwork,
    ) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self._index_problem = index_problem
        self._counts = counts
        self._rates = rates
        self._troubles = troubles
        self._stores = stores
        self._search = search
        self._dicom = dicom
        self._forwarder = forwarder
        self._retention = retention
        self._supervisor = supervisor
        self._network = network
        self._started = time.monotonic()

    def problems(self) -> list[str]:
        """Return why the node cannot do its work right now; empty when it can."""
        problems = []
        if not self._stores.archive.has_room():
            problems.append("the disk reserve is reached: nothing more is stored")
        if not self._supervisor.is_running():
            problems.append("the embedding worker is not running")
        if self._index_problem():
            problems.append(f"the index is not up to date: {self._index_problem()}")
        if self._forwarder.problem:
            problems.append(f"objects are not sent on: {self._forwarder.problem}")
        if self._retention.problem:
            problems.append(f"nothing is deleted or evicted: {self._retention.problem}")
        try:
            self._stores.registry.active()
        except CbmirError as error:
            problems.append(f"the catalogue does not answer: {error}")
        return problems

    def gauges(self) -> Mapping[str, Values]:
        """Return the present values for Prometheus."""
        counts, disk = self._counts.latest(), self._disk()
        waiting = 0.0 if counts.oldest_pending is None else time.time() - counts.oldest_pending
        return {
            "cbmir_objects": ("Rows of the catalogue", counts.objects),
            "cbmir_embedding_state": (
                "Instances by state of their embedding with the active model",
                counts.states,
            ),
            "cbmir_embedding_oldest_pending_seconds": (
                "How long the instance waits that has waited longest to be embedded",
                {"": max(0.0, waiting)},
            ),
            "cbmir_forwards": ("Objects to be sent on by state", counts.forwards),
            "cbmir_index_vectors": ("Vectors in the index", {"": len(self._search.active_cache())}),
            "cbmir_archive_bytes": (
                "Size of the objects that are kept",
                {"": counts.archive_bytes},
            ),
            "cbmir_archive_free_bytes": (
                "Free space of the archive's file system",
                {"": disk.free_bytes},
            ),
            "cbmir_archive_total_bytes": (
                "Size of the archive's file system",
                {"": disk.total_bytes},
            ),
            "cbmir_archive_reserve_bytes": (
                "Free space below which nothing more is stored",
                {"": disk.reserve_bytes},
            ),
            "cbmir_associations": ("Open associations", {"": self._dicom.active_associations()}),
            "cbmir_problems": (
                "Reasons why the node cannot do its work; 0 when it is ready",
                {"": len(self.problems())},
            ),
        }

    def counters(self) -> Mapping[str, Values]:
        """Return what only grows, for Prometheus."""
        dicom = self._dicom.statistics
        return {
            "cbmir_associations_seen": (
                "Associations accepted, rejected, aborted",
                dict.fromkeys(("accepted", "rejected", "aborted"), 0) | dict(dicom.associations),
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

    def report(self) -> NodeReport:
        """Return the whole node at a glance.

        Raises
        ------
        CatalogError, ModelError
            The catalogue does not answer, or no model is in use.
        """
        counts = self._counts.latest()
        return NodeReport(
            problems=self.problems(),
            notices=[
                f"nothing can be sent to {one.destination} at the moment: {one.reason}"
                for one in counts.resting
            ],
            version=__version__,
            uptime_s=round(time.monotonic() - self._started, 1),
            objects=ObjectCounts(**counts.objects),
            states=EmbeddingStates(**counts.states),
            failures=_failures(counts),
            rates=self._rates.rates(),
            model=self._model(counts),
            index=self._index(),
            disk=self._disk(counts.archive_bytes),
            associations=self._associations(),
            forwards=Forwards(**counts.forwards),
            destinations=_destinations(counts),
            errors=_errors(self._troubles),
        )

    def _model(self, counts: Counts) -> ModelReport:
        model, waiting = counts.model, counts.next_model
        try:
            provider = self._network.get().provider
        except CbmirError:  # the worker's trouble with it is among the errors
            provider = ""
        return ModelReport(
            name=model.name,
            version=model.version,
            sha256=model.sha256,
            provider=provider,
            dimension=model.spaces[EMBEDDING],
            next=waiting
            and NextModel(name=waiting.name, version=waiting.version, pending=counts.next_pending),
        )

    def _index(self) -> IndexReport:
        cache = self._search.active_cache()
        return IndexReport(vectors=len(cache), device=cache.device)

    def _disk(self, archive_bytes: int = 0) -> DiskReport:
        archive = self._stores.archive
        return DiskReport(
            free_bytes=archive.free_bytes(),
            total_bytes=shutil.disk_usage(archive.root).total,
            reserve_bytes=self._stores.settings.archive.reserve_mib << 20,
            archive_bytes=archive_bytes,
        )

    def _associations(self) -> Associations:
        seen = self._dicom.statistics.associations
        return Associations(
            open=self._dicom.active_associations(),
            accepted=seen["accepted"],
            rejected=seen["rejected"],
            aborted=seen["aborted"],
        )


def _failures(counts: Counts) -> list[FailedInstances]:
    return [
        FailedInstances(
            reason=group.reason,
            instances=group.instances,
            example_sop_instance_uid=group.sop_instance_uid,
            example_study_instance_uid=group.study_instance_uid,
            can_be_retried=group.can_be_retried,
        )
        for group in counts.failures
    ]


def _destinations(counts: Counts) -> list[DestinationReport]:
    resting = {one.destination: one for one in counts.resting}
    found = []
    for queue in counts.destinations:
        rests, oldest = resting.get(queue.destination), queue.oldest_pending
        found.append(
            DestinationReport(
                destination=queue.destination,
                **queue.states,
                oldest_pending_s=None if oldest is None else max(0.0, time.time() - oldest),
                last_reason=rests.reason if rests else queue.reason,
                next_try=datetime.fromtimestamp(rests.due_at, UTC) if rests else None,
            )
        )
    return found


def _errors(troubles: RecentTroubles) -> list[LoggedTrouble]:
    return [
        LoggedTrouble(
            time=datetime.fromtimestamp(trouble.time, UTC),
            level=trouble.level,
            source=trouble.source,
            message=trouble.message,
            times=trouble.times,
        )
        for trouble in troubles.latest()
    ]
