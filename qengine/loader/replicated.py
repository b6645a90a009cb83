"""Replicated tables: small, whole on every worker, without a place on the line. Their rows keep the order of the inputs.

Each load adds parts. A compaction puts them together (`write_again`) if there are more than the rows need, or if some still have
a column that was dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.model import PartRole, Parts
from qengine.loader.distribute import InputTally, Shape, Tally, conform
from qengine.loader.locate import Numbered, numbered
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.loader.sources.source import Source
from qengine.loader.stored import INPUT, LOAD, StoredRows
from qengine.loader.write import Written
from qengine.sky.cells import BEYOND_END
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat, write_part


def replicated_schema(columns: pa.Schema) -> pa.Schema:
    """Return the schema of the rows of a replicated table."""
    return pa.schema([pa.field(LOAD, pa.int32(), nullable=False), pa.field(INPUT, pa.int32(), nullable=False), *columns])


def write_replicated(
    sources: Sequence[Source], shape: Shape, pool: ThreadPoolExecutor, *, folder: Path, part_rows: int, ahead: int, tally: Tally,
    progress: Progress,
) -> Iterator[Written]:  # fmt: skip
    """Write all rows into parts of about `part_rows` rows and yield them; `tally` counts."""
    schema = replicated_schema(shape.columns)
    expected = sum(source.rows for source in sources)

    def work(batch: Numbered) -> tuple[pa.RecordBatch, dict[str, int], int]:
        rows, nan = conform(batch.rows, shape, sources[batch.source].name)
        hidden = [pa.array(np.full(rows.num_rows, number, np.int32)) for number in (shape.load, batch.source)]
        return pa.record_batch([*hidden, *rows.columns], schema=schema), nan, batch.source

    def arrived() -> Iterator[pa.RecordBatch]:
        for rows, nan, source in in_order(pool, work, numbered(sources, shape.columns.names), ahead=ahead):
            tally.nan.update(nan)
            tally.read += rows.num_rows
            tally.of_input.setdefault(source, InputTally()).read += rows.num_rows
            yield rows
            progress("read", tally.read, max(tally.read, expected))

    yield from _written(arrived(), schema, folder, part_rows)


def is_worn(parts: Parts, dropped: Sequence[str], part_rows: int) -> bool:
    """Say whether a compaction has something to do."""
    return len(parts) > 0 and (bool(dropped) or len(parts) > max(1, -(-int(parts.rows.sum()) // part_rows)))


def write_again(
    parts: Parts, shape: Shape, store: Store, *, name: str, folder: Path, part_rows: int, progress: Progress
) -> Iterator[Written]:
    """Write the rows of the parts, with the loads and inputs that they came by, into as few parts as need be, and yield these."""
    schema = replicated_schema(shape.columns)
    stored = StoredRows(name=name, schema=schema, store=store, parts=parts)

    def there() -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in stored.batches(schema.names):
            yield batch.select(schema.names)
            done += batch.num_rows
            progress("compact", done, stored.rows)

    yield from _written(there(), schema, folder, part_rows)


def _written(rows: Iterator[pa.RecordBatch], schema: pa.Schema, folder: Path, part_rows: int) -> Iterator[Written]:
    """Write batches into parts of about `part_rows` rows."""

    def flush(held: list[pa.RecordBatch]) -> Written:
        table = pa.Table.from_batches(held, schema).combine_chunks()
        return Written(role=PartRole.HOME, start=0, stop=BEYOND_END, file=write_part(table, folder, PartFormat(sorted_by=())))

    held: list[pa.RecordBatch] = []
    for batch in rows:
        held.append(batch)
        if sum(each.num_rows for each in held) >= part_rows:
            yield flush(held)
            held = []
    if held:
        yield flush(held)
