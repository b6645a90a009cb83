"""Snapshots in the registry's database: which manifests form which snapshot of which catalogue.

Functions on a connection; the caller's transaction decides what is seen and whether writers are excluded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from qengine.catalog import definition
from qengine.catalog.database import now, utc
from qengine.catalog.migrations.tables import CATALOGS, EXPIRED, SNAPSHOT_TABLES, SNAPSHOTS
from qengine.catalog.model import LAYOUT, TableSnapshot
from qengine.catalog.records import ManifestRef, SnapshotRecord
from qengine.errors import ConflictError, SchemaError, SnapshotExpiredError, UnknownSnapshotError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LARGEST = 2**31 - 1
"""Number of a snapshot that databases can be asked for."""
_RESERVED = ("tap_schema", "tap_upload", "qengine_meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEntry:
    """One published snapshot: when (UTC) and by which load."""

    catalog: str
    number: int
    load: str
    published: datetime


def catalog_row(connection: sa.Connection, catalog: str) -> sa.Row[Any] | None:
    """Return the row of a catalogue, whatever the case of the name."""
    return connection.execute(sa.select(CATALOGS).where(CATALOGS.c.folded_name == catalog.lower())).one_or_none()


def snapshot_entries(connection: sa.Connection, catalog: str) -> tuple[SnapshotEntry, ...]:
    """Return the snapshots of the catalogue, oldest first."""
    query = sa.select(SNAPSHOTS).where(sa.func.lower(SNAPSHOTS.c.catalog) == catalog.lower()).order_by(SNAPSHOTS.c.number)
    return tuple(
        SnapshotEntry(catalog=row.catalog, number=row.number, load=row.load_id, published=utc(row.published))
        for row in connection.execute(query)
    )


def numbers(connection: sa.Connection, catalog: str) -> set[int]:
    """Return the numbers of the catalogue's snapshots."""
    return set(connection.execute(sa.select(SNAPSHOTS.c.number).where(SNAPSHOTS.c.catalog == catalog)).scalars())


def choose(connection: sa.Connection, asked: Mapping[str, int]) -> list[tuple[int, list[ManifestRef]]]:
    """Return number and manifests of the snapshot of every catalogue that is asked for (by folded name) or latest."""
    rows = connection.execute(sa.select(CATALOGS).order_by(CATALOGS.c.name)).all()
    if unknown := asked.keys() - {row.folded_name for row in rows}:
        raise UnknownSnapshotError(f"there is no catalogue {sorted(unknown)[0]}")
    chosen = []
    for row in rows:
        number = asked.get(row.folded_name, row.latest)
        # the latest never expires
        chosen.append((number, manifests_of(connection, row.name, number, is_any=number == row.latest)))
    return chosen


def check_kept(connection: sa.Connection, catalog: str, number: int) -> None:
    """Raise `UnknownSnapshotError` if there is no such snapshot, `SnapshotExpiredError` if it cannot be read any more."""
    query = sa.select(SNAPSHOTS.c.id).where(SNAPSHOTS.c.catalog == catalog, SNAPSHOTS.c.number == number)
    if not 0 < number <= _LARGEST or connection.execute(query).scalar_one_or_none() is None:
        raise UnknownSnapshotError(f"catalogue {catalog} has no snapshot {number}")
    if sa.inspect(connection).has_table(EXPIRED.name):
        gone = sa.select(EXPIRED.c.at).where(EXPIRED.c.catalog == catalog, EXPIRED.c.number == number)
        if (at := connection.execute(gone).scalar_one_or_none()) is not None:
            raise SnapshotExpiredError(
                f"snapshot {number} of {catalog} expired on {at:%Y-%m-%d}", hint="ask for the latest one, or for a tag"
            )


def manifests_of(connection: sa.Connection, catalog: str, number: int, *, is_any: bool = False) -> list[ManifestRef]:
    """Return the manifests of a snapshot by name of table; of one that has expired only if `is_any`."""
    if not is_any:
        check_kept(connection, catalog, number)
    snapshot = connection.execute(
        sa.select(SNAPSHOTS.c.id).where(SNAPSHOTS.c.catalog == catalog, SNAPSHOTS.c.number == number)
    ).scalar_one_or_none()
    if snapshot is None:
        raise UnknownSnapshotError(f"catalogue {catalog} has no snapshot {number}")
    query = sa.select(SNAPSHOT_TABLES).where(SNAPSHOT_TABLES.c.snapshot_id == snapshot)
    found = [ManifestRef(row.name, row.manifest_uri, row.manifest_digest, row.definition) for row in connection.execute(query)]
    return sorted(found, key=lambda manifest: manifest.table.lower())


