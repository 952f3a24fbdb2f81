"""Snapshots are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cbmir_node.errors import SnapshotError
from cbmir_node.index import FlatIndex, SpaceIdentity, read_snapshot, write_snapshot
from cbmir_node.index import snapshot as snapshot_module

IDENTITY = SpaceIdentity("ab" * 32, "embedding./features/9", "cosine", 3)


def index_of(count: int) -> FlatIndex:
    index = FlatIndex(3, "cosine")
    vectors = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
    index.add(np.arange(1, count + 1) * 2, vectors)
    return index


def only_generation(root: Path) -> Path:
    (path,) = IDENTITY.folder(root).iterdir()
    return path


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_a_snapshot_holds_the_live_rows(tmp_path, count):
    index = index_of(count)
    index.remove(np.array([4, 20_002]))
    write_snapshot(tmp_path, IDENTITY, index.parts, 77, 5)
    snapshot = read_snapshot(tmp_path, IDENTITY)
    assert (snapshot.last_vector_row, snapshot.last_removal_row) == (77, 5)
    np.testing.assert_array_equal(snapshot.rows.ids, index.ids())
    np.testing.assert_array_equal(snapshot.rows.vectors, index.vectors(index.ids()))
    assert snapshot.rows.vectors.ctypes.data % 64 == 0
    reopened = FlatIndex(3, "cosine", snapshot.rows)
    reopened.remove(index.ids()[:1])
    reopened.add(np.array([90_000]), np.float32([[1, 2, 3]]))
    assert len(reopened) == max(len(index) - 1, 0) + 1


def test_the_newest_generation_replaces_the_older_one_under_its_readers(tmp_path):
    write_snapshot(tmp_path, IDENTITY, index_of(500).parts, 1000, 0)
    reader = FlatIndex(3, "cosine", read_snapshot(tmp_path, IDENTITY).rows)
    write_snapshot(tmp_path, IDENTITY, index_of(2).parts, 1000, 9)
    assert only_generation(tmp_path).name == "generation-00000002"
    assert read_snapshot(tmp_path, IDENTITY).last_removal_row == 9
    query = reader.vectors(np.array([1000]))
    assert reader.search(query, 1).ids.tolist() == [[1000]]


def test_every_space_has_its_own_folder(tmp_path):
    write_snapshot(tmp_path, IDENTITY, index_of(1).parts, 1, 0)
    for change in ({"space": "embedding"}, {"metric": "euclidean"}, {"model_sha256": "cd" * 32}):
        other = dataclasses.replace(IDENTITY, **change)
        assert read_snapshot(tmp_path, other) is None
    assert IDENTITY.folder(tmp_path).parent.parent == tmp_path


class Crash(BaseException):
    """The process ends here: nothing after it reaches the disk."""


def crash_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the `step`-th call that changes the disk, and all later ones, raise."""
    done: list[str] = []

    def failing(name, original):
        def call(*arguments, **options):
            if len(done) >= step:
                raise Crash
            done.append(name)
            return original(*arguments, **options)

        return call

    for owner, name in [
        (os, "fsync"),
        (Path, "mkdir"),
        (Path, "rename"),
        (snapshot_module.tempfile, "mkdtemp"),
        (snapshot_module.shutil, "rmtree"),
        (snapshot_module, "_write_durably"),
    ]:
        patch.setattr(owner, name, failing(name, getattr(owner, name)))
    return done


@pytest.mark.parametrize("existing", [False, True])
def test_a_crash_leaves_the_old_or_the_new_generation(tmp_path, existing):
    outcomes = []
    for step in range(60):
        root = tmp_path / str(step)
        if existing:
            write_snapshot(root, IDENTITY, index_of(3).parts, 6, 0)
        with pytest.MonkeyPatch.context() as patch:
            done = crash_at(patch, step)
            try:
                write_snapshot(root, IDENTITY, index_of(9).parts, 18, 0)
                crashed = False
            except Crash:
                crashed = True
        found = read_snapshot(root, IDENTITY)
        outcomes.append(None if found is None else len(found.rows))
        write_snapshot(root, IDENTITY, index_of(4).parts, 8, 0)
        assert len(read_snapshot(root, IDENTITY).rows) == 4
        assert only_generation(root).is_dir()  # nothing a crash left stays behind
        if not crashed:
            break
    before = 3 if existing else None
    switch = outcomes.index(9)
    assert outcomes == [before] * switch + [9] * (len(outcomes) - switch)
    # Three files and their folder are on disk before the rename makes them visible.
    assert done[:switch].count("fsync") == 4
    assert done[switch - 1] == "rename"
    assert not crashed


def test_a_failed_write_leaves_no_trace_and_says_so(tmp_path, monkeypatch):
    write_snapshot(tmp_path, IDENTITY, index_of(3).parts, 6, 0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match="No space left on device"):
        write_snapshot(tmp_path, IDENTITY, index_of(9).parts, 18, 0)
    assert only_generation(tmp_path).name == "generation-00000001"
    assert len(read_snapshot(tmp_path, IDENTITY).rows) == 3


def _edit(path: Path, **values) -> None:
    description = json.loads((path / "snapshot.json").read_text())
    (path / "snapshot.json").write_text(json.dumps(description | values))


def _flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "vectors cut": lambda path: os.truncate(path / "vectors.npy", 130),
    "vectors empty": lambda path: os.truncate(path / "vectors.npy", 0),
    "vectors header": lambda path: _flip_byte(path / "vectors.npy", 1),
    "vectors shape": lambda path: (
        np.save(path / "vectors.npy", np.zeros((3, 9), np.float32)),
        _edit(path, vectors_bytes=(path / "vectors.npy").stat().st_size),
    ),
    "vectors of another type": lambda path: (
        np.save(path / "vectors.npy", np.zeros((9, 3), np.uint8)),
        _edit(path, vectors_bytes=(path / "vectors.npy").stat().st_size),
    ),
    "no vectors": lambda path: (path / "vectors.npy").unlink(),
    "one bit of an id": lambda path: _flip_byte(path / "ids.npy", -3),
    "no ids": lambda path: (path / "ids.npy").unlink(),
    "no description": lambda path: (path / "snapshot.json").unlink(),
    "no JSON": lambda path: (path / "snapshot.json").write_text("{"),
    "not text": lambda path: (path / "snapshot.json").write_bytes(b"\xff\xfe"),
    "newer format": lambda path: _edit(path, format=2),
    "unknown field": lambda path: _edit(path, colour="red"),
    "wrong count": lambda path: _edit(path, count=8),
    "other model": lambda path: _edit(path, model_sha256="cd" * 32),
    "other dimension": lambda path: _edit(path, dimension=4),
    "a folder as file": lambda path: (
        (path / "snapshot.json").unlink(),
        (path / "snapshot.json").mkdir(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(tmp_path, damage):
    write_snapshot(tmp_path, IDENTITY, index_of(9).parts, 18, 0)
    DAMAGES[damage](only_generation(tmp_path))
    with pytest.raises(SnapshotError, match="index snapshot"):
        read_snapshot(tmp_path, IDENTITY)
