"""Rows that are stored already, on their way to another place: read from parts, or from what was taken out of them.

They have the hidden columns that they had, so that each still says which load and input brought it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import HIDDEN_COLUMNS, Int64Array, Parts
from qengine.errors import IntegrityError
from qengine.sky.cells import RangeSet
from qengine.storage.objects import Store

LOAD, INPUT = "_load", "_input"
_BATCH_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of a table: whole `parts` of the store, and `files` of Arrow batches in between.

    `schema` is what the table has now; older parts that lack a column give NULL. Rows of the inputs `gone` (`input_codes`) are left
    out. Unless `is_placed`, rows find their places anew.
    """

    name: str
    schema: pa.Schema
    store: Store
    parts: Parts
    files: tuple[Path, ...] = ()
    gone: pa.Array | None = None
    is_placed: bool = True

    @property
    def rows(self) -> int:
        """Return how many rows of parts there are; those in files are not counted."""
        return int(self.parts.rows.sum())

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows with `columns` and, behind them, the hidden ones."""
        names = list(dict.fromkeys([*columns, *(name for name in HIDDEN_COLUMNS if name in self.schema.names)]))
        schema = pa.schema([self.schema.field(name) for name in names])
        for uri in self.parts.uri.to_pylist():
            with pq.ParquetFile(self.store.path(uri)) as file:
                present = [name for name in names if name in file.schema_arrow.names]
                for batch in file.iter_batches(_BATCH_ROWS, columns=present):
                    rows = conformed(pa.Table.from_batches([batch]), schema)
                    if self.gone is not None and len(self.gone):
                        rows = rows.filter(pc.invert(pc.is_in(input_codes(rows), self.gone)))
                    yield from rows.combine_chunks().to_batches()
        for path in self.files:
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    yield from conformed(pa.Table.from_batches([batch]), schema).to_batches()


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return stored rows as the table has them now: columns that they lack are NULL, narrower types become wider."""
    arrays = [
        rows.column(field.name).cast(field.type) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def read_part(store: Store, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of a part, with those of `columns` that it has (None: all). Raise `IntegrityError` if it cannot be read."""
    try:
        with pq.ParquetFile(store.path(uri)) as file:
            chosen = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(chosen).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(f"part {uri} cannot be read: {error}", hint="restore the file from a replica") from error


def read_ranges(parts: Parts, ranges: RangeSet, line: str, store: Store, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of the parts whose cells lie in the ranges, a part at a time, in the order of their cells."""
    for i in np.flatnonzero(ranges.overlaps(parts.lowest, parts.highest + 1)):
        first, last = parts.row_groups.offset[i], parts.row_groups.offset[i + 1]
        lowest, highest = parts.row_groups.lowest[first:last], parts.row_groups.highest[first:last]
        groups = np.flatnonzero(ranges.overlaps(lowest, highest + 1))
        if not len(groups):
            continue
        with pq.ParquetFile(store.path(parts.uri[int(i)].as_py())) as file:
            rows = conformed(file.read_row_groups(groups.tolist()), schema)
        cells: Int64Array = rows.column(line).to_numpy()
        kept = rows.filter(pa.array(ranges.contains(cells)))
        if kept.num_rows:
            yield kept


def input_codes(rows: pa.Table) -> pa.ChunkedArray:
    """Return one number for load and input of each row."""
    load = pc.cast(rows.column(LOAD), pa.int64())
    return pc.add(pc.shift_left(load, pa.scalar(32, pa.int64())), pc.cast(rows.column(INPUT), pa.int64()))
