"""Rows that a load puts aside: in one Parquet file per load and table, each with the reason, its input, and its place there.

The file holds the rows as they would have been stored, behind three columns of its own: `_reason`, `_file` (the input as messages
call it) and `_row`, counted from 1 in the input as it is: rows that a filter left out count. So a person can find them, correct
them, and load them again. A table that has columns of these names keeps them; those of the file are then called `__reason` ..
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import Int64Array
from qengine.loader.quality import REASONS

_OWN = (("reason", pa.string()), ("file", pa.string()), ("row", pa.int64()))


def put_aside(rows: pa.RecordBatch, cells: Int64Array, source: str, places: Int64Array) -> pa.RecordBatch:
    """Return those rows whose cell is minus a reason, as the file holds them. `places` are their numbers in `source`, from 0."""
    is_bad = cells < 0
    kept = rows.filter(pa.array(is_bad))
    mark = "_"
    while any(f"{mark}{name}".lower() in {each.lower() for each in kept.schema.names} for name, _ in _OWN):
        mark += "_"
    fields = [pa.field(f"{mark}{name}", kind, nullable=False) for name, kind in _OWN]
    reasons = pa.array([REASONS[int(-cell)] for cell in cells[is_bad]], pa.string())
    files = pa.array([source] * kept.num_rows, pa.string())
    numbers = pa.array(np.asarray(places)[is_bad] + 1, pa.int64())
    return pa.record_batch([reasons, files, numbers, *kept.columns], schema=pa.schema([*fields, *kept.schema]))


class Quarantine:
    """The file of one load and table, made when the first row comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def put(self, rows: pa.RecordBatch) -> None:
        """Add rows that `put_aside` made."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, rows.schema, compression="zstd")
        self._writer.write_batch(rows)
        self.rows += rows.num_rows

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
