"""Rows on their way from input order to line order.

Rows are put into numbered buckets and taken out bucket by bucket. Up to a budget they stay in memory; beyond it all buckets are
written out as Arrow IPC files, one file per bucket and flush. Rows of a bucket come back in the order in which they were put.

When all rows are in, a spill can be sealed: everything is in files then, whose size and digest are known, and another process can
open it again (`Spill.opened`). Files of a sealed spill stay until they are forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.model import Int64Array
from qengine.storage.digest import DigestingFile, FastDigest

_SMALL_ROWS = 8192

Piece = tuple[int, pa.RecordBatch]
"""A bucket and rows for it."""


def scatter(rows: pa.RecordBatch, bucket: Int64Array) -> list[Piece]:
    """Return the rows grouped by their `bucket`, in bucket order and otherwise in the order they had."""
    if not len(bucket):
        return []
    narrow = bucket.astype(np.uint16) if bucket.max() < 1 << 16 else bucket
    if narrow.min() == narrow.max():
        return [(int(bucket[0]), rows)]
    order = np.argsort(narrow, kind="stable")  # radix sort for 16-bit numbers
    grouped = bucket[order]
    rows = rows.take(pa.array(order))
    edges = [0, *(np.flatnonzero(np.diff(grouped)) + 1).tolist(), len(grouped)]
    return [(int(grouped[a]), rows.slice(a, b - a)) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True)
class SpillFile:
    """A file of a spill: bucket, rows, bytes and digest (xxh3)."""

    bucket: int
    path: Path
    rows: int
    bytes: int
    digest: str


def read_files(files: Iterable[SpillFile]) -> list[pa.RecordBatch]:
    """Return the rows in files of a spill."""
    batches: list[pa.RecordBatch] = []
    for one in files:
        # Mapped: the pages are there already, and a copy into fresh memory costs as much as sorting it.
        with pa.memory_map(str(one.path)) as file, pa.ipc.open_stream(file) as reader:
            batches.extend(reader)
    return batches


class Spill:
    """Buckets of rows that share `schema`, kept in memory up to `budget_bytes` and in `folder` beyond, written by the threads
    of `pool`."""

    def __init__(self, folder: Path, schema: pa.Schema, pool: ThreadPoolExecutor, *, budget_bytes: int) -> None:
        self._folder = folder
        self._pool = pool
        self._schema = schema
        self._budget_bytes = budget_bytes
        self._held: dict[int, list[pa.RecordBatch]] = {}
        self._files: dict[int, list[SpillFile]] = {}
        self._held_bytes = 0
        self._flushes = 0
        self._is_sealed = False
        self.held_rows: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def opened(cls, files: Sequence[SpillFile], folder: Path, schema: pa.Schema, pool: ThreadPoolExecutor) -> Spill:
        """Return a spill that was sealed."""
        spill = cls(folder, schema, pool, budget_bytes=0)
        spill._is_sealed = True
        for one in files:
            spill._files.setdefault(one.bucket, []).append(one)
            spill.held_rows[one.bucket] = spill.held_rows.get(one.bucket, 0) + one.rows
        return spill

    def put(self, pieces: Sequence[Piece]) -> None:
        """Add rows to their buckets. Not for several threads at once, nor from a thread of the pool."""
        for bucket, rows in pieces:
            self._held.setdefault(bucket, []).append(rows)
            self._held_bytes += rows.nbytes
            self.held_rows[bucket] = self.held_rows.get(bucket, 0) + rows.num_rows
        if self._held_bytes > self._budget_bytes:
            self._flush()

    def seal(self) -> list[SpillFile]:
        """Bring all rows into files and return them."""
        self._flush()
        self._is_sealed = True
        return [one for bucket in sorted(self._files) for one in self._files[bucket]]

    def buckets(self) -> list[int]:
        """Return the buckets that have rows, in order."""
        return sorted(self._held.keys() | self._files.keys())

    def files(self, bucket: int) -> tuple[SpillFile, ...]:
        """Return the files of a bucket, in the order in which their rows were put."""
        return tuple(self._files.get(bucket, ()))

    def take(self, bucket: int) -> pa.Table:
        """Return the rows of a bucket; unless the spill is sealed, forget them. Different buckets may be taken by different
        threads."""
        batches = read_files(self.files(bucket))
        if not self._is_sealed:
            self.forget(bucket)
        batches.extend(self._held.pop(bucket, []))
        return pa.Table.from_batches(batches, self._schema)

    def forget(self, bucket: int) -> None:
        """Remove the files of a bucket."""
        for one in self._files.pop(bucket, []):
            one.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        written = self._pool.map(self._write, self._held, self._held.values())
        for bucket, one in zip(self._held, written, strict=True):
            self._files.setdefault(bucket, []).append(one)
        self._held.clear()
        self._held_bytes = 0
        self._flushes += 1

    def _write(self, bucket: int, batches: list[pa.RecordBatch]) -> SpillFile:
        path = self._folder / f"{bucket:06d}-{self._flushes:06d}.arrow"
        return write_file(bucket, path, pa.Table.from_batches(batches, self._schema))


def write_file(bucket: int, path: Path, rows: pa.Table) -> SpillFile:
    """Write rows of a bucket into a file of their own."""
    if rows.num_rows < _SMALL_ROWS * max(1, rows.column(0).num_chunks):
        rows = rows.combine_chunks()
    with path.open("wb") as file:
        sink = DigestingFile(file.fileno(), FastDigest())
        stream = pa.PythonFile(sink, mode="w")
        with pa.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows)
        stream.flush()
    return SpillFile(bucket, path, rows.num_rows, sink.bytes, sink.hexdigest())
