"""Replicated tables: small, whole on every worker, without a place on the line. Their rows keep the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.model import PartRole
from qengine.loader.distribute import InputTally, Shape, Tally, conform
from qengine.loader.locate import Numbered, numbered
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.loader.sources.source import Source
from qengine.loader.stored import INPUT, LOAD
from qengine.loader.write import Written
from qengine.sky.cells import BEYOND_END
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

    def flush(held: list[pa.RecordBatch]) -> Written:
        table = pa.Table.from_batches(held, schema).combine_chunks()
        return Written(role=PartRole.HOME, start=0, stop=BEYOND_END, file=write_part(table, folder, PartFormat(sorted_by=())))

    held: list[pa.RecordBatch] = []
    for rows, nan, source in in_order(pool, work, numbered(sources, shape.columns.names), ahead=ahead):
        tally.nan.update(nan)
        tally.read += rows.num_rows
        tally.of_input.setdefault(source, InputTally()).read += rows.num_rows
        held.append(rows)
        progress("read", tally.read, max(tally.read, expected))
        if sum(batch.num_rows for batch in held) >= part_rows:
            yield flush(held)
            held = []
    if held:
        yield flush(held)
