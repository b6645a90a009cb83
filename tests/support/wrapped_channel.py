"""A worker channel that passes everything on to another one; tests change what they are about."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pyarrow as pa

from qengine.plan.physical import QueryId, Task, TaskEvent, WorkerId
from qengine.transport.channel import WorkerChannel, WorkerStatus


class WrappedChannel:
    """A channel around another one."""

    def __init__(self, inner: WorkerChannel) -> None:
        self._inner = inner

    @property
    def worker(self) -> WorkerId:
        return self._inner.worker

    @property
    def address(self) -> str:
        return self._inner.address

    @property
    def mapped_from_bytes(self) -> int | None:
        return self._inner.mapped_from_bytes

    def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        return self._inner.run(task)

    def fetch(self, spool: str) -> AsyncIterator[pa.RecordBatch]:
        return self._inner.fetch(spool)

    async def put(self, query: QueryId, name: str, content: memoryview) -> None:
        await self._inner.put(query, name, content)

    async def cancel(self, query: QueryId) -> None:
        await self._inner.cancel(query)

    async def status(self) -> WorkerStatus:
        return await self._inner.status()

    async def close(self) -> None:
        await self._inner.close()
