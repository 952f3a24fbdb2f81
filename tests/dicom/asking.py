"""Who asks the node for objects, and for which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pynetdicom import build_context, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from cbmir_node.dicom.client.association import Peer, association
from tests.dicom.peers import EXPLICIT
from tests.imaging.image_objects import LOSSLESS, ramp, write_object
from tests.objects import make_object

PATIENT_MOVE, PATIENT_GET = "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_MOVE, STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"
MOVE, GET = "move", "get"
IMPLICIT, JPEG_LOSSLESS, JPEG_2000 = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
)
STUDY = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.1"}
TITLES = ("CBMIR", "CBMIR_SIM")


@dataclass
class Answered:
    """The responses to one retrieval, and what C-GET brought."""

    responses: list[tuple[Dataset, Dataset | None]] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    data_sets: list[bytes] = field(default_factory=list)
    syntaxes: list[str] = field(default_factory=list)

    @property
    def final(self) -> Dataset:
        return self.responses[-1][0]

    @property
    def status(self) -> int:
        return int(self.final.Status)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Completed, warning, failed."""
        return (
            self.final.NumberOfCompletedSuboperations,
            self.final.NumberOfWarningSuboperations,
            self.final.NumberOfFailedSuboperations,
        )

    @property
    def failed(self) -> list[str]:
        identifier = self.responses[-1][1]
        found = None if identifier is None else identifier.get("FailedSOPInstanceUIDList")
        return [] if found is None else [found] if isinstance(found, str) else list(found)


class Asker:
    """An association with the node that may ask for anything.

    Parameters
    ----------
    port : int
    called : str
        AE title.
    contexts : sequence of (str, sequence of str)
        Storage SOP classes and transfer syntaxes that C-GET may bring, one context each.
    relational : sequence of str
        SOP classes for which relational retrieval is negotiated.
    answer : callable
        Called with the number of an object that C-GET brings; returns the status.
    """

    def __init__(
        self,
        port: int,
        called: str = "CBMIR",
        contexts: Sequence[tuple[str, Sequence[str]]] = ((CTImageStorage, EXPLICIT),),
        relational: Sequence[str] = (),
        answer: Callable[[int], int] = lambda _number: 0x0000,
    ) -> None:
        self._answer = answer
        self._answered = Answered()
        options = []
        for sop_class in relational:
            option = SOPClassExtendedNegotiation()
            option.sop_class_uid = sop_class
            option.service_class_application_information = b"\x01"
            options.append(option)
        self._exits = ExitStack()
        self.opened = self._exits.enter_context(
            association(
                Peer(called, "127.0.0.1", port),
                [
                    *(build_context(uid) for uid in (PATIENT_MOVE, PATIENT_GET)),
                    *(build_context(uid) for uid in (STUDY_MOVE, STUDY_GET)),
                    *(build_context(uid, list(syntaxes)) for uid, syntaxes in contexts),
                ],
                calling_ae_title="ASKER",
                timeout=30,
                handlers=[(evt.EVT_C_STORE, self._receive)],
                negotiation=[
                    *(build_role(uid, scp_role=True) for uid in {uid for uid, _ in contexts}),
                    *options,
                ],
            )
        )

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *error: Any) -> None:
        self._exits.__exit__(*error)

    def _receive(self, event: Any) -> int:
        self._answered.objects.append(str(event.request.AffectedSOPInstanceUID))
        self._answered.data_sets.append(event.request.DataSet.getvalue())
        self._answered.syntaxes.append(str(event.context.transfer_syntax))
        return self._answer(len(self._answered.objects))

    def ask(self, sop_class: str, keys: Mapping[str, Any], destination: str = "") -> Answered:
        """Ask by C-MOVE where there is a destination, by C-GET otherwise."""
        identifier = Dataset()
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        self._answered = Answered()
        if destination:
            responses = self.opened.send_c_move(identifier, destination, sop_class)
        else:
            responses = self.opened.send_c_get(identifier, sop_class)
        self._answered.responses += responses
        return self._answered

    def cancel(self, sop_class: str) -> None:
        self.opened.send_c_cancel(1, query_model=sop_class)


def image(number: str, patient: str = "P1", **attributes: Any) -> Dataset:
    """Return an object whose UIDs follow from its number, study.series.instance."""
    study, series, _ = number.split(".")
    return make_object(
        PatientID=patient,
        StudyInstanceUID=f"1.2.{study}",
        SeriesInstanceUID=f"1.2.{study}.{series}",
        SOPInstanceUID=f"1.2.{number}",
        **attributes,
    )


def compressed(folder: Path, uid: str, syntax: str) -> Path:
    """Write a compressed image of study 1."""
    return write_object(
        folder / f"{uid}.dcm",
        ramp(),
        syntax=syntax,
        encode=LOSSLESS[syntax],
        SOPClassUID=SecondaryCaptureImageStorage,
        SOPInstanceUID=uid,
        StudyInstanceUID="1.2.1",
        SeriesInstanceUID="1.2.1.9",
        PatientID="P1",
        BitsStored=12,
    )
