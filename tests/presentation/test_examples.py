"""Dropped files: what is taken, what is refused, and how all of it is forgotten."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.errors import (
    BusyError,
    NoPixelsError,
    OutOfSpaceError,
    PixelError,
    UnknownExampleError,
    UploadError,
)
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.node import open_intake, open_search
from cbmir_node.presentation import examples as kept_examples
from cbmir_node.presentation import uploads
from cbmir_node.presentation.examples import TemporaryExamples
from cbmir_node.presentation.network import ActiveNetwork
from cbmir_node.search.query import SimilarityQuery
from cbmir_node.stores import Stores
from cbmir_node.worker import Worker
from tests.models import build_model
from tests.objects import make_object, write
from tests.small_node import drain, keep, states

PICTURE = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8)


@pytest.fixture
def examples(
    stores: Stores, decoders: DecoderPool, network: ActiveNetwork, tmp_path: Path
) -> Iterator[TemporaryExamples]:
    opened = TemporaryExamples(tmp_path / "examples", stores, decoders, network)
    yield opened
    opened.close()
    assert left_in(tmp_path) == []


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "examples").iterdir())


def test_a_dropped_object_is_an_example_like_any_other(
    stores: Stores, examples: TemporaryExamples, file: Path, tmp_path: Path
) -> None:
    known, other = make_object(PatientAge="061Y"), make_object()
    keep(stores, tmp_path, known, other)
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())
    dropped = examples.add(write(known, file), "slice.dcm")
    assert file.exists()
    assert (dropped.kind, dropped.name, dropped.age_years) == ("dicom", "slice.dcm", 61)
    assert dropped.attributes["PatientID"] == known.PatientID
    assert dropped.attributes["StudyInstanceUID"] == known.StudyInstanceUID
    assert (dropped.frame_numbers, dropped.number_of_frames) == ((1,), 1)
    chances = [one.probability for one in dropped.predictions]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1)
    assert examples.get(dropped.token) == dropped
    answer = open_search(stores, writable=False).answer(SimilarityQuery([dropped.example]))
    found = find(stores.catalog, "STUDY", {}, ["StudyInstanceUID"], 9)
    names = {match.row: match.values["StudyInstanceUID"] for match in found}
    # its own study is left out, as if it were named
    assert [names[match.row] for match in answer.matches] == [other.StudyInstanceUID]
    assert answer.matches[0].similarity == pytest.approx(1, abs=1e-3)


def test_a_picture_is_stored_only_when_asked(
    stores: Stores, examples: TemporaryExamples, file: Path
) -> None:
    Image.fromarray(PICTURE).save(file, "PNG")
    dropped = examples.add(file, "hand.png", "DX")
    assert (dropped.kind, dropped.attributes["Modality"]) == ("png", "DX")
    assert dropped.attributes["StudyDescription"] == "hand.png"
    uid = dropped.attributes["SOPInstanceUID"]
    assert find(stores.catalog, "IMAGE", {"SOPInstanceUID": uid}, [], 9) == []
    np.testing.assert_array_equal(examples.values(dropped.token, 1, 64).values, PICTURE)
    with Image.open(io.BytesIO(examples.thumbnail(dropped.token, 1))) as image:
        assert image.size == (32, 24)
    intake = open_intake(stores)
    try:
        receipt = examples.store(dropped.token, intake)
    finally:
        intake.close()
    assert (receipt.sop_instance_uid, receipt.outcome) == (uid, StoreOutcome.STORED)
    assert states(stores, [uid]) == ["pending"]
    (match,) = find(stores.catalog, "SERIES", {"StudyDescription": "hand*"}, ["Modality"], 9)
    assert match.values["Modality"] == "DX"
    examples.remove(dropped.token)
    examples.remove(dropped.token)
    with pytest.raises(UnknownExampleError, match="drop it again"):
        examples.get(dropped.token)


def test_objects_without_preamble_are_taken(examples: TemporaryExamples, file: Path) -> None:
    bare, whole = make_object(), make_object()
    with file.open("wb") as out:
        body = DicomFileLike(out)
        body.is_little_endian, body.is_implicit_VR = True, False
        write_dataset(body, bare)
    assert file.read_bytes()[:2] == b"\x08\x00"
    dropped = examples.add(file, "bare")
    assert dcmread(dropped.path).file_meta.MediaStorageSOPInstanceUID == bare.SOPInstanceUID
    same = examples.add(write(whole, file), "whole")
    np.testing.assert_array_equal(dropped.example.vectors, same.example.vectors)


def test_what_cannot_be_an_example_leaves_nothing_behind(
    examples: TemporaryExamples, file: Path, tmp_path: Path
) -> None:
    report = make_object(Rows=None, Columns=None, PixelData=None, Modality="SR")
    whole = write(make_object(), file).read_bytes()
    refused: list[tuple[bytes, type[Exception], str]] = [
        (b"Dear colleague, " * 50, UploadError, "no DICOM object, PNG or JPEG"),
        (b"", UploadError, "no DICOM object, PNG or JPEG"),
        (whole[:-100], UploadError, "cannot be used"),
        (b"\xff\xd8\xff\xe0 no JPEG", UploadError, "save it again"),
        (write(report, file).read_bytes(), NoPixelsError, "(?i)pixel"),
        (write(make_object(BitsAllocated=16, Rows=500), file).read_bytes(), PixelError, "needed"),
    ]
    for content, kind, message in refused:
        file.write_bytes(content)
        with pytest.raises(kind, match=message):
            examples.add(file, "a file")
    Image.fromarray(PICTURE).save(file, "PNG")
    with pytest.raises(UploadError, match="capital letters"):
        examples.add(file, "a file", "no\\modality")
    assert left_in(tmp_path) == []


def test_files_are_this_users_and_gone_when_the_node_starts(
    stores: Stores,
    decoders: DecoderPool,
    network: ActiveNetwork,
    examples: TemporaryExamples,
    tmp_path: Path,
) -> None:
    with examples.receive() as received:
        upload = received.path
        assert upload.stat().st_mode & 0o777 == 0o600
        Image.fromarray(PICTURE).save(upload, "JPEG")
        token = examples.add(upload, "picture").token
        other = examples.add(write(make_object(), upload), "object").token
    assert not upload.exists()
    assert len(token) >= 32
    assert (tmp_path / "examples").stat().st_mode & 0o777 == 0o700
    assert all(examples.get(one).path.stat().st_mode & 0o777 == 0o600 for one in (token, other))
    assert len(left_in(tmp_path)) == 2
    TemporaryExamples(tmp_path / "examples", stores, decoders, network)
    assert left_in(tmp_path) == []


def test_the_one_unused_for_longest_is_forgotten_first(
    examples: TemporaryExamples, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(make_object(), file)
    monkeypatch.setattr(kept_examples, "MOST_EXAMPLES", 2)
    first, second = (examples.add(file, "a").token for _ in range(2))
    examples.get(first)
    third = examples.add(file, "a").token
    assert left_in(tmp_path) == sorted(f"{token}.dcm" for token in (first, third))
    with pytest.raises(UnknownExampleError):
        examples.get(second)
    monkeypatch.setattr(kept_examples, "MOST_BYTES", 1)
    last = examples.add(file, "a").token
    assert left_in(tmp_path) == [f"{last}.dcm"]
    monkeypatch.setattr(kept_examples, "LIFETIME_S", -1.0)
    examples.forget_unused()
    assert left_in(tmp_path) == []


def test_a_full_disk_takes_no_file(
    stores: Stores, examples: TemporaryExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores.archive, "reserve_bytes", 1 << 60)
    with examples.receive() as upload:
        upload.write(bytes(1 << 20))
        monkeypatch.setattr(uploads.Uploads, "_reserve", 1 << 60, raising=False)
        monkeypatch.delattr(examples._uploads, "_reserve")
        with pytest.raises(OutOfSpaceError):  # also within a file
            upload.write(bytes(uploads._RESERVE_CHECK_BYTES))
    with pytest.raises(OutOfSpaceError), examples.receive():
        pass


def test_so_many_files_are_received_at_a_time_and_no_more(examples: TemporaryExamples) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(uploads.MOST_UPLOADS):
            held.enter_context(examples.receive())
        with pytest.raises(BusyError), examples.receive():
            pass
    with examples.receive() as upload:
        assert upload.size == 0


def test_an_example_is_its_owners(
    examples: TemporaryExamples, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(make_object(), file)
    monkeypatch.setattr(kept_examples, "MOST_OF_ONE_OWNER", 1)
    anns = examples.add(file, "a", owner="ann").token
    bobs = examples.add(file, "b", owner="bob").token
    with pytest.raises(UnknownExampleError):
        examples.get(anns, "bob")
    examples.remove(anns, "bob")
    assert examples.get(anns, "ann").name == "a"
    examples.add(file, "c", owner="bob")  # bob's own oldest goes, not ann's older one
    with pytest.raises(UnknownExampleError):
        examples.get(bobs, "bob")
    assert examples.get(anns, "ann").name == "a"


def test_after_a_switch_an_example_asks_the_new_model(
    stores: Stores, examples: TemporaryExamples, file: Path, tmp_path: Path
) -> None:
    keep(stores, tmp_path, make_object())
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())
    token = examples.add(write(make_object(), file), "a").token
    before: Any = examples.get(token).example
    other = stores.install(build_model(tmp_path / "other.onnx", name="other", dimension=24))
    assert stores.use(other) == "next"
    with Worker(stores) as worker:
        drain(worker, other)
    assert stores.registry.switch_if_ready() is not None
    after = examples.get(token)
    assert after.example.model_sha256 == other.sha256 != before.model_sha256
    assert after.example.vectors is not None
    assert after.example.vectors.shape == (1, 24)
    assert examples.get(token) is after


def test_what_a_write_does_not_take_at_once_is_written_too(stores: Stores, tmp_path: Path) -> None:
    class Reluctant(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:3]))

    file = Reluctant()
    receiver = uploads.Uploads(tmp_path, stores.archive)
    upload = uploads.Upload(tmp_path / "file", file, receiver)
    upload.write(b"more than three bytes")
    assert file.getvalue() == b"more than three bytes"
    assert upload.size == len(file.getvalue())
