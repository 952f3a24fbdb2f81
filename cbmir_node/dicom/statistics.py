"""Counters of the DICOM port, for the metrics page."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Statistics:
    """What has happened since the start; counted from many threads.

    Attributes
    ----------
    associations : Counter of str
        ``accepted``, ``rejected`` and ``aborted`` (by either side, or by the network).
    stores : Counter of int
        C-STORE responses by status.
    finds : Counter of (str, int)
        C-FIND operations by view (``main``, ``similarity``) and final status.
    retrievals : Counter of (str, int)
        Retrievals by kind (``move``, ``get``) and final status.
    sub_operations : Counter of (str, str)
        Objects that retrievals sent or did not, by kind and outcome (``sent``, ``warning``,
        ``refused``, ``failed``).
    """

    associations: Counter[str] = field(default_factory=Counter)
    stores: Counter[int] = field(default_factory=Counter)
    finds: Counter[tuple[str, int]] = field(default_factory=Counter)
    retrievals: Counter[tuple[str, int]] = field(default_factory=Counter)
    sub_operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count_association(self, fate: str) -> None:
        """Count an association that was ``accepted``, ``rejected`` or ``aborted``."""
        with self._lock:
            self.associations[fate] += 1

    def count_store(self, status: int) -> None:
        """Count a C-STORE response."""
        with self._lock:
            self.stores[status] += 1

    def count_find(self, view: str, status: int) -> None:
        """Count a finished C-FIND."""
        with self._lock:
            self.finds[view, status] += 1

    def count_retrieval(self, kind: str, status: int) -> None:
        """Count a finished C-MOVE or C-GET."""
        with self._lock:
            self.retrievals[kind, status] += 1

    def count_sub_operation(self, kind: str, outcome: str) -> None:
        """Count an object of a C-MOVE or C-GET."""
        with self._lock:
            self.sub_operations[kind, outcome] += 1
