"""What the commands say, and their exit codes: 1 failed, 2 wrong usage, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from pathlib import Path

import alembic.command
import pytest

from cbmir_node.catalog.database import Catalog
from cbmir_node.config import EmbeddingSettings, load_settings
from cbmir_node.embedding.session import EmbeddingModel
from cbmir_node.embedding.store import shipped_model
from cbmir_node.presence import only_node
from cbmir_node.stores import Stores
from tests.cli.conftest import Command
from tests.conftest import create_database
from tests.models import build_model
from tests.objects import make_object, write
from tests.small_node import keep


@pytest.mark.parametrize(
    "arguments",
    [
        "query --study 1.2 --study-date garbage",
        "query --study 1.2 --study-date 20240230",
        "query --study 1.2 --study-date 20240201-20240101",
        "query --study 1.2 --study-date -",
        "query --study 1.2 --age 60-40",
        "query --study 1.2 --age nan",
        "query --study 1.2 --age 1-2-3",
        "echo A@127.0.0.1:70000",
        "echo A@127.0.0.1:0",
        "echo A@127.0.0.1:104 --timeout 0",
    ],
)
def test_what_can_never_work_is_wrong_usage(command: Command, arguments: str) -> None:
    done = command(*arguments.split())
    assert done.exit_code == 2, done.output
    assert "Invalid value" in done.stderr


@pytest.mark.parametrize("arguments", ["--age -40", "--age 40-", "--age 0.5", "--study-date -2024"])
def test_open_ranges_are_ranges(command: Command, arguments: str) -> None:
    option, text = arguments.split()
    done = command("query", "--study", "1.2", f"{option}={text.replace('2024', '20240229')}")
    assert done.exit_code == 1, done.output
    assert "there is no catalogue" in done.stderr


@pytest.mark.parametrize("arguments", ["config check", "config show", "config show --json"])
def test_the_databases_password_is_not_shown(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    url = "postgresql+psycopg://cbmir:hunter2@localhost/cbmir"
    monkeypatch.setenv("CBMIR_CATALOG__URL", url)
    done = command(*arguments.split())
    assert done.exit_code == 0, done.output
    assert "cbmir:***@localhost/cbmir" in done.output
    monkeypatch.setenv("CBMIR_CATALOG__URL", url.replace("://", ":/"))
    broken = command("config", "check")
    assert (broken.exit_code, "catalog.url" in broken.stderr) == (1, True)
    assert "hunter2" not in done.output + broken.output


@pytest.mark.parametrize("arguments", ["config show", "config show --json"])
def test_what_is_kept_of_passwords_and_tokens_is_not_shown(
    command: Command, tmp_path: Path, arguments: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f'http.tokens.program.sha256 = "{"5e" * 32}"\n'
        'http.users.ann.password_hash = "scrypt$32768$8$3$c2FsdA==$aGFzaA=="\n'
    )
    done = command(*arguments.split(), "--config", str(file))
    assert done.exit_code == 0, done.output
    assert "ann" in done.output
    assert "5e5e" not in done.output
    assert "scrypt$" not in done.output


def test_upgrading_does_not_show_the_password(
    command: Command, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    url = create_database(postgresql_url, "upgraded").replace("cbmir@", "cbmir:hunter2@")
    monkeypatch.setenv("CBMIR_CATALOG__URL", url)
    done = command("db", "upgrade")
    assert done.exit_code == 0, done.output
    assert "cbmir:***@" in done.output
    assert "hunter2" not in done.output


def test_libraries_are_kept_quiet(command: Command) -> None:
    assert command("config", "check").exit_code == 0
    assert not logging.getLogger("pydicom").isEnabledFor(logging.WARNING)


def test_doctor_before_the_first_start(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    def data() -> dict[str, str]:
        checks = json.loads(command("doctor", "--json").stdout)["checks"]
        return next(check for check in checks if check["name"] == "data")

    assert (data()["verdict"], "no catalogue yet" in data()["detail"]) == ("note", True)
    assert command("db", "upgrade").exit_code == 0
    assert (data()["verdict"], "no model" in data()["detail"]) == ("note", True)
    (tmp_path / "data" / "catalog.sqlite").write_bytes(b"not a database, but of its length" * 99)
    assert data()["verdict"] == "fail"


def test_import_tells_why_files_were_skipped(
    command: Command, stores: Stores, tmp_path: Path
) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    write(make_object(), folder / "one.dcm")
    for number in range(5):
        (folder / f"{number}.txt").write_text("not DICOM")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\x04\x00\x30\x11CS\x02\x00A ")
    shown = command("import", folder)
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.stderr.splitlines() if line.startswith("skipped")]
    assert len(lines) == 2
    assert "media directory" in lines[1]
    assert lines[0].startswith("skipped 5 (not a DICOM file): ")
    assert lines[0].count(".txt") == 3
    found = json.loads(command("import", "--json", folder).stdout)
    assert found["skipped"] == len(found["skips"]) == 6
    assert {"file": str(folder / "4.txt"), "reason": "not a DICOM file"} in found["skips"]


def test_embed_fails_before_its_work_when_it_cannot_write(command: Command, tmp_path: Path) -> None:
    picture = write(make_object(), tmp_path / "one.dcm")
    model = build_model(tmp_path / "tiny.onnx")
    output = tmp_path / "absent" / "x.npz"
    done = command("embed", picture, "--model", model, "-o", output)
    assert done.exit_code == 1
    assert str(output) in done.stderr
    assert "No such file" in done.stderr
    assert "Embedding" not in done.output


def test_embed_passes_over_what_it_cannot_read(command: Command, tmp_path: Path) -> None:
    picture = write(make_object(), tmp_path / "one.dcm")
    model = build_model(tmp_path / "tiny.onnx")
    unreadable = Path("/proc/self/mem")  # reading its first page fails, for root too
    output = tmp_path / "x.npz"
    done = command("embed", unreadable, picture, "--model", model, "-o", output)
    assert done.exit_code == 0, done.output
    assert f"skipped {unreadable}" in done.stderr
    assert "1 vectors of 32 values by tiny:1, 1 skipped" in done.stdout
    before = output.read_bytes()
    assert command("embed", unreadable, "--model", model, "-o", output).exit_code == 1
    assert output.read_bytes() == before  # an earlier result stays
    assert not list(tmp_path.glob("*.part"))


def test_embed_takes_the_shipped_model_only_where_there_is_no_node(
    command: Command, tmp_path: Path
) -> None:
    picture = write(make_object(), tmp_path / "one.dcm")
    shipped = EmbeddingModel.load(shipped_model(), EmbeddingSettings()).description
    done = command("embed", picture, "-o", tmp_path / "x.npz")
    assert done.exit_code == 0, done.output
    assert f"by {shipped.name}:{shipped.version}" in done.stdout
    assert command("db", "upgrade").exit_code == 0
    with sqlite3.connect(tmp_path / "data" / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE alembic_version SET version_num = 'of old'")
    catalog.close()
    outdated = command("embed", picture, "-o", tmp_path / "y.npz")
    assert (outdated.exit_code, "db upgrade" in outdated.stderr) == (1, True)
    assert not (tmp_path / "y.npz").exists()


def test_a_file_that_cannot_be_read_is_no_traceback(
    command: Command, stores: Stores, tmp_path: Path
) -> None:
    keep(stores, tmp_path, make_object())
    done = command("query", "--file", "/proc/self/mem")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


def test_peers_and_rules_are_shown_as_they_are_written(command: Command, tmp_path: Path) -> None:
    written, shown = tmp_path / "written.toml", tmp_path / "shown.toml"
    written.write_text(
        '[archive]\nduplicates = "replace"\n'
        '[peers."OLD PACS"]\nhost = "pacs.example"\nport = 104\n'
        '[[forwarding.rules]]\nto = "OLD PACS"\nmodalities = ["CT"]\n'
    )
    shown.write_text(command("config", "show", "--config", written).stdout)
    again = load_settings(shown, environment={})
    assert again.peers["OLD PACS"].port == 104
    assert again.forwarding == load_settings(written, environment={}).forwarding
    written.write_text('[[forwarding.rules]]\nto = "PACS"\n')
    wrong = command("config", "check", "--config", written)
    assert (wrong.exit_code, "there is no [peers.PACS]" in wrong.stderr) == (1, True)


def test_the_schema_is_not_upgraded_under_a_running_node(command: Command, tmp_path: Path) -> None:
    """A package is updated, and a nightly job starts before the node is restarted."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'data' / 'catalog.sqlite'}")
    (tmp_path / "data").mkdir()
    with catalog._alembic(catalog.write) as config:
        alembic.command.upgrade(config, "0002")
    file = write(make_object(), tmp_path / "one.dcm")
    with only_node(tmp_path / "data"):
        imported = command("import", file)
        upgraded = command("db", "upgrade")
    assert "stop the node, then run 'cbmir-node db upgrade'" in imported.stderr
    assert (upgraded.exit_code, "another node already runs" in upgraded.stderr) == (1, True)
    assert command("db", "upgrade").exit_code == 0
    catalog.check_version()
    catalog.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do what is refused here")
def test_root_leaves_nothing_in_the_archive_of_a_service(
    command: Command, stores: Stores, tmp_path: Path
) -> None:
    os.chown(stores.archive.root, 1, -1)
    refused = command("import", write(make_object(), tmp_path / "one.dcm"))
    assert (refused.exit_code, "run this as that user: sudo -u" in refused.stderr) == (1, True)
    assert list(stores.archive.files()) == []
