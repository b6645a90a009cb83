"""Parquet files as a loader source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.errors import InputError
from qengine.loader.sources.source import Identity, batch_rows

SUFFIXES = (".parquet", ".parq", ".pq")


class ParquetSource:
    """One Parquet file. Opening it reads the footer only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            stat = path.stat()
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow.remove_metadata()
                self._rows = int(file.metadata.num_rows)
                groups = range(file.metadata.num_row_groups)
                encoded = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not a readable Parquet file: {error}", hint="the file may be truncated") from error
        fixed = sum(_fixed_width(field.type) for field in self._schema)
        self._row_bytes = max(fixed, int(encoded) // max(self._rows, 1), 1)
        self._identity = Identity(path=str(path.absolute()), bytes=stat.st_size, modified=stat.st_mtime)

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def row_bytes(self) -> int:
        return self._row_bytes

    @property
    def identity(self) -> Identity:
        return self._identity

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with the first row of the batch that cannot be decoded."""
        row = 0
        wanted = list(columns)
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(batch_rows(self._row_bytes), columns=wanted, use_threads=False):
                    yield batch.select(wanted)
                    row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self._path}: cannot read past row {row + 1}: {error}", hint="the file may be damaged") from error


def _fixed_width(arrow: pa.DataType) -> int:
    try:
        return max(1, int(arrow.bit_width) // 8)
    except ValueError:
        return 16
