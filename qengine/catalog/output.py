"""One column of a result: what binding decides about it, and what formats and clients show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from qengine.catalog.types import SqlType, from_arrow, to_arrow


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """Name, type and metadata of a result column; empty strings mean that nothing is known. `system` says in which frame a
    position or by which clock a time is (`catalog.systems`), `origin` (schema, table, column) of which stored column its values
    are, empty if of none."""

    name: str
    type: SqlType
    unit: str = ""
    ucd: str = ""
    utype: str = ""
    description: str = ""
    system: str = ""
    origin: tuple[str, ...] = dataclasses.field(default=(), compare=False)


_FIELD_KEYS = ("unit", "ucd", "utype", "description", "system")

STATUS_KEY = b"qengine.status"
"""Key of the JSON that ends an Arrow stream: `{"is_overflow": bool, "error": {...} | null}` as metadata of an empty batch."""

HEADER_KEY = b"qengine.header"
"""Key of the JSON in the schema of an Arrow stream: `{"statement": str, "warnings": [str], "snapshots": {str: int}}`."""


def to_arrow_schema(columns: Sequence[OutputColumn], schema: pa.Schema | None = None) -> pa.Schema:
    """Return an Arrow schema whose fields carry type, unit, UCD, utype and description of `columns` as metadata.

    `schema` gives the Arrow types in which the rows come; without it they follow from the columns' types.
    """
    types = [to_arrow(column.type) for column in columns] if schema is None else schema.types
    fields = []
    for column, arrow in zip(columns, types, strict=True):
        pairs = {key: getattr(column, key) for key in _FIELD_KEYS if getattr(column, key)}
        pairs |= {"sql_type": column.type.name} | ({"xtype": column.type.xtype} if column.type.xtype else {})
        fields.append(pa.field(column.name, arrow, metadata=pairs))
    return pa.schema(fields)


def from_arrow_schema(schema: pa.Schema) -> tuple[OutputColumn, ...]:
    """Return the columns that a schema describes; the inverse of `to_arrow_schema`, also for files of other origin."""
    columns = []
    for field in schema:
        pairs = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        if name := pairs.get("sql_type"):
            sql_type = SqlType(name, pairs.get("xtype", ""))
        else:
            sql_type = from_arrow(field.type)
        columns.append(OutputColumn(name=field.name, type=sql_type, **{key: pairs.get(key, "") for key in _FIELD_KEYS}))
    return tuple(columns)
