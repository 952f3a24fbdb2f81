"""Sending stored objects to another node (PS3.4 Annex B)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from cbmir_node.answers.encoding import ObjectEncoder
from cbmir_node.archive.store import Archive
from cbmir_node.catalog.query.retrieval import StoredObject
from cbmir_node.config import ImagingSettings
from cbmir_node.dicom.client.association import Peer, association
from cbmir_node.dicom.client.storage import UNCOMPRESSED, Outcome, Sent, StorageUser, not_kept
from cbmir_node.errors import NothingAcceptedError, PeerBusyError, PeerError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.transcoding import can_transcode

__all__ = ["Outcome", "Sent", "proposals", "send"]

_MAX_CONTEXTS: Final = 128  # their IDs are odd numbers below 256 (PS3.8 9.3.2.2)
_MOST_LOSSES: Final = 3
_POLL_S: Final = 0.1


def send(
    peer: Peer,
    objects: Sequence[StoredObject],
    archive: Archive,
    *,
    calling_ae_title: str,
    timeout: float,
    originator: tuple[str, int] | None = None,
    imaging: ImagingSettings | None = None,
    decoders: DecoderPool | None = None,
    busy_wait_s: float = 0.0,
    current: Callable[[StoredObject], StoredObject] = lambda stored: stored,
    give_up: Callable[[], bool] = lambda: False,
) -> Generator[Sent, None, None]:
    """Send objects, decompressed where the peer wants them so; yield one result each, in order.

    An association that is lost is opened again for the rest; after three lost ones the rest
    fails. The object at which it broke is sent again, unless it was the association's first. One
    that ended while an object was decompressed does not count: the object is ready for the next.

    Parameters
    ----------
    peer : Peer
        Whom to send to.
    objects : sequence of StoredObject
        What to send.
    archive : Archive
        Where their files are.
    calling_ae_title : str
        Our own title.
    timeout : float
        For each step, seconds.
    originator : (str, int), optional
        AE title and Message ID of the C-MOVE request behind this (PS3.7 9.1.1.1).
    imaging : ImagingSettings, optional
        Limits of time and memory for decompression, by a decoder of its own.
    decoders : DecoderPool, optional
        Decompress instead.
    busy_wait_s : float
        Where above 0, a peer that rejects an association for now is called once more after so
        many seconds.
    current : callable, optional
        Returns an object as the catalogue has it now; asked where its file is gone.
    give_up : callable, optional
        Asked again and again; once it is True nothing more is sent or yielded.

    Raises
    ------
    PeerUnreachableError, PeerRefusedError
        No association can be opened at all.
    """
    with ExitStack() as owned:
        if decoders is None:
            decoders = owned.enter_context(DecoderPool(imaging or ImagingSettings(), 1))
        sending = _Sending(
            partial(association, peer, calling_ae_title=calling_ae_title, timeout=timeout),
            partial(
                StorageUser,
                encoder=owned.enter_context(ObjectEncoder(archive, decoders, give_up)),
                timeout=timeout,
                originator=originator,
                give_up=give_up,
                current=current,
            ),
            give_up,
            busy_wait_s,
        )
        for share, contexts in proposals(objects):
            yield from sending.send(share, contexts)


@dataclass
class _Sending:
    """All associations of one `send`."""

    connect: Callable[[Sequence[PresentationContext]], AbstractContextManager[Any]]
    storage_user: Callable[[Any], StorageUser]
    give_up: Callable[[], bool]
    busy_wait_s: float
    has_connected: bool = False
    losses: int = 0

    def send(
        self, objects: Sequence[StoredObject], contexts: Sequence[PresentationContext]
    ) -> Iterator[Sent]:
        """Send objects whose contexts fit into one association."""
        done = 0
        problem: tuple[Outcome, str] = ("failed", "the association was lost again and again")
        while done < len(objects) and self.losses < _MOST_LOSSES and not self.give_up():
            if not any(stored.path for stored in objects[done:]):
                break
            try:
                for sent in self._send_over_one(objects[done:], contexts):
                    yield sent
                    done += 1
            except NothingAcceptedError:
                self.has_connected = True
                problem = ("refused", "the peer accepts nothing that it can become")
                break
            except PeerError as error:
                if isinstance(error, PeerBusyError) and self._has_waited():
                    continue
                if not self.has_connected:
                    raise
                problem = ("failed", str(error))
                break
        if not self.give_up():
            for stored in objects[done:]:
                outcome, reason = problem
                yield Sent(stored, outcome, None, reason) if stored.path else not_kept(stored)

    def _has_waited(self) -> bool:
        """Wait for a busy peer, once."""
        if not self.busy_wait_s:
            return False
        end = time.monotonic() + self.busy_wait_s
        while time.monotonic() < end and not self.give_up():
            time.sleep(_POLL_S)
        self.busy_wait_s = 0.0
        return True

    def _send_over_one(
        self, objects: Sequence[StoredObject], contexts: Sequence[PresentationContext]
    ) -> Iterator[Sent]:
        """Send until all are sent or the association is lost."""
        with self.connect(contexts) as opened, _read_by_us(opened):
            self.has_connected = True
            user = self.storage_user(opened)
            for number, stored in enumerate(objects):
                if self.give_up():
                    return
                sent = user.store(stored)
                if user.is_untried or (sent.is_local and self.give_up()):
                    return
                if user.is_lost:
                    self.losses += 1
                    if number == 0 and not self.give_up():
                        yield sent
                    return
                yield sent


@contextmanager
def _read_by_us(opened: Any) -> Iterator[None]:
    """Keep pynetdicom's thread from taking the responses; it is paused once, not per object."""
    opened._reactor_checkpoint.clear()
    while not opened._is_paused and opened.is_alive():
        time.sleep(0.001)
    try:
        yield
    except GeneratorExit:  # whoever asked wants no more: no reason to abort
        opened.release()
        raise
    finally:
        opened._reactor_checkpoint.set()


def proposals(
    objects: Sequence[StoredObject],
) -> Iterator[tuple[Sequence[StoredObject], list[PresentationContext]]]:
    """Split objects into runs whose presentation contexts fit into one association.

    Each SOP class has a context for every transfer syntax of its objects, since a peer picks one
    of each context, and one more with what they can become.

    Yields
    ------
    (sequence of StoredObject, list of PresentationContext)
    """
    start = 0
    syntaxes: dict[str, dict[str, None]] = {}
    for index, stored in enumerate(objects):
        known = syntaxes.get(stored.sop_class_uid, {})
        if stored.transfer_syntax_uid in known:
            continue
        grown = {**syntaxes, stored.sop_class_uid: {**known, stored.transfer_syntax_uid: None}}
        if len(_contexts(grown)) > _MAX_CONTEXTS:
            yield objects[start:index], _contexts(syntaxes)
            start = index
            grown = {stored.sop_class_uid: {stored.transfer_syntax_uid: None}}
        syntaxes = grown
    if start < len(objects):
        yield objects[start:], _contexts(syntaxes)


def _contexts(syntaxes: dict[str, dict[str, None]]) -> list[PresentationContext]:
    contexts = []
    for sop_class, own in syntaxes.items():
        contexts += [build_context(sop_class, syntax) for syntax in own]
        others = [syntax for syntax in UNCOMPRESSED if syntax not in own]
        if others and any(can_transcode(syntax) for syntax in own):
            contexts.append(build_context(sop_class, others))
    return contexts
