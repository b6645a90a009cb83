"""Relations that are put on workers: every `WorkerChannel` keeps them for their query, and for no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.coordinator.shared import SharedRelations
from qengine.errors import RelationMissingError, WorkerLostError
from qengine.plan.physical import QueryId, TaskInput, shared_part
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.faulty_channel import FaultyChannel
from tests.support.tasks import collect, error_of, make_task, rows_of

ROWS = pa.table({"id": pa.array(range(300_000), pa.int64()), "name": [f"n{i % 7}" for i in range(300_000)]})
SUM = "SELECT sum(id)::BIGINT AS s, count(DISTINCT name) AS n FROM t0"

Check = Callable[[WorkerChannel], Awaitable[None]]
Use = Callable[[Check], None]


@pytest.fixture(scope="module")
def worker_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with start_worker(tmp_path_factory.mktemp("store"), worker="w1", slots=2) as started:
        yield started


@pytest.fixture(params=["in_process", "grpc", "faulty"])
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Use:
    def make() -> WorkerChannel:
        if request.param == "grpc":
            return GrpcChannel(request.getfixturevalue("worker_process").address, worker="w1")
        local = in_process_channel(tmp_path, worker="w1", slots=2)
        return FaultyChannel(local) if request.param == "faulty" else local

    def run(check: Check) -> None:
        async def checked() -> None:
            channel = make()
            try:
                await check(channel)
            finally:
                await channel.close()

        asyncio.run(checked())

    return run


def reads(name: str, table: pa.Table) -> TaskInput:
    return TaskInput(
        name="t0", parts=(shared_part(name, table),), columns=("id", "name"), types=("BIGINT", "VARCHAR"), line_column=""
    )


def test_a_relation_is_read_by_tasks_of_its_query_until_it_is_cancelled(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        shared = SharedRelations(QueryId("q1"), {"b1.odd/../ name": ROWS})
        task = make_task(SUM, [reads("b1.odd/../ name", ROWS)])
        await shared.prepare(channel, task)
        assert rows_of(await collect(channel.run(task))) == [{"s": 300_000 * 299_999 // 2, "n": 7}]
        other = make_task(SUM, [reads("b1.odd/../ name", ROWS)], query="q2")
        assert isinstance(error_of(await collect(channel.run(other))), RelationMissingError)
        await channel.cancel(QueryId("q1"))
        error = error_of(await collect(channel.run(task)))
        assert isinstance(error, RelationMissingError)
        assert error.retryable
        await shared.close()

    use(check)


def test_putting_again_replaces(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        for count in (10, 20):
            sink = pa.BufferOutputStream()
            pq.write_table(ROWS.slice(0, count), sink)
            await channel.put(QueryId("q1"), "r", memoryview(sink.getvalue()))
            task = make_task("SELECT count(*) AS n FROM t0", [reads("r", ROWS.slice(0, count))])
            assert rows_of(await collect(channel.run(task))) == [{"n": count}]
        await channel.cancel(QueryId("q1"))

    use(check)


def test_prepare_puts_once_and_again_after_forgetting(use: Use) -> None:
    class Counting:
        def __init__(self, inner: WorkerChannel) -> None:
            self.inner, self.puts = inner, 0
            self.worker = inner.worker

        async def put(self, query: QueryId, name: str, content: memoryview) -> None:
            self.puts += 1
            await self.inner.put(query, name, content)

    async def check(channel: WorkerChannel) -> None:
        shared = SharedRelations(QueryId("q1"), {"r": ROWS})
        task = make_task(SUM, [reads("r", ROWS)])
        counting = Counting(channel)
        await asyncio.gather(*(shared.prepare(counting, task) for _ in range(5)))  # type: ignore[arg-type]
        assert counting.puts == 1
        await channel.cancel(QueryId("q1"))
        assert isinstance(error_of(await collect(channel.run(task))), RelationMissingError)
        shared.forget(channel.worker)
        await shared.prepare(counting, task)  # type: ignore[arg-type]
        assert counting.puts == 2
        assert rows_of(await collect(channel.run(task)))[0]["n"] == 7
        await channel.cancel(QueryId("q1"))
        await shared.close()

    use(check)


def test_a_closed_channel_takes_nothing(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        await channel.close()
        with pytest.raises(WorkerLostError):
            await channel.put(QueryId("q"), "r", memoryview(b"x"))

    use(check)
