"""Parts, inputs and tasks for tests of execution and transport, written with pyarrow alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.plan.physical import (
    Batch,
    Failed,
    Finished,
    PartRef,
    Progress,
    QueryId,
    Started,
    Task,
    TaskEvent,
    TaskId,
    TaskInput,
    TaskLimits,
)


def write_part(store: Path, name: str, table: pa.Table, *, row_group_size: int = 1000) -> PartRef:
    """Write a table as a part of the store and return its reference."""
    path = store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True)
    return part_ref(path, name, table.num_rows)


def part_ref(path: Path, uri: str, rows: int) -> PartRef:
    data = path.read_bytes()
    return PartRef(digest=hashlib.sha256(data).hexdigest(), uri=uri, rows=rows, bytes=len(data))


def make_task(
    sql: str,
    inputs: Sequence[TaskInput] = (),
    *,
    query: str = "q1",
    number: int = 0,
    attempt: int = 0,
    epoch: int = 1,
    **limits: Any,
) -> Task:
    return Task(
        id=TaskId(QueryId(query), 0, number),
        attempt=attempt,
        epoch=epoch,
        sql=sql,
        inputs=tuple(inputs),
        limits=TaskLimits(**limits),
    )


async def collect(events: AsyncIterator[TaskEvent]) -> list[TaskEvent]:
    return [event async for event in events]


async def started(events: AsyncIterator[TaskEvent]) -> None:
    """Read on to where the task starts: on a busy machine it may say before that it waits."""
    while isinstance(event := await anext(events), Progress):
        pass
    assert isinstance(event, Started), event


def rows_of(events: Iterable[TaskEvent]) -> list[dict[str, Any]]:
    """Return the rows that the events deliver, and insist that the attempt has finished."""
    found = list(events)
    last = found[-1]
    assert isinstance(last, Finished), last.error if isinstance(last, Failed) else last
    return [row for event in found if isinstance(event, Batch) for row in event.rows.to_pylist()]


def error_of(events: Iterable[TaskEvent]) -> Exception:
    last = list(events)[-1]
    assert isinstance(last, Failed), last
    return last.error
