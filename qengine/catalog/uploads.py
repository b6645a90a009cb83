"""Tables that come with a statement: `TAP_UPLOAD.<name>`, which exist for that statement only.

They are replicated tables whose rows are here already, so that every task that reads one is sent it, and their keys and positions
say which tiles of the other tables matter (`plan.dynamic`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from qengine.catalog.model import NO_PARTS, Catalog, Table, TableKind, TableSnapshot
from qengine.catalog.schema import column_of

NAME = "TAP_UPLOAD"


def with_uploads(catalog: Catalog, uploads: Mapping[str, pa.Table]) -> Catalog:
    """Return the catalogue with the uploaded tables, by their names. Their fields tell unit, UCD, utype, xtype and description."""
    return Catalog((*catalog, *(_snapshot(name, rows) for name, rows in uploads.items()))) if uploads else catalog


def _snapshot(name: str, rows: pa.Table) -> TableSnapshot:
    columns = tuple(column_of(field) for field in rows.schema)
    table = Table(schema=NAME, name=name, kind=TableKind.REPLICATED, line_column="", columns=columns, description="Uploaded")
    plain = rows.replace_schema_metadata(None).cast(pa.schema([pa.field(f.name, f.type) for f in rows.schema]))
    return TableSnapshot(table=table, number=0, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=plain)
