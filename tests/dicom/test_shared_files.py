"""Every real file we have, its bytes as they are, over C-STORE: one documented outcome each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cbmir_node.archive.header import is_uid
from tests.dicom.conftest import Node
from tests.dicom.peers import association, store_bytes

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_NEVER_ACCEPTED = {
    "1.2.840.10008.1.3.10",  # a DICOMDIR is no object
}


def test_every_file_over_c_store(node: Node, shared: Path) -> None:
    outcomes: Counter[int] = Counter()
    wrong = []
    files = sorted((shared / "dicom" / "files").iterdir())
    for file in files:
        header = _header(file)
        uids = [str(header.get(keyword, "") or "") for keyword in _IDENTIFIERS]
        sop_class = uids[0] if is_uid(uids[0]) else CTImageStorage
        announced = uids[1][:64] or generate_uid()
        syntax = header.file_meta.get("TransferSyntaxUID") or ExplicitVRLittleEndian
        with association(node.port, (sop_class, [syntax])) as opened:
            if not opened.accepted_contexts:
                wrong += [] if sop_class in _NEVER_ACCEPTED else [(file.name, "no context")]
                continue
            response = store_bytes(opened, sop_class, announced, _data_set(file))
        outcomes[response.Status] += 1
        complete = all(is_uid(uid) for uid in uids)
        expected = {0x0000, 0xC000} if complete else {0xA900, 0xC000}
        if response.Status not in expected or (response.Status and not response.ErrorComment):
            wrong.append((file.name, f"0x{response.Status:04X} {response.ErrorComment}"))
    assert not wrong
    assert set(outcomes) == {0x0000, 0xA900, 0xC000}
    assert outcomes[0xC000] <= 20  # the truncated and the broken ones
    assert len(node.stored()) <= outcomes[0x0000]  # some files are the same object
    assert not node.temporary_files()


def _header(file: Path) -> Dataset:
    try:
        return dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_IDENTIFIERS))
    except Exception:  # what pydicom cannot read is sent as a CT image
        broken = Dataset()
        broken.file_meta = Dataset()
        return broken


def _data_set(file: Path) -> bytes:
    """Return what follows the file meta information, where there is any."""
    data = file.read_bytes()
    if data[128:132] != b"DICM":
        return data
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        long = data[position + 4 : position + 6] in (b"OB", b"UN", b"OW", b"UT", b"SQ")
        start, size = (position + 8, 4) if long else (position + 6, 2)
        length = int.from_bytes(data[start : start + size], "little")
        position = start + size + length
    return data[position:]
