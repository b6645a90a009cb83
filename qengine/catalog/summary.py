"""What a person wants to know of each table: listed by the client, the command line and the TAP service as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qengine.catalog.model import HIDDEN_COLUMNS, Catalog, TableSnapshot
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import SqlType


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """A published table: its name, kind, size and visible columns."""

    schema: str
    name: str
    kind: str
    rows: int
    parts: int
    bytes: int
    snapshot: int
    description: str
    columns: tuple[OutputColumn, ...]

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        plain: dict[str, Any] = {key: getattr(self, key) for key in _PLAIN}
        plain["columns"] = [
            {"name": c.name, "type": c.type.name, "xtype": c.type.xtype} | {key: getattr(c, key) for key in _TEXTS}
            for c in self.columns
        ]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TableSummary:
        """Return the summary that `to_json` wrote."""
        columns = tuple(
            OutputColumn(name=c["name"], type=SqlType(c["type"], c["xtype"]), **{key: c[key] for key in _TEXTS})
            for c in plain["columns"]
        )
        return cls(columns=columns, **{key: plain[key] for key in _PLAIN})


_PLAIN = ("schema", "name", "kind", "rows", "parts", "bytes", "snapshot", "description")
_TEXTS = ("unit", "ucd", "utype", "description")


def summarise(catalog: Catalog) -> tuple[TableSummary, ...]:
    """Return a summary of every table, in the catalogue's order."""
    return tuple(_summary(snapshot) for snapshot in catalog)


def _summary(snapshot: TableSnapshot) -> TableSummary:
    table = snapshot.table
    columns = tuple(
        OutputColumn(name=c.name, type=c.type, unit=c.unit, ucd=c.ucd, utype=c.utype, description=c.description)
        for c in table.shown
        if not c.hidden and c.name not in HIDDEN_COLUMNS
    )
    return TableSummary(
        schema=table.schema,
        name=table.name,
        kind="view" if table.view else table.kind.value,
        rows=snapshot.rows,
        parts=len(snapshot.home) + len(snapshot.orphan),
        bytes=int(snapshot.home.bytes.sum() + snapshot.orphan.bytes.sum()),
        snapshot=snapshot.number,
        description=table.description,
        columns=columns,
    )
