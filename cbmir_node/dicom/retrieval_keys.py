"""Reading the identifier of a C-MOVE or C-GET request (PS3.4 C.4.2.1.4 and C.4.3.1.3)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from cbmir_node.catalog.keys import LEVELS, UNIQUE_KEY, Level
from cbmir_node.catalog.reception.records import attribute_text
from cbmir_node.dicom.statuses import RefusedRequestError, Status

_ISSUER = "IssuerOfPatientID"


def read_retrieval_keys(
    identifier: Dataset, root: Level, *, relational: bool
) -> tuple[Level, dict[str, str]]:
    """Return what a request wants to be sent: its level, and the unique keys that name it.

    Anything else in the identifier is ignored, but for IssuerOfPatientID beside a PatientID.

    Parameters
    ----------
    identifier : Dataset
        As decoded; values that break their VR do no harm.
    root : {"PATIENT", "STUDY"}
        Of the information model; level PATIENT is accepted in both.
    relational : bool
        Whether relational retrieval was negotiated: unique keys above the level may then be
        absent, or lists (PS3.4 C.4.2.2.2.1).

    Returns
    -------
    level : {"PATIENT", "STUDY", "SERIES", "IMAGE"}
    keys : dict of str to str
        By keyword; several UIDs are joined by backslash.

    Raises
    ------
    RefusedRequestError
        The level does not belong to the model, or a unique key is absent, a wildcard, or a list
        where one value is wanted.
    """
    level = attribute_text(identifier, "QueryRetrieveLevel")
    if level == "PATIENT":
        root = "PATIENT"  # Orthanc asks the Study Root model so
    levels = LEVELS[LEVELS.index(root) :]
    if level not in levels:
        raise _refused(f"QueryRetrieveLevel must be {', '.join(levels)}", "QueryRetrieveLevel")
    keys = {}
    for part in levels[: levels.index(level) + 1]:
        keyword = UNIQUE_KEY[part]
        # a list may have empty places, which name nothing
        named = attribute_text(identifier, keyword).split("\\")
        value = "\\".join(one for one in named if one)
        may_be_list = part != "PATIENT" and (part == level or relational)
        if not value and relational and part != level:
            continue
        if not value or ("\\" in value and not may_be_list) or any(sign in value for sign in "*?"):
            wanted = f"{keyword}, or a list" if may_be_list else f"one {keyword}"
            raise _refused(f"a {level} level retrieval needs {wanted}", keyword)
        keys[keyword] = value
    if "PatientID" in keys and (issuer := attribute_text(identifier, _ISSUER)):
        keys[_ISSUER] = issuer
    return level, keys


def _refused(comment: str, keyword: str) -> RefusedRequestError:
    tag = tag_for_keyword(keyword)
    return RefusedRequestError(Status.IDENTIFIER_MISMATCH, comment, *([] if tag is None else [tag]))
