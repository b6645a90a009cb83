"""`Result`: the rows of a query in the form that the caller likes.

Rows are fetched when they are asked for. A conversion (`to_arrow` and the others) reads everything and keeps it, so it can be
called again and in other forms; iteration over batches hands rows through without keeping them, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Protocol

import pyarrow as pa

from qengine.catalog.output import OutputColumn, to_arrow_schema
from qengine.coordinator.progress import QueryProgress
from qengine.errors import QueryError

_SHOWN_ROWS = 10


class RowSource(Protocol):
    """Where a result's rows come from."""

    @property
    def columns(self) -> tuple[OutputColumn, ...]: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def statement(self) -> str: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def snapshots(self) -> Mapping[str, int]: ...
    @property
    def is_overflow(self) -> bool: ...
    @property
    def query(self) -> str: ...
    def progress(self) -> QueryProgress:
        """Return how far the query is."""

    def read(self) -> pa.RecordBatch | None:
        """Return the next batch, or None at the end."""

    def read_all(self) -> list[pa.RecordBatch]:
        """Return all batches that are left."""

    def close(self) -> None:
        """End the query if it still runs; may be called twice."""


class Result:
    """The answer to a query. Use it as a context manager, or read it to its end, to free what the query holds."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._schema = to_arrow_schema(source.columns, source.schema)
        self._table: pa.Table | None = None
        self._is_started = False

    @property
    def columns(self) -> tuple[OutputColumn, ...]:
        """Name, type, unit, UCD and description of each column."""
        return self._source.columns

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema; units and descriptions are in the fields' metadata."""
        return self._schema

    @property
    def statement(self) -> str:
        """The text of the query."""
        return self._source.statement

    @property
    def warnings(self) -> tuple[str, ...]:
        """Uses of extensions, renamed columns and the like."""
        return self._source.warnings

    @property
    def snapshots(self) -> Mapping[str, int]:
        """The snapshot of each catalogue that the query read."""
        return self._source.snapshots

    @property
    def is_overflow(self) -> bool:
        """Whether a limit on rows (not TOP) cut the answer. Known when all rows were read."""
        return self._source.is_overflow

    @property
    def query(self) -> str:
        """The id of the query, for `cancel` and `progress` of clients and `qengine cancel`."""
        return self._source.query

    def progress(self) -> QueryProgress:
        """Return how far the query is: phase, fraction, bytes, tasks, rows delivered, and the time left where it can be told."""
        return self._source.progress()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows batch by batch. Raise `QueryError` if they were handed out like this before."""
        if self._table is not None:
            yield from self._table.to_batches()
            return
        self._start()
        try:
            while (batch := self._source.read()) is not None:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
        finally:
            self._source.close()

    def _start(self) -> None:
        if self._is_started:
            raise QueryError("the rows of this result were already read batch by batch", hint="run the query again")
        self._is_started = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches()

    def __len__(self) -> int:
        return int(self.to_arrow().num_rows)

    def to_arrow(self) -> pa.Table:
        """Return all rows as an Arrow table."""
        if self._table is None:
            self._start()
            try:
                found = self._source.read_all()
            finally:
                self._source.close()
            rows = [pa.RecordBatch.from_arrays(batch.columns, schema=self._schema) for batch in found]
            self._table = pa.Table.from_batches(rows, schema=self._schema)
        return self._table

    def to_pandas(self) -> Any:
        """Return all rows as a pandas DataFrame with numpy types; a column of integers with NULLs becomes pandas' Int64."""
        import pandas as pd

        table = self.to_arrow()
        nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.int16(): pd.Int16Dtype()}
        # Floats would take the place of integers with NULLs and round large identifiers.
        wanted = {field.name for field, column in zip(table.schema, table.columns, strict=True) if column.null_count}
        plain = table.select([name for name in table.column_names if not _is_nullable_integer(table, name, wanted)])
        frame = plain.to_pandas()
        for place, name in enumerate(table.column_names):
            if name not in frame.columns:
                column = table.column(name).to_pandas(types_mapper=nullable.get)
                frame.insert(place, name, column)
        return frame

    def to_polars(self) -> Any:
        """Return all rows as a polars DataFrame."""
        import polars as pl

        return pl.from_arrow(self.to_arrow())

    def to_astropy(self) -> Any:
        """Return all rows as an astropy Table with units, descriptions and UCDs; columns with NULLs are masked."""
        from qengine.client.astropy_table import to_table

        return to_table(self.to_arrow(), self.columns, warnings=self.warnings, snapshots=self.snapshots, statement=self.statement)

    def close(self) -> None:
        """End the query if it still runs."""
        self._source.close()

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(f"{column.name} {column.type}" for column in self.columns)
        rows = f"{self._table.num_rows:,} rows" if self._table is not None else "rows not read yet"
        return f"<Result: {rows}; {names}>"

    def _repr_html_(self) -> str:
        table = self.to_arrow()
        heads = "".join(_head(column) for column in self.columns)
        shown = [column.slice(0, _SHOWN_ROWS).to_pylist() for column in table.columns]
        rows = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in zip(*shown, strict=True))
        count = f"{table.num_rows:,} rows" + (", cut by MAXREC" if self.is_overflow else "")
        more = f", {_SHOWN_ROWS} shown" if table.num_rows > _SHOWN_ROWS else ""
        notes = "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings)
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table><p>{count}{more}</p>{notes}"


def _is_nullable_integer(table: pa.Table, name: str, wanted: set[str]) -> bool:
    arrow = table.schema.field(name).type
    return name in wanted and bool(pa.types.is_signed_integer(arrow)) and arrow.bit_width > 8


def _head(column: OutputColumn) -> str:
    unit = f"<br><small>{escape(column.unit)}</small>" if column.unit else ""
    return f'<th title="{escape(column.description)}">{escape(column.name)}{unit}</th>'


def _cell(value: Any) -> str:
    return "<td></td>" if value is None else f"<td>{escape(str(value))}</td>"
