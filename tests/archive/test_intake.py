"""Bytes → durable file → row: what is taken in, what is refused, what is left behind."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from sqlalchemy import select

from cbmir_node.archive.header import read_header
from cbmir_node.archive.store import Archive
from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.reception.registration import StoreOutcome
from cbmir_node.errors import ArchiveError, InvalidObjectError, OutOfSpaceError
from cbmir_node.intake import Intake
from tests.objects import make_object, write


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", create=True)
    yield opened
    opened.close()


@pytest.fixture
def intake(tmp_path: Path, catalog: Catalog) -> Iterator[Intake]:
    opened = Intake(Archive(tmp_path / "archive"), catalog)
    yield opened
    opened.close()


def paths(catalog: Catalog) -> list[str]:
    with catalog.read() as connection:
        return list(connection.execute(select(schema.instances.c.path)).scalars())


def left_over(intake: Intake) -> list[Path]:
    return left_over_in(intake.archive)


def left_over_in(archive: Archive) -> list[Path]:
    return list((archive.root / "incoming").iterdir())


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.name,
)
def test_a_file_is_kept_bit_for_bit(
    intake: Intake, catalog: Catalog, tmp_path: Path, syntax: str
) -> None:
    file = write(make_object(), tmp_path / "in.dcm", syntax)
    receipt = intake.accept_file(file)
    assert receipt.outcome is StoreOutcome.STORED
    (stored,) = paths(catalog)
    kept = intake.archive.path(stored)
    assert dcmread(kept) == dcmread(file)
    before, after = read_header(file, []), read_header(kept, [])
    assert kept.read_bytes()[after.dataset_offset :] == file.read_bytes()[before.dataset_offset :]
    assert after.transfer_syntax_uid == syntax
    assert list(intake.archive.files()) == [stored]
    assert left_over(intake) == []


@pytest.mark.parametrize("preamble", [True, False])
def test_files_without_preamble_or_meta_are_recognised(
    intake: Intake, tmp_path: Path, preamble: bool
) -> None:
    file = write(make_object(), tmp_path / "in.dcm")
    offset = 132 if preamble else read_header(file, []).dataset_offset
    bare = tmp_path / "bare"
    bare.write_bytes(file.read_bytes()[offset:])
    assert intake.accept_file(bare).outcome is StoreOutcome.STORED
    assert intake.accept_file(file).outcome is StoreOutcome.DUPLICATE


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"StudyInstanceUID": None}, "has no StudyInstanceUID"),
        ({"SeriesInstanceUID": ""}, "has no SeriesInstanceUID"),
        ({"SOPInstanceUID": "../../evil"}, "SOPInstanceUID is not a UID"),
        ({"StudyInstanceUID": "1..2"}, "StudyInstanceUID is not a UID"),
        ({"StudyInstanceUID": "1." + "2" * 64}, "StudyInstanceUID is not a UID"),
        ({"SOPClassUID": "CT"}, "SOPClassUID is not a UID"),
    ],
)
def test_identifiers_are_needed(
    intake: Intake, tmp_path: Path, attributes: dict[str, str | None], message: str
) -> None:
    file = write(make_object(**attributes), tmp_path / "in.dcm")
    with pytest.raises(InvalidObjectError, match=message):
        intake.accept_file(file)
    assert list(intake.archive.files()) == []
    assert left_over(intake) == []


def test_what_is_no_dicom_is_told_apart(intake: Intake, tmp_path: Path) -> None:
    for name, content in {"empty": b"", "text": b"hello" * 99, "png": b"\x89PNG" * 99}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidObjectError, match="not a DICOM file"):
            intake.accept_file(tmp_path / name)


def test_a_deflated_bomb_is_bounded(catalog: Catalog, tmp_path: Path) -> None:
    file = write(make_object(), tmp_path / "in.dcm", DeflatedExplicitVRLittleEndian)
    offset = read_header(file, []).dataset_offset
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(bytes(40 << 20)) + deflate.flush()
    file.write_bytes(file.read_bytes()[:offset] + bomb)
    intake = Intake(Archive(tmp_path / "archive", max_object_bytes=4 << 20), catalog)
    with pytest.raises(InvalidObjectError, match="inflates to more than"):
        intake.accept_file(file)
    intake.close()


def test_conflicting_content_is_never_lost_by_surprise(tmp_path: Path, catalog: Catalog) -> None:
    first = make_object(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2")
    second = deepcopy(first)
    second.SeriesDescription = "other content"
    one, two = write(first, tmp_path / "1.dcm"), write(second, tmp_path / "2.dcm")
    keeping = Intake(Archive(tmp_path / "archive"), catalog)
    assert keeping.accept_file(one).outcome is StoreOutcome.STORED
    assert keeping.accept_file(two).outcome is StoreOutcome.CONFLICT
    assert list(keeping.archive.files()) == paths(catalog)
    keeping.close()
    replacing = Intake(Archive(tmp_path / "archive"), catalog, duplicates="replace")
    assert replacing.accept_file(two).outcome is StoreOutcome.REPLACED
    (stored,) = replacing.archive.files()
    assert paths(catalog) == [stored]
    assert dcmread(replacing.archive.path(stored)).SeriesDescription == "other content"
    replacing.close()


def test_the_same_object_from_many_sides_is_stored_once(
    intake: Intake, catalog: Catalog, tmp_path: Path
) -> None:
    file = write(make_object(), tmp_path / "in.dcm")
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: intake.accept_file(file), range(24)))
    outcomes = [receipt.outcome for receipt in receipts]
    assert outcomes.count(StoreOutcome.STORED) == 1
    assert outcomes.count(StoreOutcome.DUPLICATE) == 23
    assert list(intake.archive.files()) == paths(catalog)
    assert left_over(intake) == []


def test_the_disk_reserve_is_kept(tmp_path: Path, catalog: Catalog) -> None:
    file = write(make_object(), tmp_path / "in.dcm")
    intake = Intake(Archive(tmp_path / "archive", reserve_bytes=1 << 60), catalog)
    with pytest.raises(OutOfSpaceError, match="nothing more is stored"):
        intake.accept_file(file)
    intake.close()
    small = Intake(Archive(tmp_path / "archive", max_object_bytes=100), catalog)
    with pytest.raises(OutOfSpaceError, match="max_object_mib"):
        small.accept_file(file)
    assert left_over(small) == []
    small.close()


def test_interrupted_receptions_are_swept(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    incoming = archive.receive()
    incoming.write(b"half an object")
    incoming.finish()
    (tmp_path / "archive" / "incoming" / "left by a crash.part").write_bytes(b"half")
    assert Archive(tmp_path / "archive").sweep() == 1
    # what is being received at this moment, by any process, is no leftover
    assert left_over_in(archive) == [incoming.path]
    incoming.discard()
    assert left_over_in(archive) == []


def test_sending_an_object_again_mends_a_lost_or_damaged_file(
    intake: Intake, catalog: Catalog, tmp_path: Path
) -> None:
    file = write(make_object(), tmp_path / "in.dcm")
    intake.accept_file(file)
    rot = file.read_bytes()[:-1] + b"x"
    damages = (Path.unlink, lambda path: os.truncate(path, 400), lambda path: path.write_bytes(rot))
    for damage in damages:
        (path,) = paths(catalog)
        damage(intake.archive.path(path))
        assert intake.accept_file(file).outcome is StoreOutcome.DUPLICATE
        (mended,) = paths(catalog)
        assert mended != path
        assert dcmread(intake.archive.path(mended)) == dcmread(file)


def test_other_content_is_kept_when_the_first_file_is_lost(
    intake: Intake, catalog: Catalog, tmp_path: Path
) -> None:
    """Whatever the policy: what is acknowledged must be in the archive in one version at least."""
    first = make_object(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2")
    second = deepcopy(first)
    second.SeriesDescription = "other content"
    intake.accept_file(write(first, tmp_path / "1.dcm"))
    (path,) = paths(catalog)
    intake.archive.path(path).unlink()
    assert intake.accept_file(write(second, tmp_path / "2.dcm")).outcome is StoreOutcome.REPLACED
    assert list(intake.archive.files()) == paths(catalog)


def test_a_folder_that_goes_while_an_object_is_put_into_it_is_made_again(
    intake: Intake, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who deletes the last object of a study removes its folder, whoever receives the next one."""
    make, made = Archive._make_folder, []

    def make_and_lose(archive: Archive, folder: Path) -> None:
        make(archive, folder)
        made.append(folder)
        if len(made) < 3:
            folder.rmdir()

    monkeypatch.setattr(Archive, "_make_folder", make_and_lose)
    intake.accept_file(write(make_object(), tmp_path / "in.dcm"))
    assert len(made) == 3
    assert list(intake.archive.files()) == paths(catalog)


