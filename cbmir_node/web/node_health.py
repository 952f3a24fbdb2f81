"""What the HTTP port asks the node about its health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from cbmir_node.web.node_report import NodeReport

Values = tuple[str, Mapping[str, float]]
"""A metric's meaning, and label value → value; one nameless label value is ''."""


class NodeHealth(Protocol):
    """What the node tells of itself (`cbmir_node.observation` does).

    Attributes
    ----------
    registry : CollectorRegistry
        Of metrics that are counted where they happen.
    """

    registry: CollectorRegistry

    def problems(self) -> list[str]:
        """Return why the node cannot do its work right now; empty when it can."""

    def gauges(self) -> Mapping[str, Values]:
        """Return present values by the name of their metric."""

    def counters(self) -> Mapping[str, Values]:
        """Return the same for counts that only grow."""

    def report(self) -> NodeReport:
        """Return what an administrator sees."""
