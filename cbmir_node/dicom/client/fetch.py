"""C-GET and C-MOVE from another node, in the Study Root model (PS3.4 C.4.2, C.4.3 and C.6.2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from cbmir_node.dicom.client.association import Peer, association
from cbmir_node.dicom.client.find import described
from cbmir_node.dicom.receiving import ReceivedDataSet, ReceivingServiceProvider
from cbmir_node.dicom.statuses import Status
from cbmir_node.dicom.store import store
from cbmir_node.errors import OutOfSpaceError, PeerRefusedError
from cbmir_node.intake import Intake

_GET = StudyRootQueryRetrieveInformationModelGet
_MOVE = StudyRootQueryRetrieveInformationModelMove
_MESSAGE_ID = 1
_MOVE_DESTINATION_UNKNOWN = 0xA801
_SUB_OPERATIONS_FAILED = 0xB000
_CONTEXTS = 127  # an association has 128 at most (PS3.8 9.3.2.2), one of them is the query model's
_ROOT = "1.2.840.10008.1.2"
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
# those met most often first; each has a context of its own where there is room for it
_COMPRESSED_ALONE = tuple(
    (f"{_ROOT}.{suffix}",)
    for suffix in (
        *("4.90", "4.70", "4.80", "4.50", "4.91", "5", "4.57", "4.51", "4.81", "4.201", "4.202"),
        *("4.203", "4.92", "4.93", "4.100", "4.101", "4.102", "4.103", "4.104", "4.105", "4.106"),
        *("4.107", "4.108", "4.110", "4.111", "4.112", "1.99", "8.1"),
    )
)


@dataclass(frozen=True)
class Retrieval:
    """What is to be fetched: a study, a series of it, or some instances of that.

    Attributes
    ----------
    study_instance_uid : str
    series_instance_uid : str
        Empty for all of the study.
    sop_instance_uids : tuple of str
        Empty for all of the series.
    sop_classes : tuple of str
        SOP Class UIDs of the objects; empty where nobody knows them.
    transfer_syntaxes : tuple of str
        The only ones wanted; empty for the objects as they are stored there.
    """

    study_instance_uid: str
    series_instance_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    transfer_syntaxes: tuple[str, ...] = ()


@dataclass
class Retrieved:
    """How a retrieval ended.

    Attributes
    ----------
    images : int
        Objects that were stored here (C-GET), or that the peer says it sent (C-MOVE).
    problem : str
        Why not everything came; empty when it did.
    """

    images: int = 0
    problem: str = ""


@dataclass
class _Reception:
    """What happens to the objects that a C-GET brings."""

    peer: Peer
    intake: Intake
    on_image: Callable[[], None]
    images: int = 0
    first_failure: str = ""
    out_of_space: bool = field(default=False)

    def receive(self, event: Any) -> Dataset:
        """Keep an object; once the disk is full, ask the peer to stop."""
        command = store(event.request, self.peer.ae_title, self.intake, fetched=True)
        dimse, data_set = event.assoc.dimse, event.request.DataSet
        if isinstance(data_set, ReceivedDataSet):
            dimse.served(data_set)
        if command.Status == Status.SUCCESS:
            self.images += 1
            self.on_image()
        elif not self.intake.archive.has_room():
            if not self.out_of_space:
                self.out_of_space = True
                event.assoc.send_c_cancel(_MESSAGE_ID, query_model=_GET)
        elif not self.first_failure:
            uid = event.request.AffectedSOPInstanceUID
            self.first_failure = f"{uid} is refused: {command.get('ErrorComment', '')}"
        return command


def get(
    peer: Peer,
    retrieval: Retrieval,
    intake: Intake,
    *,
    calling_ae_title: str,
    timeout: float,
    on_image: Callable[[], None] = lambda: None,
) -> Retrieved:
    """Fetch by C-GET: the objects come over our own association, straight into the archive.

    Parameters
    ----------
    peer : Peer
        Who has the objects.
    retrieval : Retrieval
        What to fetch.
    intake : Intake
        Where they go.
    calling_ae_title : str
        Our own title.
    timeout : float
        Longest wait for the next object or response, seconds.
    on_image : callable
        Called after each stored object; may take its time, the peer waits.

    Raises
    ------
    PeerUnreachableError
        There is no association.
    PeerRefusedError
        The peer does not offer C-GET.
    OutOfSpaceError
        The disk reserve is reached; what came before is stored.
    """
    reception = _Reception(peer, intake, on_image)
    classes = retrieval.sop_classes or tuple(
        str(context.abstract_syntax) for context in StoragePresentationContexts
    )
    with association(
        peer,
        [build_context(_GET), *storage_contexts(classes, retrieval.transfer_syntaxes)],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        handlers=[(evt.EVT_C_STORE, reception.receive)],
        # without this the peer may not send (PS3.7 D.3.3.4)
        negotiation=[build_role(uid, scp_role=True) for uid in classes[:_CONTEXTS]],
    ) as opened:
        accepted = opened.accepted_contexts
        if not any(context.abstract_syntax == _GET for context in accepted):
            raise PeerRefusedError(f"{peer} does not offer C-GET; try --by move")
        if not any(context.as_scp for context in accepted):
            return Retrieved(problem="the peer sends none of its SOP classes over our association")
        receiving = ReceivingServiceProvider(opened, intake.archive)
        opened.dimse = receiving
        try:
            responses = opened.send_c_get(_identifier(retrieval), _GET, msg_id=_MESSAGE_ID)
            final = _final(responses)
        finally:
            receiving.discard_unserved()
    if reception.out_of_space:
        raise OutOfSpaceError("the disk reserve is reached: nothing more is stored")
    return Retrieved(reception.images, reception.first_failure or _problem(final, timeout))


def move(
    peer: Peer,
    retrieval: Retrieval,
    destination: str,
    *,
    calling_ae_title: str,
    timeout: float,
) -> Retrieved:
    """Let the peer send by C-MOVE to an AE title that it knows.

    Parameters
    ----------
    peer : Peer
        Who has the objects.
    retrieval : Retrieval
        What to fetch.
    destination : str
        AE title; the peer must know its host and port.
    calling_ae_title : str
        Our own title.
    timeout : float
        Longest wait for the next response, seconds.

    Raises
    ------
    PeerUnreachableError
        There is no association.
    PeerRefusedError
        The peer does not offer C-MOVE, or does not know the destination.
    """
    with association(
        peer, [build_context(_MOVE)], calling_ae_title=calling_ae_title, timeout=timeout
    ) as opened:
        final = _final(opened.send_c_move(_identifier(retrieval), destination, _MOVE))
    if final.get("Status") == _MOVE_DESTINATION_UNKNOWN:
        raise PeerRefusedError(
            f"{peer} does not know {destination} (0xA801): enter this title with our host and port "
            "there, or try --by get"
        )
    return Retrieved(
        _count(final, "Completed") + _count(final, "Warning"), _problem(final, timeout)
    )


def storage_contexts(
    sop_classes: Sequence[str], transfer_syntaxes: Sequence[str] = ()
) -> list[PresentationContext]:
    """Return what to propose for receiving objects of these SOP classes.

    A peer answers each context with one transfer syntax and sends an object in that or not at
    all. So each transfer syntax has a context of its own as far as 127 contexts suffice: then
    nothing need be decompressed, or fail because it cannot be. The rest share the last one.

    Parameters
    ----------
    sop_classes : sequence of str
        SOP Class UIDs; what exceeds 127 is left out.
    transfer_syntaxes : sequence of str
        The only ones wanted; empty for all.

    Returns
    -------
    list of PresentationContext
        At most 127.
    """
    classes = list(sop_classes)[:_CONTEXTS]
    wanted: list[tuple[str, ...]] = [(uid,) for uid in transfer_syntaxes]
    wanted = wanted or [_UNCOMPRESSED, *_COMPRESSED_ALONE]
    single = min(_CONTEXTS // max(1, len(classes)), len(wanted)) - 1
    groups = [*wanted[:single], tuple(itertools.chain.from_iterable(wanted[single:]))]
    return [build_context(uid, list(group)) for uid in classes for group in groups]


def _identifier(retrieval: Retrieval) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = retrieval.study_instance_uid
    if retrieval.series_instance_uid:
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.SeriesInstanceUID = retrieval.series_instance_uid
    if retrieval.sop_instance_uids:
        identifier.QueryRetrieveLevel = "IMAGE"
        identifier.SOPInstanceUID = list(retrieval.sop_instance_uids)
    return identifier


def _final(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Dataset:
    """Wait for the last response; it is empty when the peer was lost."""
    final = Dataset()
    for response, _ in responses:
        final = response
    return final


def _problem(final: Dataset, timeout: float) -> str:
    if "Status" not in final:
        return f"the peer broke off, or said nothing for {timeout:g} s"
    failed = _count(final, "Failed")
    if final.Status == _SUB_OPERATIONS_FAILED and not failed:
        return ""  # warnings: sent, with a remark
    if final.Status != Status.SUCCESS or failed:
        return f"{described(final)}; the peer failed to send {failed}"
    return ""


def _count(final: Dataset, kind: str) -> int:
    return int(final.get(f"NumberOf{kind}Suboperations", 0) or 0)