def test_others_see_that_objects_are_being_received(intake: Intake, tmp_path: Path) -> None:
    beside = Archive(tmp_path / "archive")
    assert beside.is_receiving()
    intake.close()
    assert not beside.is_receiving()


def test_an_archive_that_should_be_there_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="mounted"):
        Archive(tmp_path / "unmounted", create=False)
    assert not (tmp_path / "unmounted").exists()


def test_a_left_over_file_is_adopted_or_removed(
    intake: Intake, catalog: Catalog, tmp_path: Path
) -> None:
    """A node killed between rename and commit leaves a file without a row."""
    known, unknown = make_object(SOPInstanceUID="1.2"), make_object(SOPInstanceUID="1.3")
    intake.accept_file(write(known, tmp_path / "known.dcm"))
    (row,) = paths(catalog)
    for name, dataset in {"known.left.dcm": known, "unknown.left.dcm": unknown}.items():
        write(dataset, intake.archive.path(row).with_name(name))
    left = sorted(set(intake.archive.files()) - {row})
    assert intake.adopt(left[0]).outcome is StoreOutcome.DUPLICATE
    assert intake.adopt(left[1]).outcome is StoreOutcome.STORED
    assert sorted(intake.archive.files()) == sorted(paths(catalog)) == sorted([row, left[1]])


def test_the_same_bytes_in_another_transfer_syntax_are_another_content(
    intake: Intake, catalog: Catalog, tmp_path: Path
) -> None:
    """JPEG pixels announced as uncompressed must not overwrite the readable object."""
    file = write(make_object(), tmp_path / "in.dcm")
    header = read_header(file, [])
    intake.accept_file(file)
    (path,) = paths(catalog)
    before = intake.archive.path(path).read_bytes()
    with intake.archive.receive() as incoming:
        incoming.begin(header.sop_class_uid, header.sop_instance_uid, JPEGBaseline8Bit, "")
        incoming.write(file.read_bytes()[header.dataset_offset :])
        assert intake.accept(incoming, source="").outcome is StoreOutcome.CONFLICT
    assert list(intake.archive.files()) == paths(catalog) == [path]
    assert intake.archive.path(path).read_bytes() == before