def latest_digests(connection: sa.Connection) -> dict[str, str]:
    """Return the digest of every table's latest manifest by the table's full name in lower case."""
    query = (
        sa.select(CATALOGS.c.name, SNAPSHOT_TABLES.c.name.label("table_name"), SNAPSHOT_TABLES.c.manifest_digest)
        .join(SNAPSHOTS, sa.and_(SNAPSHOTS.c.catalog == CATALOGS.c.name, SNAPSHOTS.c.number == CATALOGS.c.latest))
        .join(SNAPSHOT_TABLES, SNAPSHOT_TABLES.c.snapshot_id == SNAPSHOTS.c.id)
    )
    return {f"{row.name}.{row.table_name}".lower(): row.manifest_digest for row in connection.execute(query)}


def all_manifests(connection: sa.Connection, catalog: str) -> tuple[ManifestRef, ...]:
    """Return the manifests of all snapshots of the catalogue, each once."""
    query = (
        sa.select(SNAPSHOT_TABLES)
        .join(SNAPSHOTS, SNAPSHOT_TABLES.c.snapshot_id == SNAPSHOTS.c.id)
        .where(sa.func.lower(SNAPSHOTS.c.catalog) == catalog.lower())
    )
    found = {
        row.manifest_uri: ManifestRef(row.name, row.manifest_uri, row.manifest_digest, row.definition)
        for row in connection.execute(query)
    }
    return tuple(found.values())


def check_base(connection: sa.Connection, base: Mapping[str, str], families: Sequence[str] = ()) -> None:
    """Raise `ConflictError` unless the tables in `base` (full name -> digest, empty for none) are as they were, and no other table
    lies where the rows of one of the `families` lie."""
    latest = latest_digests(connection) if base else {}
    for name, digest in sorted(base.items()):
        found = latest.get(name.lower(), "")
        if found != digest:
            what = "has been changed" if found and digest else "is there by now" if found else "is gone"
            raise ConflictError(
                f"{name} {what} since this load began",
                hint="another load was faster; start again, or commit again on the new state",
            )
    wanted = {name.lower() for name in base}
    for _, manifests in choose(connection, {}) if families else ():
        for manifest in manifests:
            table = definition.from_json(manifest.definition)
            # (match tables of other catalogues know by which places they were made: `catalog.pairs`)
            near = {family for family in families if family.partition(".")[0].lower() == table.schema.lower()}
            joined = {table.family, *([table.match.family] if table.match is not None else [])} & near
            if joined and table.full_name.removesuffix(LAYOUT).lower() not in wanted:
                raise ConflictError(f"{table.full_name} has joined {joined.pop()} since this load began", hint="commit again")


def carried(connection: sa.Connection, catalog: str, latest: int, new: Sequence[TableSnapshot]) -> list[ManifestRef]:
    """Return the manifests of the tables that stay as they are."""
    before = manifests_of(connection, catalog, latest) if latest else []
    names = {table.table.name.lower(): table.table.name for table in new}
    for manifest in before:
        if names.get(manifest.table.lower(), manifest.table) != manifest.table:
            raise SchemaError(f"table {names[manifest.table.lower()]} would differ from {catalog}.{manifest.table} in case only")
    return [manifest for manifest in before if manifest.table.lower() not in names]


def insert_snapshot(connection: sa.Connection, record: SnapshotRecord) -> None:
    """Add a snapshot and its manifests."""
    values = {"catalog": record.catalog, "number": record.number, "load_id": record.load, "published": now()}
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
    if record.expired:
        at = datetime.fromisoformat(record.expired).replace(tzinfo=None)
        connection.execute(sa.insert(EXPIRED).values(catalog=record.catalog, number=record.number, at=at))


def check_catalog_name(catalog: str) -> None:
    """Raise `SchemaError` unless the name can be that of a catalogue: it becomes a folder and an identifier."""
    _check_name(catalog)
    if catalog.lower() in _RESERVED:
        raise SchemaError(f"{catalog} is a reserved name", hint="choose another name for the catalogue")


def check_names(catalog: str, tables: Sequence[TableSnapshot]) -> None:
    """Raise `SchemaError` unless all names are letters, digits and underscores only, and unique without regard to case."""
    check_catalog_name(catalog)
    for snapshot in tables:
        _check_name(snapshot.table.name.removesuffix(LAYOUT))
    folded = [snapshot.table.name.lower() for snapshot in tables]
    if len(set(folded)) < len(folded):
        raise SchemaError(f"a table is given twice: {', '.join(sorted(folded))}")
    for snapshot in tables:
        if snapshot.table.schema != catalog:
            raise SchemaError(f"table {snapshot.table.full_name} does not belong to catalogue {catalog}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SchemaError(f"{name!r} cannot be the name of a catalogue or table", hint="use letters, digits and _, first a letter")
