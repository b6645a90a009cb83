"""Splits the rows of a task into hash partitions.

The partition of a row is computed by DuckDB with the rows (`partitioned_sql`): a hash of the key columns, each cast to the type in
which equal values are equal, modulo the number of partitions. DuckDB's hash has 0.0 = -0.0, one NaN and one NULL, and depends on
nothing but the value. Its upper half is used: DuckDB's own hash tables use the lower bits, and would be full of gaps.

Rows are then sorted batch by batch by the number, which is one byte or two, so that numpy sorts by radix, and slices are collected
until they are worth a row group in each file. Measured (2 M rows of two 8-byte columns, 16 partitions, CPU ms, with the scan, the
hash and writing): sorted by batch and written as uncompressed Parquet 65, as Arrow IPC 50, ORDER BY in DuckDB 130, a filtered pass
for each file 280. Reading is as fast from Parquet as from IPC, and DuckDB's own reader streams and skips columns.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.errors import BugError, QueryTooLargeError
from qengine.execution.duck import quote_name
from qengine.execution.spool import PartitionFile, Spool
from qengine.plan.physical import PARTITION, Partition, Partitioning, QueryId

_BUFFER_BYTES = 48 << 20
"""Rows that are collected before each file gets a row group."""


def partitioned_sql(sql: str, partition: Partitioning) -> str:
    """Return `sql` with the number of each row's partition as a last column."""
    # Two sides have to meet: TRY_CAST makes a value that does not fit NULL on both.
    keys = ", ".join(f"TRY_CAST({quote_name(name)} AS {kind})" for name, kind in partition.keys)
    number = f"CAST((hash({keys}) >> 32) % {partition.count:d} AS USMALLINT)"
    return f"SELECT *, {number} AS {quote_name(PARTITION)} FROM ({sql})"


class PartitionWriter:
    """Takes batches whose last column is the number of the partition, and writes a file for each partition that has rows."""

    def __init__(self, spool: Spool, query: QueryId, count: int) -> None:
        self._spool = spool
        self._query = query
        self._count = count
        self._held: list[list[pa.RecordBatch]] = [[] for _ in range(count)]
        self._held_bytes = 0
        self._files: dict[int, tuple[PartitionFile, pq.ParquetWriter]] = {}
        self._rows = [0] * count

    def write(self, batch: pa.RecordBatch) -> None:
        numbers = batch.column(batch.num_columns - 1).to_numpy()
        rows = pa.RecordBatch.from_arrays(batch.columns[:-1], schema=_without_last(batch.schema))
        if len(numbers) and int(numbers.max()) >= self._count:
            raise BugError(f"a row is in partition {int(numbers.max())} of {self._count}")
        small = numbers.astype(np.uint8) if self._count <= 256 else numbers
        rows = rows.take(pa.array(np.argsort(small, kind="stable")))
        ends = np.cumsum(np.bincount(numbers, minlength=self._count)).tolist()
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                self._held[number].append(rows.slice(start, end - start))
                self._rows[number] += end - start
            start = end
        self._held_bytes += rows.nbytes
        if self._held_bytes >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> tuple[Partition, ...]:
        """Complete the files."""
        self._flush()
        found = []
        for number, (file, writer) in sorted(self._files.items()):
            try:
                writer.close()
            except OSError as error:
                raise _no_room(error) from error
            name, size = file.finish()
            found.append(Partition(number, name, self._rows[number], size))
        self._files.clear()
        return tuple(found)

    def abort(self) -> None:
        for file, writer in self._files.values():
            try:
                writer.close()
            except (OSError, pa.ArrowException):
                continue
            finally:
                file.abort()
        self._files.clear()

    def _flush(self) -> None:
        for number, held in enumerate(self._held):
            if not held:
                continue
            if number not in self._files:
                file = self._spool.partition_file(self._query)
                writer = pq.ParquetWriter(
                    file.path, held[0].schema, compression="none", use_dictionary=False, write_statistics=False
                )
                self._files[number] = file, writer
            try:
                self._files[number][1].write_table(pa.Table.from_batches(held), row_group_size=1 << 20)
            except OSError as error:
                raise _no_room(error) from error
            held.clear()
        self._held_bytes = 0


def _without_last(schema: pa.Schema) -> pa.Schema:
    return pa.schema([schema.field(i) for i in range(len(schema) - 1)])


def _no_room(error: OSError) -> QueryTooLargeError:
    return QueryTooLargeError(f"the worker has no room for the partitions of a result: {error}")
