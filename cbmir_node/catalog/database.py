"""Connections to the catalogue: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from cbmir_node.errors import CatalogError, ConfigurationError, MissingPackageError
from cbmir_node.resources import resource

_BUSY_TIMEOUT_S = 60
_VECTOR_LOCK = 0x43424D4952  # "CBMIR": the advisory lock that orders vector commits


class Catalog:
    """The database, opened.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///FILE`` or ``postgresql+psycopg://…``.

    Notes
    -----
    SQLite runs in WAL mode with ``synchronous=FULL``: a committed row survives a power cut.
    Writers begin with ``BEGIN IMMEDIATE``, so that they wait for each other instead of failing
    half-way.
    """

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @property
    def is_sqlite(self) -> bool:
        """Whether the catalogue is an SQLite file."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads: one consistent view."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block."""
        writer = self.engine.connect().execution_options(cbmir_write=True)
        with writer as connection, connection.begin():
            yield connection

    def order_vector_commits(self, connection: Connection) -> None:
        """Make this transaction commit before any later one adds vector rows.

        Row numbers are given when a row is inserted, not when it is committed. Without this an
        index could see row 8, remember it, and miss row 7 that is committed a moment later.
        SQLite has one writer at a time anyway.
        """
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _VECTOR_LOCK})

    def upgrade(self) -> None:
        """Create the schema, or bring it to the version of this program."""
        with self._alembic() as config:
            command.upgrade(config, "head")

    def check_version(self) -> None:
        """Raise `CatalogError` unless the schema is the one of this program."""
        with self._alembic() as config:
            head = ScriptDirectory.from_config(config).get_current_head()
            current = MigrationContext.configure(config.attributes["connection"])
            revision = current.get_current_revision()
        if revision is None:
            raise CatalogError(
                f"{self.engine.url!r} holds no catalogue yet; run 'cbmir-node db upgrade'"
            )
        if revision != head:
            raise CatalogError(
                f"the catalogue has schema {revision}, this program needs {head}; "
                "run 'cbmir-node db upgrade'"
            )

    @contextmanager
    def _alembic(self) -> Iterator[Config]:
        config = Config()
        config.set_main_option("script_location", str(resource("sql")).replace("%", "%%"))
        try:
            with self.write() as connection:
                config.attributes["connection"] = connection
                yield config
        except DBAPIError as error:
            raise CatalogError(
                f"cannot open the catalogue {self.engine.url!r}: {error.orig}; "
                "check the URL (catalog.url) and that the server runs"
            ) from error


def open_catalog(url: str, *, create: bool = False) -> Catalog:
    """Open the catalogue at `url`.

    Parameters
    ----------
    url : str
        SQLAlchemy URL.
    create : bool
        Create or upgrade the schema first.

    Raises
    ------
    CatalogError
        It cannot be opened, does not exist, or has another schema version.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.exists():
            raise CatalogError(
                f"there is no catalogue at {file}; start the node or import objects first, "
                "or name another --data-dir"
            )
    catalog = Catalog(url)
    try:
        if create:
            catalog.upgrade()
        else:
            catalog.check_version()
    except CatalogError:
        catalog.close()
        raise
    return catalog


def _parse(url: str) -> Any:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            f"catalog.url: {url!r} is not an SQLAlchemy URL such as "
            "postgresql+psycopg://user:password@host/database"
        ) from error


def _create_engine(url: str) -> Engine:
    try:
        engine = create_engine(url, **_pool_options(url))
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"catalog.url: {error}; use sqlite or postgresql+psycopg"
        ) from error
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"catalog.url needs the package {error.name}; "
            "install it with: pip install 'cbmir-node[postgresql]'"
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def _pool_options(url: str) -> dict[str, Any]:
    if _parse(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_TIMEOUT_S}}
    return {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 50}


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # this module begins transactions itself
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("cbmir_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
