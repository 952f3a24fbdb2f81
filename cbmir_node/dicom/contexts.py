"""Which presentation contexts the node accepts, and in which transfer syntax.

The answer is made from what the peer proposes, not from a list of all that exists: storage is
open to SOP classes nobody has heard of, and building all contexts for every association costs
more than receiving an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Literal

from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
    VideoEndoscopicImageStorage,
    VideoMicroscopicImageStorage,
    VideoPhotographicImageStorage,
    uid_to_service_class,
)

from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from cbmir_node.imaging.transcoding import can_transcode

View = Literal["main", "similarity"]
"""What an association may ask for; the called AE title chooses it."""

Service = Literal["verification", "storage", "find", "move", "get"]

_FIND_CLASSES: dict[View, frozenset[str]] = {
    "main": frozenset(
        {
            PatientRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelFind,
            SIMILARITY_FIND,
        }
    ),
    "similarity": frozenset({StudyRootQueryRetrieveInformationModelFind, SIMILARITY_FIND}),
}

_RETRIEVE_CLASSES: dict[str, Service] = {
    PatientRootQueryRetrieveInformationModelMove: "move",
    StudyRootQueryRetrieveInformationModelMove: "move",
    PatientRootQueryRetrieveInformationModelGet: "get",
    StudyRootQueryRetrieveInformationModelGet: "get",
}
RELATIONAL_QUERIES, COMBINED_DATE_TIMES = 0, 1
"""Options of the query SOP classes by their place in the negotiation (PS3.4 C.5.1.1)."""

_OPTIONS: dict[Service, bytes] = {
    "find": b"\x01\x01",  # the two above; no fuzzy names, no adjustment of time zones
    "move": b"\x01",  # relational retrieval (PS3.4 C.5.2.1.1)
    "get": b"\x01",  # likewise (C.5.3.1.1)
}
_STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
_STANDARD_ROOT = "1.2.840.10008."
_STANDARD_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_NOT_STORAGE = re.compile(r"Storage (Commitment|Management|Service)|Media Storage")

_VIDEO = frozenset(
    {VideoEndoscopicImageStorage, VideoMicroscopicImageStorage, VideoPhotographicImageStorage}
)
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_LOSSLESS = frozenset(
    f"1.2.840.10008.1.2.{suffix}"
    for suffix in (
        *("1.98", "4.57", "4.58", "4.65", "4.66", "4.70", "4.80", "4.90", "4.92"),
        *("4.110", "4.201", "4.202", "5", "8.1"),
    )
)
# pixels fetched elsewhere (JPIP), streamed beside the object (SMPTE ST 2110), or no data set
_PIXELS_ELSEWHERE = re.compile(r"1\.2\.840\.10008\.1\.2\.(4\.(94|95|204|205)|[67]\.\d+)")


def service_of(abstract_syntax: str, view: View) -> Service | None:
    """Return the service that `abstract_syntax` belongs to in `view`; None where it is refused."""
    if abstract_syntax == Verification:
        return "verification"
    if abstract_syntax in _FIND_CLASSES[view]:
        return "find"
    if abstract_syntax in _RETRIEVE_CLASSES:
        return _RETRIEVE_CLASSES[abstract_syntax]
    if view == "main" and is_storage(abstract_syntax):
        return "storage"
    return None


def is_storage(abstract_syntax: str) -> bool:
    """Tell whether objects of this SOP class are stored.

    All storage SOP classes of PS3.6 are, retired ones included; so are private UIDs, which can
    be nothing else here, and newer standard UIDs below the storage root.
    """
    if abstract_syntax == SIMILARITY_FIND:
        return False
    uid = UID(abstract_syntax)
    if uid.type:  # pydicom knows it
        return (
            uid.type == "SOP Class" and "Storage" in uid.name and not _NOT_STORAGE.match(uid.name)
        )
    return not abstract_syntax.startswith(_STANDARD_ROOT) or abstract_syntax.startswith(
        _STANDARD_STORAGE_ROOT
    )


def carries_pixels(transfer_syntax: str) -> bool:
    """Tell whether objects in this transfer syntax carry their pixels inside (PS3.5 Annex A).

    Private transfer syntaxes do not count: nothing says how their data sets are encoded.
    """
    standard = transfer_syntax == ImplicitVRLittleEndian or transfer_syntax.startswith(
        f"{ImplicitVRLittleEndian}."
    )
    return standard and not _PIXELS_ELSEWHERE.fullmatch(transfer_syntax)


def preference(transfer_syntax: str) -> int:
    """Return the rank of a transfer syntax, best first.

    A peer should not have to decompress, and private elements lose their VRs in Implicit VR.
    """
    match transfer_syntax:
        case "1.2.840.10008.1.2.1":
            return 0
        case _ if transfer_syntax in _LOSSLESS:
            return 1
        case "1.2.840.10008.1.2.1.99":
            return 3
        case "1.2.840.10008.1.2.2":
            return 4
        case "1.2.840.10008.1.2":
            return 5
    return 2


def _preference_in_sending(abstract_syntax: str, transfer_syntax: str) -> tuple[bool, int]:
    """Return the rank of a transfer syntax for objects that the node sends, best first.

    One is chosen before anybody knows the objects. Most can become uncompressed; video, which
    nobody decompresses, stays what it is.
    """
    if abstract_syntax in _VIDEO:
        return can_transcode(transfer_syntax), preference(transfer_syntax)
    return transfer_syntax not in _UNCOMPRESSED, preference(transfer_syntax)


def supported_contexts(
    proposed: Iterable[PresentationContext], view: View, receives: Collection[str] = ()
) -> list[PresentationContext]:
    """Return what the node supports of a proposal, transfer syntaxes in order of preference.

    Parameters
    ----------
    proposed : iterable of PresentationContext
        Of the A-ASSOCIATE-RQ.
    view : {"main", "similarity"}
        Chosen by the called AE title.
    receives : collection of str
        SOP classes of which the peer wants to be sent objects, with C-GET: those it proposes the
        SCP role for (PS3.7 D.3.3.4). Both views send; only the main view is sent to.

    Returns
    -------
    list of PresentationContext
        One for each abstract syntax, as pynetdicom's negotiation wants them.
    """
    sent = {uid for uid in receives if is_storage(uid)}
    offered: dict[str, list[str]] = {}
    for context in proposed:
        abstract_syntax = str(context.abstract_syntax)
        match "storage" if abstract_syntax in sent else service_of(abstract_syntax, view):
            case "storage":
                accepted = [uid for uid in context.transfer_syntax if carries_pixels(uid)]
            case None:
                continue
            case _:
                accepted = [uid for uid in context.transfer_syntax if uid in _UNCOMPRESSED]
        offered.setdefault(abstract_syntax, []).extend(accepted)
    supported = []
    for abstract_syntax, transfer_syntaxes in offered.items():
        rank: Callable[[str], Any] = preference
        if abstract_syntax in sent:
            rank = partial(_preference_in_sending, abstract_syntax)
        ordered = sorted(dict.fromkeys(transfer_syntaxes), key=rank)
        # where no transfer syntax fits, naming one that was not proposed makes the answer say so
        context = build_context(abstract_syntax, ordered or [ExplicitVRLittleEndian])
        if abstract_syntax in sent:  # the roles that the peer may have
            context.scu_role = service_of(abstract_syntax, view) == "storage"
            context.scp_role = True
        supported.append(context)
    return supported


def accepted_options(proposed: Mapping[UID, bytes], view: View) -> dict[UID, bytes]:
    """Return what the node grants of SOP Class Extended Negotiation (PS3.7 D.3.3.5).

    Parameters
    ----------
    proposed : mapping of UID to bytes
        Service class application information by SOP class, a byte for each option.
    view : {"main", "similarity"}
        Chosen by the called AE title.
    """
    granted = {}
    for sop_class, options in proposed.items():
        service = service_of(str(sop_class), view)
        if service in _OPTIONS and sop_class != SIMILARITY_FIND:
            supported = _OPTIONS[service].ljust(len(options), b"\0")
            granted[sop_class] = bytes(a & b for a, b in zip(options, supported, strict=False))
    return granted


def storage_services(
    proposed: Iterable[PresentationContext], view: View
) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Return the service class of each proposed storage SOP class that pynetdicom does not know.

    This is what a peer may say itself by SOP Class Common Extended Negotiation (PS3.7 D.3.3.6):
    pynetdicom then serves a private or retired SOP class by its storage service.
    """
    services = {}
    for context in proposed:
        known = uid_to_service_class(context.abstract_syntax) is StorageServiceClass
        if not known and service_of(str(context.abstract_syntax), view) == "storage":
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = context.abstract_syntax
            item.service_class_uid = _STORAGE_SERVICE_CLASS
            services[context.abstract_syntax] = item
    return services
