"""The registry's database: SQLite in the store, or PostgreSQL by URL, and transactions on it.

Writers exclude each other from the beginning of their transaction (SQLite by BEGIN IMMEDIATE, PostgreSQL by an advisory lock),
so what a writer has read stays true until it commits. Readers never wait: SQLite keeps a log (WAL). A file that this user may
not write to is opened for reading only. What goes wrong is raised as `RegistryError`, and a row that somebody else inserted
first as `ConflictError`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from qengine.catalog import migrations
from qengine.catalog.migrations.tables import RIGHTS_CHANGES, SNAPSHOTS
from qengine.errors import ConflictError, RegistryError

_BUSY_S = 30.0
_FILE = "registry.sqlite"
_WRITE = "qengine_write"
_NEWEST = str(sa.select(sa.func.max(SNAPSHOTS.c.id)))
_NEWEST_CHANGE = f"SELECT COALESCE(MAX(id), 0) FROM {RIGHTS_CHANGES.name}"
_LOCK_KEY = 0x71656E67  # any constant: PostgreSQL's advisory lock of all publishers


class Database:
    """A migrated database. Open it with `Database.open`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, root: Path, url: str | None) -> Database:
        """Open the database at `url`, or the one in the folder `root`; make or migrate it where needed.

        Raise `RegistryError` if it cannot be opened or was made by a newer qengine.
        """
        may_write = True
        if url is None:
            root.mkdir(parents=True, exist_ok=True)
            may_write = _may_write(root)
            url = f"sqlite:///{root / _FILE}"
            engine = _engine(url) if may_write else _reading_engine(url, root / _FILE)
        else:
            engine = _engine(url)
        database = cls(engine)
        try:
            with database.reading() as connection:
                # What older versions lack, readers do without.
                is_usable = migrations.is_current(connection) or (not may_write and migrations.is_older(connection))
            if not is_usable:
                with database.writing() as connection:
                    migrations.upgrade(connection)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that only reads."""
        with self._transaction(is_writing=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that excludes other writers, and commit it when the block ends."""
        with self._transaction(is_writing=True) as connection:
            yield connection

    def newest_snapshot(self) -> int | None:
        """Return the id of the newest snapshot, None where the database does not answer (a transaction says why).

        Every query asks for it, so it goes past SQLAlchemy's transactions, which cost ten times as much.
        """
        return self._number(_NEWEST)

    def newest_change(self) -> int | None:
        """Return the number of the newest change of users and rights, 0 if there was none, None if the database does not answer."""
        return self._number(_NEWEST_CHANGE)

    def _number(self, query: str) -> int | None:
        try:
            with closing(self._engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(query)
                row = cursor.fetchone()
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            return None
        return None if row is None or row[0] is None else int(row[0])

    @contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(**{_WRITE: is_writing}) as connection, connection.begin():
                if is_writing and connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
                yield connection
        except IntegrityError as error:
            raise ConflictError(f"another writer was faster: {error.orig}", hint="start again") from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = getattr(error, "orig", None) or error
            place = self._engine.url.render_as_string(hide_password=True)
            hint = "restore a broken file from a copy, or move it away and call `Registry.rebuild`; or check the URL"
            if "readonly" in str(reason):
                hint = "this user may not write to the store; queries only read it"
            elif "full" in str(reason) or "disk I/O" in str(reason):
                hint = "is the disk full? nothing has changed; make room and try again"
            raise RegistryError(f"registry {place} cannot be used: {reason}", hint=hint) from error


def now() -> datetime:
    """Return the time as the database keeps it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def utc(time: datetime) -> datetime:
    """Return a time of the database with its zone."""
    return time.replace(tzinfo=UTC)


def _engine(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, ImportError) as error:
        raise RegistryError(
            f"registry URL cannot be used: {error}", hint="for PostgreSQL: pip install 'qengine[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _may_write(root: Path) -> bool:
    file = root / _FILE
    return os.access(root, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _reading_engine(url: str, file: Path) -> sa.Engine:
    """Return an engine that reads a database where nothing can be written, not even the files that WAL needs beside it."""

    def connect() -> sqlite3.Connection:
        # Somebody who may write has it open if there is a log. Otherwise all is in the database; each transaction opens it anew.
        is_written = file.with_name(f"{file.name}-wal").exists()
        uri = f"{file.as_uri()}?mode=ro" + ("" if is_written else "&immutable=1")
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        connection.isolation_level = None
        return connection

    engine = sa.create_engine(url, creator=connect, poolclass=sa.NullPool)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, see `_begin_sqlite`
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    deadline = time.monotonic() + _BUSY_S
    # Changing the journal mode does not wait for other processes that open the same new file: try again.
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITE) else "BEGIN")
