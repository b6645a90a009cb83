"""What the registry's database says for the system tables (`catalog.system_tables`), read on one connection, so at one moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from qengine.catalog.files import Files
from qengine.catalog.loads import all_inputs, all_loads
from qengine.catalog.migrations.tables import CATALOG_STATES, CATALOGS, EXPIRED, INPUTS, QUERIES, SNAPSHOTS, TAGS
from qengine.catalog.quality import read_quality
from qengine.catalog.releases import ReleaseState
from qengine.catalog.system_tables import Facts, ReadQueries


def read_facts(connection: sa.Connection, files: Files, names: Collection[str], queries: ReadQueries) -> Facts:
    """Read what the system tables of these names need; `queries` reads the log, when it is known whose entries are asked for. A
    registry of an older version that cannot be migrated knows less."""
    known = set(sa.inspect(connection).get_table_names())
    has_loads = INPUTS.name in known
    return Facts(
        loads=all_loads(connection) if has_loads and {"loads", "quality"} & set(names) else (),
        inputs=all_inputs(connection) if has_loads and "inputs" in names else (),
        snapshots=_snapshots(connection, known) if "snapshots" in names else (),
        tags=_tags(connection) if "tags" in names and TAGS.name in known else (),
        quality=lambda loads: read_quality(files, loads),
        queries=queries if QUERIES.name in known else lambda user: (),
    )


def _snapshots(connection: sa.Connection, known: Collection[str]) -> list[dict[str, Any]]:
    latest = {row.name: row.latest for row in connection.execute(sa.select(CATALOGS))}
    stated = connection.execute(sa.select(CATALOG_STATES)) if CATALOG_STATES.name in known else ()
    states = {row.catalog: row.state for row in stated}
    gone = {(row.catalog, row.number): row.at for row in connection.execute(sa.select(EXPIRED))} if EXPIRED.name in known else {}
    rows = connection.execute(sa.select(SNAPSHOTS).order_by(SNAPSHOTS.c.catalog, SNAPSHOTS.c.number))
    return [
        {
            "catalog_name": row.catalog, "snapshot_number": row.number, "published": row.published, "load_id": row.load_id,
            "is_latest": int(row.number == latest[row.catalog]), "expired": gone.get((row.catalog, row.number)),
            "catalog_state": states.get(row.catalog, ReleaseState.RELEASED.value),
        }
        for row in rows
    ]  # fmt: skip


def _tags(connection: sa.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(sa.select(TAGS).order_by(TAGS.c.catalog, TAGS.c.number, TAGS.c.name))
    return [
        {
            "catalog_name": row.catalog, "tag_name": row.name, "snapshot_number": row.number, "doi": row.doi, "note": row.note,
            "made": row.made,
        }
        for row in rows
    ]  # fmt: skip
