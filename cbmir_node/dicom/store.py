"""C-STORE (PS3.4 Annex B): answered with success only once the object is durable."""

from __future__ import annotations

import logging
from typing import Any

from pydicom import Dataset

from cbmir_node.dicom.receiving import ReceivedDataSet
from cbmir_node.dicom.statuses import Status, failure
from cbmir_node.errors import (
    CatalogError,
    CbmirError,
    IdentifierError,
    InvalidObjectError,
    OutOfSpaceError,
    RejectedObjectError,
)
from cbmir_node.intake import Intake

_log = logging.getLogger(__name__)


def store(request: Any, calling_ae_title: str, intake: Intake, *, fetched: bool = False) -> Dataset:
    """Keep the object of a C-STORE request.

    Parameters
    ----------
    request : pynetdicom.dimse_primitives.C_STORE
        Its data set has been received into the archive's incoming folder.
    calling_ae_title : str
        Recorded as the object's source.
    intake : Intake
        Validates it and makes it durable.
    fetched : bool
        Whether the node asked for it itself, by C-MOVE or C-GET.

    Returns
    -------
    Dataset
        Status and, for failures, Error Comment.
    """
    data_set: ReceivedDataSet = request.DataSet
    try:
        if data_set.incoming is None:
            raise data_set.failure or InvalidObjectError("the request has no data set")
        with data_set.incoming as incoming:
            intake.accept(
                incoming,
                source=calling_ae_title,
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                fetched=fetched,
            )
    except (CbmirError, OSError) as error:
        status = _status_of(error)
        _log.warning(
            "C-STORE of %s from %s: 0x%04X %s",
            *(request.AffectedSOPInstanceUID, calling_ae_title, status, error),
        )
        return failure(status, str(error))
    success = Dataset()
    success.Status = int(Status.SUCCESS)
    return success


def _status_of(error: Exception) -> Status:
    match error:
        case IdentifierError():
            return Status.IDENTIFIER_MISMATCH
        case OutOfSpaceError() | CatalogError() | OSError():
            return Status.OUT_OF_RESOURCES
        case RejectedObjectError():
            return Status.REJECTED_OBJECT
    return Status.UNABLE_TO_PROCESS
