"""Dispatcher, real runners and merge together, in one process: results that spool, cancels that reach DuckDB, sums that are right."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.coordinator.attempt import RunSettings
from qengine.coordinator.dispatch import Dispatcher, DispatchSettings
from qengine.coordinator.merge import Merger, MergeSettings
from qengine.coordinator.source import TaskSource
from qengine.errors import ExecutionError
from qengine.plan.physical import PartRef, QueryId, Task, TaskId, TaskInput, TaskLimits
from qengine.worker.local import in_process_channel

ROWS = 20_000
TASKS = 8
Q = QueryId("q")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    for number in range(TASKS):
        ids = np.arange(number * ROWS, (number + 1) * ROWS)
        pq.write_table(pa.table({"_healpix_29": ids, "id": ids}), root / f"{number}.parquet")
    return root


def tasks(sql: str, root: Path) -> TaskSource:
    def make(number: int) -> Task:
        part = PartRef(digest="", uri=f"{number}.parquet", rows=ROWS, bytes=(root / f"{number}.parquet").stat().st_size)
        relation = TaskInput(name="t", parts=(part,), columns=("id",), types=("BIGINT",))
        return Task(id=TaskId(Q, 0, number), attempt=0, epoch=0, sql=sql, inputs=(relation,))

    return TaskSource(
        costs=np.ones(TASKS), cells=np.arange(TASKS, dtype=np.int64) << 52, make=make, describe=lambda number: f"part {number}"
    )


def test_rows_spools_and_sums(store: Path, tmp_path: Path) -> None:
    async def work() -> None:
        channels = [in_process_channel(store, worker=name, slots=2, work_dir=tmp_path / name) for name in "ab"]
        async with (
            Dispatcher(channels, epoch=time.time_ns()) as dispatcher,
            Merger(MergeSettings(temp_dir=tmp_path / "m")) as merger,
        ):
            for hold_bytes in (32 << 20, 10_000):
                run = dispatcher.run(tasks('SELECT "id" FROM "t"', store), query=Q, limits=TaskLimits(hold_bytes=hold_bytes))
                ids = np.concatenate([batch["id"].to_numpy() async for batch in run])
                assert (np.sort(ids) == np.arange(TASKS * ROWS)).all()
                assert all(task.is_spooled == (hold_bytes == 10_000) for task in run.report.tasks)

            run = dispatcher.run(tasks('SELECT count(*) AS n, sum("id")::BIGINT AS s FROM "t"', store), query=Q)
            schema = pa.schema([("n", pa.int64()), ("s", pa.int64())])
            final = merger.run('SELECT sum("n")::BIGINT AS n, sum("s")::BIGINT AS s FROM "p"', {"p": (schema, aiter(run))})
            rows = [row async for batch in final for row in batch.to_pylist()]
            assert rows == [{"n": TASKS * ROWS, "s": TASKS * ROWS * (TASKS * ROWS - 1) // 2}]

    asyncio.run(work())


def test_a_slow_reader_holds_tasks_back_and_gets_all_rows(store: Path, tmp_path: Path) -> None:
    async def work() -> None:
        channels = [in_process_channel(store, worker=name, slots=1, work_dir=tmp_path / name) for name in "ab"]
        settings = DispatchSettings(run=RunSettings(queue_bytes=1 << 20))
        async with Dispatcher(channels, epoch=time.time_ns(), settings=settings) as dispatcher:
            source = tasks('SELECT "id", repeat(\'x\', 100) AS s FROM "t"', store)
            run = dispatcher.run(source, query=Q, limits=TaskLimits())
            rows = (await anext(run)).num_rows
            await asyncio.sleep(1.0)
            # One task's rows fill the queue; beside them there is only what ran or waited on a worker already.
            assert run.report.attempts <= 6 < TASKS
            async for batch in run:
                rows += batch.num_rows
            assert rows == TASKS * ROWS
            assert not any(task.is_spooled for task in run.report.tasks)

    asyncio.run(work())


def test_the_wait_on_a_busy_worker_is_no_cost_of_dispatch(store: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with Dispatcher([in_process_channel(store, work_dir=tmp_path / "a")], epoch=time.time_ns()) as dispatcher:
            busy = 'SELECT sum(sqrt(a."id" * b."id")) AS s FROM "t" a, (SELECT "id" FROM "t" LIMIT 1000) b'
            run = dispatcher.run(tasks(busy, store), query=Q)
            assert sum([batch.num_rows async for batch in run]) == TASKS
            worked_s = sum(task.elapsed_s for task in run.report.tasks)
            assert sum(task.overhead_s for task in run.report.tasks) < worked_s / 2

    asyncio.run(work())


def test_errors_and_early_ends_stop_duckdb(store: Path, tmp_path: Path) -> None:
    async def work() -> None:
        channels = [in_process_channel(store, worker=name, slots=2, work_dir=tmp_path / name) for name in "ab"]
        async with Dispatcher(channels, epoch=time.time_ns()) as dispatcher:
            with pytest.raises(ExecutionError):
                async for _ in dispatcher.run(tasks('SELECT CAST(\'x\' || "id" AS BIGINT) AS n FROM "t"', store), query=Q):
                    pass

            slow = 'SELECT count(*) AS n FROM "t" a, "t" b, "t" c WHERE a."id" + b."id" + c."id" < 0'
            reading = asyncio.create_task(anext(dispatcher.run(tasks(slow, store), query=Q)))
            await asyncio.sleep(0.5)
            reading.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await reading
            run = dispatcher.run(tasks('SELECT "id" FROM "t"', store), query=Q, row_limit=5)
            assert sum([batch.num_rows async for batch in run]) == 5
            assert time.monotonic() - began < 3, "the slots are free again"

    asyncio.run(work())
