"""A DuckDB that also keeps rows: what the coordinator merges in.

`DuckEngine` only reads. A `TableEngine` can also take Arrow rows into temporary tables of its own, which count against its memory
limit and go to its temporary directory when they outgrow it. The statements that do this are written here and contain nothing but
quoted names.

DuckDB 1.5.6 pushes the smallest and largest key of a join into an Arrow scan below `ORDER BY .. LIMIT`, where it changes which
rows are the first (with two threads or more, in one of four runs; `tests/canaries`). So that optimizer is off here; tasks read
Parquet, and their SQL has no LIMIT below a join.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from qengine.execution.duck import DuckEngine, EngineSettings, quote_name

_ROWS = "qe_incoming_rows"


class TableEngine(DuckEngine):
    """A `DuckEngine` with temporary tables. Not for use by two threads at once, except `interrupt` and `progress`."""

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(replace(settings, disabled_optimizers=(*settings.disabled_optimizers, "join_filter_pushdown")))
        self._tables: list[str] = []
        self._registered: list[str] = []

    def show(self, name: str, rows: pa.Table) -> None:
        """Make rows that stay in Arrow memory readable as the relation `name`, until `reset`."""
        self.register(name, rows)
        self._registered.append(name)

    def create(self, name: str, schema: pa.Schema) -> None:
        """Create an empty table, until `reset`."""
        self._take(f"CREATE TEMP TABLE {quote_name(name)} AS SELECT * FROM {_ROWS}", schema.empty_table())
        self._tables.append(name)

    def append(self, name: str, rows: pa.Table) -> None:
        """Copy rows into a table."""
        self._take(f"INSERT INTO {quote_name(name)} SELECT * FROM {_ROWS}", rows)

    def reset(self) -> None:
        """Forget all relations; the engine is as new."""
        for name in self._registered:
            self.unregister(name)
        for name in self._tables:
            with self._our_errors(f"drop {name}"):
                self._connection.execute(f"DROP TABLE IF EXISTS {quote_name(name)}")
        self._registered.clear()
        self._tables.clear()

    def _take(self, statement: str, rows: pa.Table) -> None:
        self.register(_ROWS, rows)
        try:
            with self._our_errors(statement):
                self._connection.execute(statement)
        finally:
            self.unregister(_ROWS)
