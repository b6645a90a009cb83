"""The registry: the SQL database that says which manifests are published.

A snapshot of a catalogue is a set of manifests, one per table. Publishing writes the manifests of the new tables (files named by
number and digest, never changed), then a small record of the whole snapshot beside them, and then, in the same transaction that
holds the lock, the rows that make it visible. The other tables of the catalogue are carried over as they are. A writer says which
snapshot it started from; if there is a newer one by then, it gets a `ConflictError` and nothing is published. A crash at any
moment leaves files that nothing refers to, and the old snapshot.

The database is SQLite in the store (WAL: readers never wait for a writer) or PostgreSQL by URL. Its schema is versioned
(`catalog.migrations`). A lost database is rebuilt from the records and manifests in the store. A store that this user may not write
to can be read.

Reading is cheap: `catalog()` asks one number, the newest snapshot's id, and returns the same `Catalog` as long as it has not grown.
Manifests are read once per process, after a check of their digest. All methods may be called from several threads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from qengine.catalog import definition, durable, migrations
from qengine.catalog.manifest import read_manifest, write_manifest
from qengine.catalog.migrations.tables import CATALOGS, LOADS, RATES, SNAPSHOT_TABLES, SNAPSHOTS
from qengine.catalog.model import LAYOUT, Catalog, Table, TableSnapshot, with_layouts
from qengine.catalog.rates import Observed, read_rates, record_rates
from qengine.catalog.records import ManifestRef, SnapshotRecord, read_records, record_path, write_record
from qengine.catalog.tap_schema import tap_schema
from qengine.errors import ConflictError, RegistryError, SchemaError

_BUSY_S = 30.0
_KEPT_CATALOGS = 8
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("tap_schema", "tap_upload")
_WRITE = "qengine_write"
_NEWEST = str(sa.select(sa.func.max(SNAPSHOTS.c.id)))
_LOCK_KEY = 0x71656E67  # any constant: PostgreSQL's advisory lock of all publishers


class LoadState(Enum):
    """The life of a load."""

    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who changed a catalogue, from what and when (times in UTC). `error` says why a load was aborted."""

    id: str
    state: LoadState
    context: Mapping[str, Any]
    started: datetime
    finished: datetime | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEntry:
    """One published snapshot: when (UTC) and by which load."""

    catalog: str
    number: int
    load: str
    published: datetime


