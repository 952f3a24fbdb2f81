"""Reading a header costs little, whatever lies behind it or inflates from it."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from cbmir_node.archive import header
from cbmir_node.archive.header import read_header
from cbmir_node.errors import InvalidObjectError, OutOfSpaceError
from tests.objects import make_object, write

MIB = 1 << 20


def deflated(path: Path, zeros: int) -> Path:
    """Write a deflated object that ends with a private element of `zeros` bytes."""
    write(make_object(PixelData=None), path, DeflatedExplicitVRLittleEndian)
    offset = read_header(path, []).dataset_offset
    whole = path.read_bytes()
    body = zlib.decompress(whole[offset:], -zlib.MAX_WBITS)
    body += struct.pack("<HH2sHL", 0x7FE1, 0x1001, b"OB", 0, zeros) + bytes(zeros)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(whole[:offset] + deflate.compress(body) + deflate.flush())
    return path


def test_sequences_behind_the_attributes_are_not_read(tmp_path: Path) -> None:
    # PS3.5 6.2.2 lets UN be little endian here; pydicom fails as soon as it reads this one
    path = write(make_object(PixelData=None), tmp_path / "in.dcm", ExplicitVRBigEndian)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 8) + struct.pack("<HHL", 0x0009, 0x1001, 0)
    sequence = struct.pack(">HH2sHL", 0x5200, 0x9230, b"UN", 0, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    path.write_bytes(path.read_bytes() + sequence + item * 100 + end)
    found = read_header(path, ["Modality", "Rows"])
    assert found.attributes.Modality == make_object().Modality
    assert found.attributes.Rows == make_object().Rows


def test_inflation_is_bounded_by_the_deflated_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deflated(tmp_path / "in.dcm", 8 * MIB)
    assert read_header(path, []).sop_instance_uid  # small ones may be as dense as they like
    monkeypatch.setattr(header, "_ALWAYS_INFLATED_BYTES", 4 * MIB)
    with pytest.raises(InvalidObjectError, match="inflates to more than 4194304 bytes"):
        read_header(path, [])
    monkeypatch.setattr(header, "_MAX_INFLATION", 1032)  # as far as deflate itself goes
    assert read_header(path, []).sop_instance_uid


def test_it_inflates_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deflated(tmp_path / "in.dcm", MIB)
    scratch = tmp_path / "scratch"
    with pytest.raises(OutOfSpaceError, match=f"into {scratch}: No such file"):
        read_header(path, [], scratch=scratch)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert read_header(path, [], scratch=scratch).sop_instance_uid
    assert list(scratch.iterdir()) == []
    with pytest.raises(OutOfSpaceError, match="absent"):
        read_header(path, [])
