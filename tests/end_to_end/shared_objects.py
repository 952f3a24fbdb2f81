"""What becomes of each real file, told from the manifest and plain pydicom, not from the node."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from tests.dicom.peers import association, store_bytes
from tests.imaging.test_shared_files import expected as expected_picture

State = Literal["embedded", "no_pixels", "failed"]

IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
MISMATCH, CANNOT_UNDERSTAND = 0xA900, 0xC000

NOT_A_DATA_SET = {
    "rtplan_truncated.dcm": "is truncated",
    "GH179B.dcm": "is truncated",
    "GH626.dcm": "is truncated",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "is truncated",
    "3gb-bulk-data-truncated": "is truncated",
    "GH364.dcm": "an item stands outside a sequence",
    "Deeply-Nested-Sequence.dcm": "nested deeper than",
    "IVRLE_BigEndian_undefined_length.dcm": "cannot be read",
    "meta_missing_tsyntax.dcm": "names no Transfer Syntax UID",
}
"""What pydicom reads in part or not at all, by source: the reason for refusing it."""

NOT_SENDABLE = {
    "DIRFILE": "a media directory",
    "DICOMDIR-bigEnd": "a media directory",
    "bbmri.dcmdir": "its SOP class is that of media",
    "meta_missing_tsyntax.dcm": "says nothing of its transfer syntax",
}
"""What no presentation context can be agreed on for: import refuses it as well."""


@dataclass(frozen=True)
class SharedObject:
    """A file and what the node owes it.

    Attributes
    ----------
    path : Path
    source : str
        Where the file comes from; ends in the name it had there.
    uids : dict of str to str
        `IDENTIFIERS` as the data set has them.
    refusal : str
        Part of the reason why it is not stored; empty when it is.
    status : int
        DIMSE status of its C-STORE.
    state : {"embedded", "no_pixels", "failed"}
        Of its embedding, when it is the one kept of its SOP Instance UID.
    reason : str
        Part of the reason recorded with it.
    """

    path: Path
    source: str
    uids: dict[str, str]
    refusal: str
    status: int
    state: State
    reason: str

    @property
    def uid(self) -> str:
        """SOP Instance UID of the data set."""
        return self.uids["SOPInstanceUID"]

    @property
    def is_media_directory(self) -> bool:
        """Whether it is a DICOMDIR, which `import` skips."""
        return any(
            self.source.endswith(name) for name, why in NOT_SENDABLE.items() if "directory" in why
        )

    @property
    def not_sendable(self) -> bool:
        """Whether it cannot travel by C-STORE."""
        return any(self.source.endswith(name) for name in NOT_SENDABLE)


def shared_objects(folder: Path) -> list[SharedObject]:
    """Return every file of the manifest, in the order of their paths."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: folder / row["file"])
    return [_shared_object(folder / row["file"], row) for row in rows]


def _shared_object(path: Path, row: dict[str, str]) -> SharedObject:
    uids = _identifiers(path)
    refusal, status = _refusal(row["source"], uids)
    state, reason = _state(row)
    return SharedObject(path, row["source"], uids, refusal, status, state, reason)


def _identifiers(path: Path) -> dict[str, str]:
    try:
        dataset: Dataset = dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=[*IDENTIFIERS]
        )
    except (RecursionError, OSError):  # the two files that pydicom gives up on
        dataset = Dataset()
    return {keyword: str(dataset.get(keyword) or "") for keyword in IDENTIFIERS}


def _refusal(source: str, uids: dict[str, str]) -> tuple[str, int]:
    for name, reason in NOT_A_DATA_SET.items():
        if source.endswith(name):
            return reason, CANNOT_UNDERSTAND
    for keyword, uid in uids.items():
        if not uid:
            return f"the object has no {keyword}", MISMATCH
        if not is_uid(uid):
            return f"{keyword} is not a UID", MISMATCH
    return "", 0


def _state(row: dict[str, str]) -> tuple[State, str]:
    outcome, reason = expected_picture(row)
    if reason == "no transfer syntax":  # but the node, or the sender, gives it one
        return "embedded", ""
    states: dict[str, State] = {"picture": "embedded", "no picture": "no_pixels", "error": "failed"}
    return states[outcome], reason


def is_uid(text: str) -> bool:
    """Tell whether `text` is a UID (PS3.5 section 9.1), leading zeros apart."""
    return len(text) <= 64 and re.fullmatch(r"\d+(\.\d+)*", text) is not None


@dataclass(frozen=True)
class Answer:
    """The response to a C-STORE; None stands for a presentation context that was not accepted."""

    status: int | None
    comment: str


def send_all(port: int, objects: list[SharedObject]) -> Iterator[tuple[SharedObject, Answer]]:
    """Send each file's data set, byte by byte as it is, one after the other."""
    for shared_object in objects:
        if shared_object.source.endswith("meta_missing_tsyntax.dcm"):
            yield shared_object, Answer(None, "")
        else:
            yield shared_object, _send(port, shared_object)


def _send(port: int, shared_object: SharedObject) -> Answer:
    meta, data = _split(shared_object.path)
    syntax = meta.get("TransferSyntaxUID") or _recognised_syntax(shared_object.path)
    sop_class = _announced(shared_object, meta, "Class", SecondaryCaptureImageStorage)
    instance = _announced(shared_object, meta, "Instance", generate_uid())
    with association(port, (sop_class, [str(syntax)])) as opened:
        if not opened.is_established or not opened.accepted_contexts:
            return Answer(None, "")
        response = store_bytes(opened, sop_class, instance, data)
        return Answer(response.Status, str(response.ErrorComment or ""))


def _split(path: Path) -> tuple[Dataset, bytes]:
    """Return a file's meta information and the bytes after it."""
    with path.open("rb") as file:
        file.seek(132 if file.read(132).endswith(b"DICM") else 0)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag.group != 2,
        )
        return meta, file.read()


def _recognised_syntax(path: Path) -> str:
    """Return the transfer syntax that pydicom takes a file without meta information for."""
    implicit, little_endian = dcmread(path, force=True).original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _announced(shared_object: SharedObject, meta: Dataset, kind: str, otherwise: str) -> str:
    """Return what a sender that makes do announces: of the data set, of the meta, or anything."""
    candidates = (
        shared_object.uids[f"SOP{kind}UID"],
        str(meta.get(f"MediaStorageSOP{kind}UID") or ""),
    )
    return next((uid for uid in candidates if is_uid(uid)), otherwise)
