"""Each disagreement, produced on purpose: found by its name, mended where that is possible."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, update

from cbmir_node.archive.header import read_header
from cbmir_node.catalog import schema
from cbmir_node.catalog.retention.eviction import count_pixels
from cbmir_node.catalog.work.requests import NOT_KEPT
from cbmir_node.cli import main
from cbmir_node.config import Settings
from cbmir_node.index import SpaceCache
from cbmir_node.node import open_search
from cbmir_node.search.query import Example, SimilarityQuery
from cbmir_node.stores import Stores
from cbmir_node.verification import Finding, Verification
from cbmir_node.worker import Worker
from tests.objects import make_object, write
from tests.small_node import (
    archive_file,
    drain,
    keep,
    open_small_stores,
    states,
    vectors_of_each,
    work,
)

SOUND = 6


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    opened = open_small_stores(Settings(data_dir=tmp_path / "data"))
    yield opened
    opened.close()


@pytest.fixture
def uids(stores: Stores, tmp_path: Path) -> list[str]:
    """Keep and embed some objects, write an index snapshot; return SOP Instance UIDs."""
    kept = keep(stores, tmp_path, *(make_object(SpecificCharacterSet="") for _ in range(SOUND)))
    embed(stores)
    open_search(stores, writable=True).active_cache()
    assert verify(stores, "--deep") == (0, [])
    return kept


def embed(stores: Stores) -> None:
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())


def verify(stores: Stores, *options: str) -> tuple[int, list[tuple[str, str, bool]]]:
    """Run the command; return exit code and (kind, subject, mended) of each finding."""
    folder = str(stores.settings.data_dir)
    result = CliRunner().invoke(main, ["verify", "--json", "--data-dir", folder, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    answer = json.loads(result.stdout)
    found = [(one["kind"], one["subject"], one["mended"]) for one in answer["findings"]]
    assert answer["agree"] == (result.exit_code == 0)
    return result.exit_code, found


def change(stores: Stores, statement: object) -> None:
    with stores.catalog.write() as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def instance(stores: Stores, uid: str) -> int:
    with stores.catalog.read() as connection:
        query = schema.instances.select().where(schema.instances.c.sop_instance_uid == uid)
        return int(connection.execute(query).one().id)


def test_a_lost_file_is_named_and_comes_back_when_it_is_sent_again(
    stores: Stores, uids: list[str], tmp_path: Path
) -> None:
    file = archive_file(stores, uids[1])
    copy = tmp_path / "copy.dcm"
    file.rename(copy)
    lost = ("row without its file", uids[1], False)
    assert verify(stores) == (1, [lost])
    import_again(stores, copy)
    assert verify(stores, "--deep") == (0, [])


@pytest.mark.parametrize("back", ["sent again", "found"])
def test_a_lost_file_is_one_that_is_not_kept_once_repaired(
    stores: Stores, uids: list[str], tmp_path: Path, back: str
) -> None:
    """So that `pull --again` fetches it; vectors stay, and what waits for pixels says so."""
    (waiting,) = keep(stores, tmp_path, make_object())
    files = {uid: archive_file(stores, uid) for uid in (uids[1], waiting)}
    for uid, file in files.items():
        file.rename(tmp_path / uid)
    lost = [("row without its file", uid, True) for uid in files]
    assert verify(stores, "--repair") == (0, lost)
    assert verify(stores, "--deep") == (0, [])
    assert count_pixels(stores.catalog)["not_kept"] == 2
    assert work(stores)[waiting] == ("failed", NOT_KEPT, 0)
    assert vectors_of_each(stores) == {**dict.fromkeys(uids, 1), waiting: 0}
    for uid, file in files.items():
        if back == "found":
            file.parent.mkdir(exist_ok=True)
            (tmp_path / uid).rename(file)
        else:
            import_again(stores, tmp_path / uid)
    assert [mended for *_, mended in verify(stores, "--repair")[1]] == [True] * 2 * (
        back == "found"
    )
    assert count_pixels(stores.catalog)["not_kept"] == 0
    assert states(stores, [uids[1], waiting]) == ["embedded", "pending"]
    assert verify(stores, "--deep") == (0, [])


def test_an_archive_without_any_file_is_taken_for_one_that_is_not_mounted(
    stores: Stores, uids: list[str], tmp_path: Path
) -> None:
    folders = [archive_file(stores, uid).parent.parent for uid in uids]
    away = [(folder, tmp_path / folder.name) for folder in dict.fromkeys(folders)]
    for folder, elsewhere in away:
        folder.rename(elsewhere)
    code, found = verify(stores, "--repair")
    assert (code, [mended for *_, mended in found]) == (1, [False] * SOUND)
    for folder, elsewhere in away:
        elsewhere.rename(folder)
    assert verify(stores, "--deep") == (0, [])


def import_again(stores: Stores, file: Path) -> None:
    folder = str(stores.settings.data_dir)
    result = CliRunner().invoke(main, ["import", "--data-dir", folder, str(file)])
    assert result.exit_code == 0, result.output
    assert "1 duplicate" in result.output


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 2)


def spoil_pixels(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 0xFF
    file.write_bytes(content)


def spoil_preamble(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(b"\xff" * 400 + content[400:])


@pytest.mark.parametrize(
    ("damage", "options"), [(cut, []), (spoil_pixels, ["--deep"]), (spoil_preamble, ["--deep"])]
)
def test_a_damaged_file_is_named_and_mended_when_it_is_sent_again(
    stores: Stores,
    uids: list[str],
    tmp_path: Path,
    damage: Callable[[Path], None],
    options: list[str],
) -> None:
    file = archive_file(stores, uids[0])
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(file.read_bytes())
    damage(file)
    damaged = ("file damaged", uids[0], False)
    assert verify(stores, *options) == (1, [damaged])
    assert verify(stores, "--repair", *options) == (1, [damaged])
    import_again(stores, copy)
    assert verify(stores, "--deep") == (0, [])


def unacknowledged(stores: Stores, tmp_path: Path, **attributes: str) -> tuple[str, str]:
    """Store an object without a row, as a crash before the commit does; return UID and path."""
    dataset = make_object(**attributes)
    file = write(dataset, tmp_path / "unacknowledged.dcm")
    header = read_header(file, [])
    with stores.archive.receive() as incoming:
        incoming.begin(header.sop_class_uid, header.sop_instance_uid, "1.2.840.10008.1.2.1", "")
        incoming.write(file.read_bytes()[header.dataset_offset :])
        path = stores.archive.new_path(header.study_instance_uid, header.sop_instance_uid)
        kept = stores.archive.keep(incoming, path)
    return header.sop_instance_uid, kept.path


def test_a_file_without_a_row_is_taken_in(stores: Stores, uids: list[str], tmp_path: Path) -> None:
    uid, path = unacknowledged(stores, tmp_path)
    assert verify(stores) == (1, [("file without a row", path, False)])
    assert verify(stores, "--repair") == (0, [("file without a row", path, True)])
    embed(stores)
    assert states(stores, [uid]) == ["embedded"]
    assert verify(stores, "--deep") == (0, [])


@pytest.mark.parametrize("duplicates", ["keep", "replace"])
def test_a_file_without_a_row_never_displaces_what_was_acknowledged(
    stores: Stores,
    uids: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    duplicates: str,
) -> None:
    """With ``replace`` such a file may be the old content, superseded and not removed yet."""
    monkeypatch.setenv("CBMIR_ARCHIVE__DUPLICATES", duplicates)
    known = archive_file(stores, uids[0])
    _, path = unacknowledged(
        stores, tmp_path, SOPInstanceUID=uids[0], StudyInstanceUID=known.parent.name
    )
    assert verify(stores, "--repair") == (0, [("file without a row", path, True)])
    assert archive_file(stores, uids[0]) == known
    assert not stores.archive.path(path).exists()
    assert verify(stores, "--deep") == (0, [])


def test_a_foreign_file_in_the_archive_is_named_and_left_alone(
    stores: Stores, uids: list[str]
) -> None:
    foreign = archive_file(stores, uids[0]).with_name("notes.dcm")
    foreign.write_text("not DICOM")
    found = ("file without a row", str(foreign.relative_to(stores.archive.root)), False)
    assert verify(stores, "--repair") == (1, [found])
    assert foreign.read_text() == "not DICOM"


def lose_work(stores: Stores, row: int) -> None:
    change(stores, delete(schema.work).where(schema.work.c.instance == row))


def lose_vector(stores: Stores, row: int) -> None:
    change(stores, delete(schema.vectors).where(schema.vectors.c.instance == row))


def cut_vector(stores: Stores, row: int) -> None:
    change(
        stores,
        update(schema.vectors).where(schema.vectors.c.instance == row).values(vector=b"\0" * 12),
    )


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lose_work, "instance never queued"),
        (lose_vector, "embedded without a vector"),
        (cut_vector, "vector of a wrong length"),
    ],
)
def test_what_the_catalogue_lacks_is_named_and_embedded_again(
    stores: Stores,
    uids: list[str],
    damage: Callable[[Stores, int], None],
    kind: str,
) -> None:
    damage(stores, instance(stores, uids[3]))
    code, found = verify(stores)
    assert code == 1
    assert (kind, uids[3], False) in found
    verify(stores, "--repair")
    assert states(stores, [uids[3]]) == ["pending"]
    embed(stores)
    verify(stores, "--repair")  # the index: rows that vanished behind its back
    assert verify(stores, "--deep") == (0, [])
    assert vectors_of_each(stores) == dict.fromkeys(uids, 1)


def test_a_cut_vector_does_not_silence_the_search(
    stores: Stores, uids: list[str], tmp_path: Path
) -> None:
    cut_vector(stores, instance(stores, uids[3]))
    shutil.rmtree(stores.settings.index_path)
    search = open_search(stores, writable=True)
    study = Example("STUDY", archive_file(stores, uids[0]).parent.name)
    assert len(search.answer(SimilarityQuery([study])).matches) == SOUND - 2
    keep(stores, tmp_path, make_object())
    embed(stores)
    assert len(search.answer(SimilarityQuery([study])).matches) == SOUND - 1


def snapshot_file(stores: Stores, name: str) -> Path:
    (file,) = stores.settings.index_path.rglob(name)
    return file


def spoil_vectors(stores: Stores) -> None:
    file = snapshot_file(stores, "vectors.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x40
    file.write_bytes(content)


def spoil_ids(stores: Stores) -> None:
    cut(snapshot_file(stores, "ids.npy"))


def spoil_description(stores: Stores) -> None:
    snapshot_file(stores, "snapshot.json").write_text("{}")


@pytest.mark.parametrize("damage", [spoil_vectors, spoil_ids, spoil_description])
def test_a_damaged_index_is_named_and_rebuilt(
    stores: Stores, uids: list[str], damage: Callable[[Stores], None]
) -> None:
    damage(stores)
    code, found = verify(stores)
    assert code == 1
    assert [kind for kind, *_ in found] == ["index differs"]
    code, found = verify(stores, "--repair")
    assert code == 0
    assert [mended for *_, mended in found] == [True]
    assert verify(stores, "--deep") == (0, [])


def test_an_index_of_another_catalogue_is_rebuilt_once(
    stores: Stores, uids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(stores, update(schema.vectors).values(vector=b"\0" * 3 + b"\x42" + b"\0" * 124))
    rebuilt: list[SpaceCache] = []
    rebuild = SpaceCache.rebuild

    def counted(cache: SpaceCache) -> None:
        rebuilt.append(cache)
        rebuild(cache)

    monkeypatch.setattr(SpaceCache, "rebuild", counted)
    code, found = verify(stores, "--repair")
    assert (code, len(found), len(rebuilt)) == (0, SOUND, 1)
    assert verify(stores) == (0, [])


def test_the_list_says_what_to_do(stores: Stores, uids: list[str]) -> None:
    cut(archive_file(stores, uids[1]))
    lose_work(stores, instance(stores, uids[2]))
    folder = str(stores.settings.data_dir)
    result = CliRunner().invoke(main, ["verify", "--data-dir", folder, "--repair"])
    assert result.exit_code == 1
    assert f"file damaged: {uids[1]} (send the object again)" in result.output
    assert f"mended: instance never queued: {uids[2]} (--repair queues it)" in result.output
    assert "2 disagreements, 1 mended" in result.output


def test_repair_and_reception_at_the_same_time_disturb_nothing(
    stores: Stores, uids: list[str], tmp_path: Path
) -> None:
    """Without a node's lock, so that even the youngest files count as left over."""
    folder = tmp_path / "arriving"
    folder.mkdir()
    datasets = [make_object() for _ in range(40)]
    threads = [
        threading.Thread(target=keep, args=(stores, folder_of(folder, part), *datasets[part::2]))
        for part in range(2)
    ]
    for thread in threads:
        thread.start()
    mended: list[Finding] = []
    while any(thread.is_alive() for thread in threads):
        verification = Verification(stores)
        mended += verification.repair(verification.findings())
    for thread in threads:
        thread.join()
    embed(stores)
    everything = [*uids, *(str(dataset.SOPInstanceUID) for dataset in datasets)]
    assert vectors_of_each(stores) == dict.fromkeys(everything, 1)
    assert verify(stores, "--deep") == (0, [])


def folder_of(folder: Path, part: int) -> Path:
    inner = folder / str(part)
    inner.mkdir()
    return inner
