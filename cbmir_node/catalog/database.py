"""Connections to the catalogue: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cbmir_node.errors import (
    CatalogError,
    ConfigurationError,
    MissingPackageError,
    NoCatalogError,
)
from cbmir_node.resources import resource

_BUSY_TIMEOUT_S = 60


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
        with _translated_errors(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block."""
        with _translated_errors(), self.engine.connect() as connection:
            connection.execution_options(cbmir_write=True)
            with connection.begin():
                yield connection

    def upgrade(self) -> None:
        """Create the schema, or bring it to the version of this program."""
        with self._alembic(self.write) as config:
            command.upgrade(config, "head")

    def check_version(self) -> None:
        """Raise `CatalogError` unless the schema is the one of this program."""
        with self._alembic(self.read) as config:
            head = ScriptDirectory.from_config(config).get_current_head()
            current = MigrationContext.configure(config.attributes["connection"])
            revision = current.get_current_revision()
        if revision is None:
            raise NoCatalogError(
                f"{self.engine.url!r} holds no catalogue yet; run 'cbmir-node db upgrade'"
            )
        if revision != head:
            raise CatalogError(
                f"the catalogue has schema {revision}, this program needs {head}; "
                "stop the node, then run 'cbmir-node db upgrade'"
            )

    @contextmanager
    def _alembic(
        self, transaction: Callable[[], AbstractContextManager[Connection]]
    ) -> Iterator[Config]:
        config = Config()
        config.set_main_option("script_location", str(resource("sql")).replace("%", "%%"))
        with transaction() as connection:
            config.attributes["connection"] = connection
            yield config


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Let no error of the database library leave this package."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise CatalogError(
            f"the catalogue does not answer: {str(cause).strip()}; "
            "check catalog.url, and that the database runs and has room"
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
    NoCatalogError
        It does not exist.
    CatalogError
        It cannot be opened, or has another schema version.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.exists():
            raise NoCatalogError(
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


def without_password(url: str) -> str:
    """Return a catalogue's URL fit to be shown.

    Raises
    ------
    ConfigurationError
        It is no URL; the message does not repeat it.
    """
    return str(_parse(url).render_as_string(hide_password=True))


def _parse(url: str) -> Any:
    try:
        return make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "catalog.url: not an SQLAlchemy URL such as "
            "postgresql+psycopg://user:password@host/database"
        ) from None  # the library's message repeats the password


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
        # a thread has one at most, and others limit the threads: dicom.max_associations for one
        connect = {"timeout": _BUSY_TIMEOUT_S}
        return {"connect_args": connect, "poolclass": QueuePool, "max_overflow": -1}
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
