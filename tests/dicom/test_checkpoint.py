"""An association's own thread takes no response away from who waits for it."""

from __future__ import annotations

import threading
import time

from cbmir_node.dicom.client.checkpoint import ReactorCheckpoint


class Reactor(threading.Thread):
    """Works a little after it has passed the checkpoint, like pynetdicom's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.checkpoint = ReactorCheckpoint(self)
        self.is_at_work = threading.Event()
        self.ends = False

    def run(self) -> None:
        while not self.ends:
            self.checkpoint.wait()
            self.is_at_work.set()
            time.sleep(0.02)
            self.is_at_work.clear()


def test_clearing_returns_when_the_thread_stands_still_or_has_ended() -> None:
    reactor = Reactor()
    reactor.start()
    for _ in range(5):
        assert reactor.is_at_work.wait(10)
        reactor.checkpoint.clear()
        assert not reactor.is_at_work.wait(0.05)
        reactor.checkpoint.set()
    reactor.ends = True
    reactor.join(10)
    reactor.checkpoint.clear()
