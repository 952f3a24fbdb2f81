"""Where an association's own thread stands while somebody else talks over the association."""

from __future__ import annotations

import threading
from typing import Any


class ReactorCheckpoint(threading.Event):
    """An event whose `clear` returns once the thread of the association waits for it.

    That thread serves requests of the peer, and must not take the responses that others wait for.
    pynetdicom 3.0.4 asks whether it says to be paused, which it says before it waits: it may
    just be passing, then takes the first response and drops it. Of a C-FIND an answer is lost.

    Parameters
    ----------
    association : pynetdicom.association.Association
        Its thread is the one that waits.
    """

    def __init__(self, association: Any) -> None:
        super().__init__()
        self._association = association
        self._condition = threading.Condition()
        self._is_open = True
        self._is_waited_for = False

    def is_set(self) -> bool:
        """Tell whether the thread may go on."""
        return self._is_open

    def set(self) -> None:
        """Let the thread go on."""
        with self._condition:
            self._is_open = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Stop the thread, and return when it stands still or has ended."""
        with self._condition:
            self._is_open = False
            if threading.current_thread() is self._association:
                return
            while not self._is_waited_for and self._association.is_alive():
                self._condition.wait(0.1)  # an end of the thread tells nobody

    def wait(self, timeout: float | None = None) -> bool:
        """Stand still until the thread may go on."""
        with self._condition:
            self._is_waited_for = True
            self._condition.notify_all()
            is_open = self._condition.wait_for(lambda: self._is_open, timeout)
            self._is_waited_for = False
        return is_open
