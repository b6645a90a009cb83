"""Relations that the coordinator has, on the workers that need them.

A task may read a relation that was made for its query (`plan.physical.shared_part`): the rows of a step, an upload, TAP_SCHEMA. It
is written once as an uncompressed Parquet file in memory, and put on a worker before the first attempt there that reads it. A
worker that was restarted has forgotten it and says so; then it is put again before the next attempt.

One `SharedRelations` belongs to one execution. Whoever owns it has the workers forget the query at the end, which is also how the
relations go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.errors import BugError, QEngineError, RelationMissingError, WorkerLostError
from qengine.plan.nearby import LINE
from qengine.plan.physical import SHARED, QueryId, Task, WorkerId
from qengine.transport.channel import WorkerChannel

_ROW_GROUP_ROWS = 122_880
_NEAR_GROUP_ROWS = 8_192
"""Of relations of which tasks read some cells."""


class Supplies(Protocol):
    """What a run needs beside its tasks."""

    async def prepare(self, channel: WorkerChannel, task: Task) -> None:
        """Give the worker what the task needs; called before each attempt."""
        ...

    def failed(self, worker: WorkerId, error: QEngineError) -> None:
        """An attempt on the worker failed."""
        ...


class SharedRelations:
    """The relations `tables` of a query, by name, and where they are. Use it from one event loop."""

    def __init__(self, query: QueryId, tables: Mapping[str, pa.Table]) -> None:
        self._query = query
        self._tables = dict(tables)
        self._files: dict[str, asyncio.Task[memoryview]] = {}
        self._puts: dict[tuple[WorkerId, str], asyncio.Task[None]] = {}
        self.workers: set[WorkerId] = set()

    def add(self, name: str, table: pa.Table) -> None:
        """Have one more relation ready; a name stands for the same rows for ever."""
        self._tables[name] = table

    def find(self, name: str) -> pa.Table | None:
        """Return a relation, if there is one of this name."""
        return self._tables.get(name)

    async def prepare(self, channel: WorkerChannel, task: Task) -> None:
        """Put on the worker what the task reads and is not there yet. Raise what `WorkerChannel.put` raises."""
        names = {part.uri.removeprefix(SHARED) for i in task.inputs for part in i.parts if part.uri.startswith(SHARED)}
        await asyncio.gather(*(self._put(channel, name) for name in sorted(names)))

    def failed(self, worker: WorkerId, error: QEngineError) -> None:
        """An attempt failed: the worker may have lost what was put on it."""
        if isinstance(error, RelationMissingError | WorkerLostError):
            self.forget(worker)

    def forget(self, worker: WorkerId) -> None:
        """The worker has lost what was put on it."""
        for key in [key for key in self._puts if key[0] == worker and self._puts[key].done()]:
            del self._puts[key]

    async def close(self) -> None:
        """End what is still being sent and forget the rows."""
        running = [*self._files.values(), *self._puts.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._tables.clear()
        self._files.clear()

    async def _put(self, channel: WorkerChannel, name: str) -> None:
        key = channel.worker, name
        putting = self._puts.get(key)
        if putting is None:
            putting = self._puts[key] = asyncio.create_task(self._send(channel, name))
            self.workers.add(channel.worker)
        try:
            # Others may wait for the same relation: the end of this attempt is not the end of its sending.
            await asyncio.shield(putting)
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._puts.get(key) is putting:
                del self._puts[key]
            raise

    async def _send(self, channel: WorkerChannel, name: str) -> None:
        if name not in self._files:
            if name not in self._tables:
                raise BugError(f"a task reads the relation {name}, which the query does not have")
            self._files[name] = asyncio.create_task(asyncio.to_thread(_parquet, self._tables[name]))
        await channel.put(self._query, name, await asyncio.shield(self._files[name]))


def _parquet(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    group_rows = _NEAR_GROUP_ROWS if LINE in table.column_names else _ROW_GROUP_ROWS
    pq.write_table(
        table, sink, compression="none", use_dictionary=False, write_statistics=True, row_group_size=group_rows,
        column_encoding="PLAIN",
    )  # fmt: skip
    return memoryview(sink.getvalue())