class Registry:
    """What is published in one store. Open it with `Registry.open`."""

    def __init__(self, store_root: Path, engine: sa.Engine) -> None:
        self._root = store_root
        self._engine = engine
        self._lock = threading.Lock()
        self._catalogs: dict[tuple[int, tuple[tuple[str, int], ...]], Catalog] = {}
        self._manifests: dict[str, TableSnapshot] = {}

    @classmethod
    def open(cls, store_root: Path, *, url: str | None = None) -> Registry:
        """Open the registry of a store, making or migrating it where needed.

        `url` is SQLAlchemy's for a database elsewhere (`postgresql+psycopg://...`); the default is `<store>/registry.sqlite`. Raise
        `RegistryError` if it cannot be opened or was made by a newer qengine.
        """
        root = Path(store_root).expanduser().absolute()
        may_write = True
        if url is None:
            root.mkdir(parents=True, exist_ok=True)
            may_write = _may_write(root)
            url = f"sqlite:///{root / 'registry.sqlite'}"
            engine = _engine(url) if may_write else _reading_engine(url, root / "registry.sqlite")
        else:
            engine = _engine(url)
        registry = cls(root, engine)
        try:
            with registry._transaction(is_writing=False) as connection:
                # What older versions lack, readers do without.
                is_usable = migrations.is_current(connection) or (not may_write and migrations.is_older(connection))
            if not is_usable:
                with registry._transaction() as connection:
                    migrations.upgrade(connection)
        except BaseException:
            registry.close()
            raise
        return registry

    def close(self) -> None:
        """Close all connections to the database."""
        self._engine.dispose()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading --------------------------------------------------------------------------------------------------------------

    def catalog(self, *, snapshots: Mapping[str, int] | None = None) -> Catalog:
        """Return all published tables and TAP_SCHEMA, each catalogue at its latest snapshot or at the number in `snapshots`."""
        asked = {name.lower(): number for name, number in (snapshots or {}).items()}
        chosen_by = tuple(sorted(asked.items()))
        if (newest := self._newest()) is not None and (found := self._catalogs.get((newest, chosen_by))) is not None:
            return found
        with self._transaction(is_writing=False) as connection:
            newest = connection.execute(sa.select(sa.func.max(SNAPSHOTS.c.id))).scalar_one() or 0
            key = (newest, chosen_by)
            if (found := self._catalogs.get(key)) is not None:
                return found
            chosen = self._choose(connection, asked)
        with self._lock:
            if (found := self._catalogs.get(key)) is not None:
                return found
            tables = [self._snapshot(manifest, number) for number, manifests in chosen for manifest in manifests]
            tables = list(with_layouts(tables))
            built = Catalog((*tables, *tap_schema(tables)))
            kept = list(self._catalogs.items())[1 - _KEPT_CATALOGS :]
            self._catalogs = {**dict(kept), key: built}
            in_use = {manifest.digest for _, manifests in chosen for manifest in manifests}
            self._manifests = {digest: read for digest, read in self._manifests.items() if digest in in_use}
        return built

    def snapshot_number(self, catalog: str) -> int:
        """Return the number of the catalogue's latest snapshot, 0 if there is no such catalogue."""
        with self._transaction(is_writing=False) as connection:
            row = _catalog_row(connection, catalog)
        return row.latest if row else 0

    def snapshots(self, catalog: str) -> tuple[SnapshotEntry, ...]:
        """Return the snapshots of the catalogue, oldest first."""
        query = sa.select(SNAPSHOTS).where(sa.func.lower(SNAPSHOTS.c.catalog) == catalog.lower()).order_by(SNAPSHOTS.c.number)
        with self._transaction(is_writing=False) as connection:
            rows = connection.execute(query).all()
        return tuple(
            SnapshotEntry(catalog=row.catalog, number=row.number, load=row.load_id, published=_utc(row.published)) for row in rows
        )

    def definitions(self) -> tuple[Table, ...]:
        """Return the latest definitions of all tables, without reading a manifest."""
        with self._transaction(is_writing=False) as connection:
            chosen = self._choose(connection, {})
        found = (definition.from_json(manifest.definition) for _, manifests in chosen for manifest in manifests)
        return tuple(table for table in found if table.match is None or not table.match.layout_of)

    def loads(self) -> tuple[Load, ...]:
        """Return all loads, oldest first."""
        with self._transaction(is_writing=False) as connection:
            rows = connection.execute(sa.select(LOADS).order_by(LOADS.c.started, LOADS.c.id)).all()
        return tuple(
            Load(
                id=row.id, state=LoadState(row.state), context=json.loads(row.context), started=_utc(row.started),
                finished=_utc(row.finished) if row.finished else None, error=row.error,
            )
            for row in rows
        )  # fmt: skip

    def rates(self) -> Mapping[str, float]:
        """Return the measured rates by name; empty before anything was measured, or where an old registry cannot be written to."""
        with self._transaction(is_writing=False) as connection:
            return read_rates(connection) if sa.inspect(connection).has_table(RATES.name) else {}

    def record_rates(self, observed: Mapping[str, Observed], defaults: Mapping[str, float]) -> None:
        """Move the measured rates towards what was observed (`catalog.rates`). Raise `RegistryError` where it may only be read."""
        with self._transaction() as connection:
            record_rates(connection, observed, defaults)

    # -- loads and publishing -------------------------------------------------------------------------------------------------

    def begin_load(self, context: Mapping[str, Any]) -> str:
        """Record the start of a load with what it was asked to do, and return its id."""
        load = uuid.uuid4().hex
        words = json.dumps(dict(context), default=str, ensure_ascii=False)
        values = {"id": load, "state": LoadState.RUNNING.value, "context": words, "started": _now(), "error": ""}
        with self._transaction() as connection:
            connection.execute(sa.insert(LOADS).values(values))
        return load

    def finish_load(self, load: str) -> None:
        """Record that the load is complete."""
        self._end_load(load, LoadState.FINISHED, "")

    def abort_load(self, load: str, error: str = "") -> None:
        """Record that the load ended without being complete; snapshots that it published stay."""
        self._end_load(load, LoadState.ABORTED, error)

    def publish(self, load: str, catalog: str, tables: Sequence[TableSnapshot], *, expected: int | None) -> int:
        """Make `tables` the content of the catalogue's next snapshot and return its number.

        The other tables of the catalogue are carried over. `expected` is the snapshot number that the writer started from (0: a
        new catalogue; None: whatever is there). Raise `ConflictError` if another one is the latest by now. Numbers in `tables` are
        ignored.
        """
        _check_names(catalog, tables)
        written: list[Path] = []
        with self._transaction() as connection:
            _check_running(connection, load)
            row = _catalog_row(connection, catalog)
            if row is not None and row.name != catalog:
                raise SchemaError(f"catalogue {catalog} would differ from {row.name} in case only", hint=f"publish into {row.name}")
            latest = row.latest if row else 0
            if expected is not None and expected != latest:
                raise ConflictError(
                    f"{catalog} is at snapshot {latest}, not {expected}", hint="another load was faster; start again"
                )
            carried = _carried(connection, catalog, latest, tables)
            try:
                new = [self._write(dataclasses.replace(table, number=latest + 1), written) for table in tables]
                manifests = tuple(sorted([*carried, *new], key=lambda manifest: manifest.table.lower()))
                record = SnapshotRecord(catalog, latest + 1, load, manifests)
                written.append(record_path(self._root, catalog, latest + 1))
                write_record(self._root, record)
                if row is None:
                    folded = catalog.lower()
                    connection.execute(sa.insert(CATALOGS).values(name=catalog, folded_name=folded, latest=latest + 1))
                else:
                    connection.execute(sa.update(CATALOGS).where(CATALOGS.c.name == catalog).values(latest=latest + 1))
                _insert_snapshot(connection, record)
            except BaseException:
                # Only before the commit is it certain that nobody refers to these files.
                for path in written:
                    path.unlink(missing_ok=True)
                raise
        return latest + 1

    def rebuild(self) -> int:
        """Forget all snapshots, restore them from the store's records and manifests, and return how many were found.

        Loads are kept. A catalogue whose records are lost gets a snapshot per number that its manifests carry.
        """
        found = list(read_records(self._root))
        latest: dict[str, int] = {}
        for record in found:
            latest[record.catalog] = max(record.number, latest.get(record.catalog, 0))
        with self._transaction() as connection:
            for table in (SNAPSHOT_TABLES, SNAPSHOTS, CATALOGS):
                connection.execute(sa.delete(table))
            for name, number in latest.items():
                connection.execute(sa.insert(CATALOGS).values(name=name, folded_name=name.lower(), latest=number))
            for record in found:
                _insert_snapshot(connection, record)
        return len(found)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _newest(self) -> int | None:
        """Return the id of the newest snapshot, None where the database does not answer (a transaction says why).

        Every query asks for it, so it goes past SQLAlchemy's transactions, which cost ten times as much.
        """
        try:
            with closing(self._engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(_NEWEST)
                row = cursor.fetchone()
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            return None
        return None if row is None or row[0] is None else int(row[0])

    @contextmanager
    def _transaction(self, *, is_writing: bool = True) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that ends with the block; writers exclude each other from its beginning."""
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
            raise RegistryError(f"registry {place} cannot be used: {reason}", hint=hint) from error

    def _choose(self, connection: sa.Connection, asked: Mapping[str, int]) -> list[tuple[int, list[ManifestRef]]]:
        """Return number and manifests of the snapshot of every catalogue that is asked for or latest."""
        chosen = []
        for row in connection.execute(sa.select(CATALOGS).order_by(CATALOGS.c.name)).all():
            number = asked.get(row.folded_name, row.latest)
            chosen.append((number, _manifests(connection, row.name, number)))
        unknown = asked.keys() - {row.folded_name for row in connection.execute(sa.select(CATALOGS.c.folded_name))}
        if unknown:
            raise RegistryError(f"there is no catalogue {sorted(unknown)[0]}")
        return chosen

    def _snapshot(self, manifest: ManifestRef, number: int) -> TableSnapshot:
        read = self._manifests.get(manifest.digest)
        if read is None:
            path = self._root / manifest.uri
            if not path.is_file():
                raise RegistryError(f"manifest {path} is missing", hint="restore it from a copy of the store")
            if durable.sha256(path) != manifest.digest:
                raise RegistryError(f"manifest {path} is not what was published", hint="restore it from a copy of the store")
            read = self._manifests[manifest.digest] = read_manifest(path, definition.from_json(manifest.definition))
        return dataclasses.replace(read, number=number)

    def _write(self, snapshot: TableSnapshot, written: list[Path]) -> ManifestRef:
        folder = self._root / snapshot.table.schema / snapshot.table.name / "manifests"
        draft = folder / f".{snapshot.number}.{uuid.uuid4().hex}.tmp"
        written.append(draft)
        write_manifest(snapshot, draft)
        digest = durable.sha256(draft)
        path = folder / f"{snapshot.number:06d}-{digest[:16]}.parquet"
        written.append(path)
        durable.place(draft, path)
        text = definition.to_json(snapshot.table)
        return ManifestRef(snapshot.table.name, path.relative_to(self._root).as_posix(), digest, text)

    def _end_load(self, load: str, state: LoadState, error: str) -> None:
        with self._transaction() as connection:
            _check_running(connection, load)
            values = {"state": state.value, "finished": _now(), "error": error}
            connection.execute(sa.update(LOADS).where(LOADS.c.id == load).values(values))


def _engine(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, ImportError) as error:
        raise RegistryError(f"registry URL cannot be used: {error}", hint="for PostgreSQL: pip install psycopg") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _may_write(root: Path) -> bool:
    file = root / "registry.sqlite"
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


def _catalog_row(connection: sa.Connection, catalog: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(CATALOGS).where(CATALOGS.c.folded_name == catalog.lower())).one_or_none()


def _manifests(connection: sa.Connection, catalog: str, number: int) -> list[ManifestRef]:
    snapshot = connection.execute(
        sa.select(SNAPSHOTS.c.id).where(SNAPSHOTS.c.catalog == catalog, SNAPSHOTS.c.number == number)
    ).scalar_one_or_none()
    if snapshot is None:
        raise RegistryError(f"catalogue {catalog} has no snapshot {number}")
    query = sa.select(SNAPSHOT_TABLES).where(SNAPSHOT_TABLES.c.snapshot_id == snapshot)
    found = [ManifestRef(row.name, row.manifest_uri, row.manifest_digest, row.definition) for row in connection.execute(query)]
    return sorted(found, key=lambda manifest: manifest.table.lower())


def _carried(connection: sa.Connection, catalog: str, latest: int, new: Sequence[TableSnapshot]) -> list[ManifestRef]:
    """Return the manifests of the tables that stay as they are."""
    before = _manifests(connection, catalog, latest) if latest else []
    names = {table.table.name.lower(): table.table.name for table in new}
    for manifest in before:
        if names.get(manifest.table.lower(), manifest.table) != manifest.table:
            raise SchemaError(f"table {names[manifest.table.lower()]} would differ from {catalog}.{manifest.table} in case only")
    return [manifest for manifest in before if manifest.table.lower() not in names]


def _insert_snapshot(connection: sa.Connection, record: SnapshotRecord) -> None:
    values = {"catalog": record.catalog, "number": record.number, "load_id": record.load, "published": _now()}
    inserted = connection.execute(sa.insert(SNAPSHOTS).values(values)).inserted_primary_key
    assert inserted is not None
    rows = [
        {
            "snapshot_id": inserted[0],
            "name": m.table,
            "manifest_uri": m.uri,
            "manifest_digest": m.digest,
            "definition": m.definition,
        }
        for m in record.manifests
    ]
    if rows:
        connection.execute(sa.insert(SNAPSHOT_TABLES), rows)


def _check_running(connection: sa.Connection, load: str) -> None:
    state = connection.execute(sa.select(LOADS.c.state).where(LOADS.c.id == load)).scalar_one_or_none()
    if state != LoadState.RUNNING.value:
        raise RegistryError(f"load {load} is {state or 'unknown'}", hint="begin a load first")


def _check_names(catalog: str, tables: Sequence[TableSnapshot]) -> None:
    """Names become folders and identifiers: letters, digits and underscores only, and unique without regard to case."""
    for name in (catalog, *(snapshot.table.name.removesuffix(LAYOUT) for snapshot in tables)):
        if not _NAME.fullmatch(name):
            raise SchemaError(
                f"{name!r} cannot be the name of a catalogue or table", hint="use letters, digits and _, first a letter"
            )
    if catalog.lower() in _RESERVED:
        raise SchemaError(f"{catalog} is a reserved name", hint="choose another name for the catalogue")
    folded = [snapshot.table.name.lower() for snapshot in tables]
    if len(set(folded)) < len(folded):
        raise SchemaError(f"a table is given twice: {', '.join(sorted(folded))}")
    for snapshot in tables:
        if snapshot.table.schema != catalog:
            raise SchemaError(f"table {snapshot.table.full_name} does not belong to catalogue {catalog}")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC)
