"""The registry: the SQL database that says which manifests are published.

A snapshot of a catalogue is a set of manifests, one per table. Publishing writes the manifests of the new tables (files named by
number and digest, never changed), then a small record of the whole snapshot beside them, and then, in the same transaction that
holds the lock, the rows that make it visible, what the load has read, and the end of the load. The other tables of the
catalogue are carried over as they are. A writer says what it started from: the number of the snapshot, or the manifests of the
tables that it has changed or read, so that two loads of different tables of one catalogue can both publish. If any of that is
another by then, it gets a `ConflictError` and nothing is published. A crash at any moment leaves files that nothing refers to,
and the old snapshot.

The database is SQLite in the store or PostgreSQL by URL (`catalog.database`). Its schema is versioned (`catalog.migrations`). A
lost database is rebuilt from the records and manifests in the store. A store that this user may not write to can be read.

Reading is cheap: `catalog()` asks one number, the newest snapshot's id, and returns the same `Catalog` as long as it has not grown.
Manifests are read once per process, after a check of their digest. All methods may be called from several threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from qengine.catalog import definition, durable, loads, published
from qengine.catalog.database import Database
from qengine.catalog.demand import DemandStore
from qengine.catalog.facts import read_facts
from qengine.catalog.files import Files, LocalFiles
from qengine.catalog.inputs import InputRecord
from qengine.catalog.jobs import JobStore
from qengine.catalog.loads import Load, LoadState
from qengine.catalog.manifest import read_manifest, write_manifest
from qengine.catalog.migrations.tables import CATALOG_STATES, CATALOGS, EXPIRED, INPUTS, RATES, SNAPSHOT_TABLES, SNAPSHOTS, TAGS
from qengine.catalog.model import Catalog, Table, TableSnapshot, with_layouts
from qengine.catalog.published import SnapshotEntry
from qengine.catalog.query_log import QueryLog, QueryLogSettings, read_queries
from qengine.catalog.rates import Observed, read_rates, record_rates
from qengine.catalog.records import FOLDER as RECORDS
from qengine.catalog.records import ManifestRef, SnapshotRecord, read_records, record_path, write_record
from qengine.catalog.releases import Releases, check_may_change, restore_release
from qengine.catalog.rights import RightsStore, restore_rights
from qengine.catalog.system_tables import Facts, described
from qengine.catalog.tap_schema import tap_schema
from qengine.catalog.users import Users
from qengine.errors import ConflictError, RegistryError, SchemaError, StoreUnavailableError

__all__ = ["Load", "LoadState", "Registry", "SnapshotEntry"]

_KEPT_CATALOGS = 8


class Registry:
    """What is published in one store. Open it with `Registry.open`."""

    def __init__(self, files: Files, database: Database) -> None:
        self._files = files
        self._root = files.root
        self._database = database
        self._rights = RightsStore(files, database)
        self._lock = threading.Lock()
        self._catalogs: dict[tuple[int, tuple[tuple[str, int], ...]], Catalog] = {}
        self._manifests: dict[str, TableSnapshot] = {}

    @classmethod
    def open(cls, store_root: Path, *, url: str | None = None, far: Files | None = None) -> Registry:
        """Open the registry of a store, making or migrating it where needed.

        `url` is SQLAlchemy's for a database elsewhere (`postgresql+psycopg://...`); the default is `<store>/registry.sqlite`.
        `far` are the files of an object store of which `store_root` is the near copy. Raise `RegistryError` if it cannot be opened
        or was made by a newer qengine.
        """
        root = Path(store_root).expanduser().absolute()
        return cls(far or LocalFiles(root), Database.open(root, url))

    def close(self) -> None:
        """Close all connections to the database."""
        self._database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading --------------------------------------------------------------------------------------------------------------

    @property
    def files(self) -> Files:
        """Where the files of the store are for good."""
        return self._files

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep everybody from beginning a load and from publishing until the block ends; reading goes on."""
        with self._database.writing():
            yield

    @property
    def releases(self) -> Releases:
        """Tags, states, expiry, leases and budgets of the catalogues."""
        return Releases(self._files, self._database)

    @property
    def jobs(self) -> JobStore:
        """Asynchronous queries."""
        return JobStore(self._database)

    @property
    def users(self) -> Users:
        """Users of the service, their tokens and groups."""
        return Users(self._database)

    @property
    def rights(self) -> RightsStore:
        """Who may read what."""
        return self._rights

    def demand(self) -> DemandStore:
        """Return one more process of the service, which tells the others of its queries."""
        return DemandStore(self._database)

    def query_log(self, settings: QueryLogSettings | None = None) -> QueryLog:
        """Return what writes the log of queries."""
        return QueryLog(self._database, settings)

    def catalog(self, *, snapshots: Mapping[str, int | str] | None = None) -> Catalog:
        """Return all published tables and TAP_SCHEMA, each catalogue at its latest snapshot or at the one that `snapshots` names by
        number, tag or time (`Releases.resolve`)."""
        asked = {
            name.lower(): word if isinstance(word, int) else self.releases.resolve(name, word)
            for name, word in (snapshots or {}).items()
        }
        chosen_by = tuple(sorted(asked.items()))
        if (newest := self._database.newest_snapshot()) is not None and (
            found := self._catalogs.get((newest, chosen_by))
        ) is not None:
            return found
        with self._database.reading() as connection:
            newest = connection.execute(sa.select(sa.func.max(SNAPSHOTS.c.id))).scalar_one() or 0
            key = (newest, chosen_by)
            if (found := self._catalogs.get(key)) is not None:
                return found
            chosen = published.choose(connection, asked)
        with self._lock:
            if (found := self._catalogs.get(key)) is not None:
                return found
            tables = [self._snapshot(manifest, number) for number, manifests in chosen for manifest in manifests]
            tables = list(with_layouts(tables))
            meta = described(self.facts)
            built = Catalog((*tables, *meta, *tap_schema((*tables, *meta))))
            kept = list(self._catalogs.items())[1 - _KEPT_CATALOGS :]
            self._catalogs = {**dict(kept), key: built}
            in_use = {manifest.digest for _, manifests in chosen for manifest in manifests}
            self._manifests = {digest: read for digest, read in self._manifests.items() if digest in in_use}
        return built

    def snapshot_number(self, catalog: str) -> int:
        """Return the number of the catalogue's latest snapshot, 0 if there is no such catalogue."""
        with self._database.reading() as connection:
            row = published.catalog_row(connection, catalog)
        return row.latest if row else 0

    def snapshots(self, catalog: str) -> tuple[SnapshotEntry, ...]:
        """Return the snapshots of the catalogue, oldest first."""
        with self._database.reading() as connection:
            return published.snapshot_entries(connection, catalog)

    def definitions(self) -> tuple[Table, ...]:
        """Return the latest definitions of all tables, without reading a manifest."""
        with self._database.reading() as connection:
            chosen = published.choose(connection, {})
        found = (definition.from_json(manifest.definition) for _, manifests in chosen for manifest in manifests)
        return tuple(table for table in found if table.match is None or not table.match.layout_of)

    def manifest_digests(self) -> Mapping[str, str]:
        """Return the digest of every table's latest manifest by the table's full name in lower case: what a writer starts from."""
        with self._database.reading() as connection:
            return published.latest_digests(connection)

    def is_latest(self, table: str, snapshot: int) -> bool:
        """Return whether the table (by full name) is now as it was in this snapshot of its catalogue."""
        catalog, _, name = table.partition(".")
        with self._database.reading() as connection:
            row = published.catalog_row(connection, catalog)
            if row is None:
                return False
            if snapshot not in published.numbers(connection, row.name):
                return False
            then, now = (published.manifests_of(connection, row.name, number) for number in (snapshot, row.latest))
        digests = [{one.table.lower(): one.digest for one in manifests}.get(name.lower()) for manifests in (then, now)]
        return digests[0] is not None and digests[0] == digests[1]

    def manifests(self, catalog: str) -> tuple[ManifestRef, ...]:
        """Return the manifests of all snapshots of the catalogue, each once."""
        with self._database.reading() as connection:
            return published.all_manifests(connection, catalog)

    def manifests_at(self, catalog: str, number: int) -> tuple[ManifestRef, ...]:
        """Return the manifests of one snapshot of the catalogue."""
        with self._database.reading() as connection:
            return tuple(published.manifests_of(connection, catalog, number))

    def latest_manifests(self, catalog: str) -> tuple[ManifestRef, ...]:
        """Return the manifests of the latest snapshot of the catalogue."""
        with self._database.reading() as connection:
            row = published.catalog_row(connection, catalog)
            return () if row is None else tuple(published.manifests_of(connection, row.name, row.latest))

    def loads(self) -> tuple[Load, ...]:
        """Return all loads, oldest first; none where a registry of an older version cannot be written to."""
        with self._database.reading() as connection:
            return loads.all_loads(connection) if _knows_inputs(connection) else ()

    def load(self, load: str) -> Load:
        """Return the load of this id (the beginning of it will do). Raise `RegistryError` if there is none."""
        with self._database.reading() as connection:
            return loads.find_load(connection, load)

    def inputs(self, catalog: str, table: str = "") -> tuple[InputRecord, ...]:
        """Return the inputs whose rows are in the latest snapshot of the catalogue (or of one table of it), oldest first."""
        with self._database.reading() as connection:
            return loads.live_inputs(connection, catalog, table) if _knows_inputs(connection) else ()

    def inputs_of_load(self, load: int) -> tuple[InputRecord, ...]:
        """Return what the load of this number has read."""
        with self._database.reading() as connection:
            return loads.inputs_of(connection, load)

    def facts(self, names: Collection[str]) -> Facts:
        """Return what the system tables of these names need, read at one moment."""
        with self._database.reading() as connection:
            return read_facts(connection, self._files, names, self._queries)

    def _queries(self, user: str | None) -> Sequence[Mapping[str, Any]]:
        with self._database.reading() as connection:
            return read_queries(connection, user)

    def rates(self) -> Mapping[str, float]:
        """Return the measured rates by name; empty before anything was measured, or where an old registry cannot be written to."""
        with self._database.reading() as connection:
            return read_rates(connection) if sa.inspect(connection).has_table(RATES.name) else {}

    def record_rates(self, observed: Mapping[str, Observed], defaults: Mapping[str, float]) -> None:
        """Move the measured rates towards what was observed (`catalog.rates`). Raise `RegistryError` where it may only be read."""
        with self._database.writing() as connection:
            record_rates(connection, observed, defaults)

    # -- loads and publishing -------------------------------------------------------------------------------------------------

    def begin_load(self, context: Mapping[str, object], *, catalog: str = "") -> str:
        """Record the start of a load with what it was asked to do, and return its id."""
        return self.open_load(catalog, context).id

    def open_load(self, catalog: str, context: Mapping[str, object], *, name: str = "") -> Load:
        """Record the start of a load, by an id of its own or by `name` (32 hexadecimal digits), and return it.

        Raise `SchemaError` for a name that no catalogue can have.
        """
        if catalog:
            published.check_catalog_name(catalog)
        with self._database.writing() as connection:
            return loads.insert_load(connection, catalog, context, name=name)

    def commit_load(self, load: str) -> Load:
        """Record that a process begins to commit the load (for the first time or again), and return it."""
        with self._database.writing() as connection:
            loads.move(connection, load, LoadState.COMMITTING)
            return loads.find_load(connection, load)

    def note(self, load: str, words: Mapping[str, object]) -> None:
        """Add to the context of a load that has not ended."""
        with self._database.writing() as connection:
            loads.note(connection, load, words)

    def reopen_load(self, load: str, error: str = "") -> None:
        """Record that a commit did not succeed, and why: the load can be committed again or aborted."""
        with self._database.writing() as connection:
            loads.move(connection, load, LoadState.OPEN, error=error)

    def finish_load(self, load: str) -> None:
        """Record that the load is complete."""
        with self._database.writing() as connection:
            loads.move(connection, load, LoadState.FINISHED)

    def abort_load(self, load: str, error: str = "") -> None:
        """Record that the load ended without being complete; snapshots that it published stay."""
        with self._database.writing() as connection:
            loads.move(connection, load, LoadState.ABORTED, error=error)

    def publish(
        self, load: str, catalog: str, tables: Sequence[TableSnapshot], *, expected: int | None = None,
        base: Mapping[str, str] | None = None, families: Sequence[str] = (), inputs: Sequence[InputRecord] = (),
        replaced: Sequence[InputRecord] = (), dropped: Collection[str] = (), is_final: bool = False,
    ) -> int:  # fmt: skip
        """Make `tables` the content of the catalogue's next snapshot and return its number.

        The other tables of the catalogue are carried over, but for those `dropped`. What the writer started from is checked:
        `expected` is the number of the catalogue's snapshot (0: a new catalogue; None: whatever is there), `base` are manifests by
        full name of table, of any catalogue (`manifest_digests`; empty where there was none), and no other table may have joined
        one of `families`. Raise `ConflictError` if one is another by now. `inputs` is what the load has read, `replaced` those
        whose rows are gone; `is_final` ends the load. Numbers in `tables` are ignored.
        """
        published.check_names(catalog, tables)
        written: list[Path] = []
        with self._database.writing() as connection:
            about = loads.check_unfinished(connection, load)
            row = published.catalog_row(connection, catalog)
            if row is not None and row.name != catalog:
                raise SchemaError(f"catalogue {catalog} would differ from {row.name} in case only", hint=f"publish into {row.name}")
            latest = row.latest if row else 0
            if expected is not None and expected != latest:
                raise ConflictError(
                    f"{catalog} is at snapshot {latest}, not {expected}", hint="another load was faster; start again"
                )
            check_may_change(connection, catalog)
            published.check_base(connection, base or {}, families)
            gone = {name.lower() for name in dropped}
            carried = [one for one in published.carried(connection, catalog, latest, tables) if one.table.lower() not in gone]
            try:
                new = [self._write(dataclasses.replace(table, number=latest + 1), written) for table in tables]
                manifests = tuple(sorted([*carried, *new], key=lambda manifest: manifest.table.lower()))
                record = SnapshotRecord(
                    catalog, latest + 1, load, manifests, made_by=about, inputs=tuple(inputs),
                    replaced=tuple((one.load, one.table, one.number) for one in replaced),
                )  # fmt: skip
                written.append(record_path(self._root, catalog, latest + 1))
                write_record(self._files, record)
                self._insert(connection, record, is_new=row is None)
                loads.insert_inputs(connection, inputs)
                loads.replace_inputs(connection, replaced, about.number)
                if is_final:
                    loads.move(connection, load, LoadState.FINISHED, snapshot=latest + 1)
            except BaseException:
                # Only before the commit is it certain that nobody refers to these files.
                for path in written:
                    path.unlink(missing_ok=True)
                    # what cannot be removed is found by the next sweep
                    with contextlib.suppress(StoreUnavailableError):
                        self._files.remove(path)
                raise
        return latest + 1

    def forget_unpublished(self, catalog: str) -> int:
        """Remove manifests and records of the catalogue that no snapshot has, and return how many: writers that died left them."""
        removed = 0
        with self._database.writing() as connection:
            row = published.catalog_row(connection, catalog)
            latest = row.latest if row is not None else 0
            known = {self._root / manifest.uri for manifest in published.all_manifests(connection, catalog)}
            known |= {record_path(self._root, catalog, number) for number in range(1, latest + 1)}
            folder = self._root / catalog
            folders = {folder / RECORDS, *folder.glob("*/manifests"), *(path.parent for path in known)}
            found = {*folder.glob("*/manifests/*"), *folder.glob(f"{RECORDS}/*")}
            found |= {path for each in folders for path, _ in self._files.listed(each)}
            for path in found - known:
                self._files.remove(path)
                removed += 1
        return removed

    def rebuild(self) -> int:
        """Forget all snapshots, restore them from the store's records and manifests, and return how many were found.

        Loads and their inputs that the database knows are kept, and those that only records know are restored. A catalogue whose
        records are lost gets a snapshot per number that its manifests carry.
        """
        found = list(read_records(self._files))
        latest: dict[str, int] = {}
        for record in found:
            latest[record.catalog] = max(record.number, latest.get(record.catalog, 0))
        with self._database.writing() as connection:
            for table in (SNAPSHOT_TABLES, SNAPSHOTS, EXPIRED, TAGS, CATALOG_STATES, CATALOGS):
                connection.execute(sa.delete(table))
            for name, number in latest.items():
                connection.execute(sa.insert(CATALOGS).values(name=name, folded_name=name.lower(), latest=number))
            for record in found:
                published.insert_snapshot(connection, record)
                if record.made_by is not None:
                    loads.restore(connection, record.made_by, record.inputs, record.replaced, record.restored)
            for name in latest:
                restore_release(connection, self._files, name)
                restore_rights(connection, self._files, name)
        return len(found)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _insert(self, connection: sa.Connection, record: SnapshotRecord, *, is_new: bool) -> None:
        name, number = record.catalog, record.number
        if is_new:
            connection.execute(sa.insert(CATALOGS).values(name=name, folded_name=name.lower(), latest=number))
        else:
            connection.execute(sa.update(CATALOGS).where(CATALOGS.c.name == name).values(latest=number))
        published.insert_snapshot(connection, record)

    def _snapshot(self, manifest: ManifestRef, number: int) -> TableSnapshot:
        read = self._manifests.get(manifest.digest)
        if read is None:
            path = self._files.need(self._root / manifest.uri)
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
        self._files.keep([path])
        text = definition.to_json(snapshot.table)
        return ManifestRef(snapshot.table.name, path.relative_to(self._root).as_posix(), digest, text)


def _knows_inputs(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(INPUTS.name)
