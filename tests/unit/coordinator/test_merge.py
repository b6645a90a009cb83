"""The merge on real DuckDB: small and large inputs, limits, failures, leaving early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.coordinator.merge import Merger, MergeSettings
from qengine.errors import BugError, ClusterError, ExecutionError, QueryTimeoutError, QueryTooLargeError

SCHEMA = pa.schema([("n", pa.int64()), ("x", pa.float64())])
SLOW = 'SELECT count(*) FROM "t0" a, "t0" b, "t0" c, "t0" d WHERE a.x + b.x + c.x + d.x < -1'


class Rows:
    """`batches` batches of `size` rows, n counting from 0; notes whether it was closed."""

    def __init__(
        self, batches: int, size: int = 1000, *, fails_after: int | None = None, gate: asyncio.Event | None = None
    ) -> None:
        self.is_closed = False
        self.sent = 0
        self._rows = self._make(batches, size, fails_after, gate)

    async def _make(
        self, batches: int, size: int, fails_after: int | None, gate: asyncio.Event | None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        for number in range(batches):
            if number == fails_after:
                raise ClusterError("the leaf failed")
            values = np.arange(number * size, (number + 1) * size)
            self.sent += 1
            yield pa.record_batch([pa.array(values), pa.array(values / 2)], schema=SCHEMA)
            await asyncio.sleep(0)
        if gate is not None:
            await gate.wait()

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        return await anext(self._rows)

    async def aclose(self) -> None:
        self.is_closed = True
        await self._rows.aclose()


def go(work: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


async def answer(rows: AsyncGenerator[pa.RecordBatch, None]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    async for batch in rows:
        found += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> MergeSettings:
    return MergeSettings(temp_dir=tmp_path, small_bytes=100_000, memory_bytes=256 << 20, stop_s=1.0)


def test_a_final_aggregate_over_two_inputs(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            left, right = Rows(3), Rows(2)
            sql = 'SELECT count(*), max(a.n), sum(b.x) FROM "a" JOIN "b" ON a.n = b.n'
            assert await answer(merger.run(sql, {"a": (SCHEMA, left), "b": (SCHEMA, right)})) == [
                (2000, 1999, sum(range(2000)) / 2)
            ]
            assert left.is_closed
            assert right.is_closed

    go(work())


def test_an_empty_input_is_an_empty_relation_with_its_types(settings: MergeSettings) -> None:
    async def work() -> None:
        schema = pa.schema([("s", pa.string()), ("t", pa.timestamp("us")), ("b", pa.bool_()), ("l", pa.list_(pa.float64()))])
        async with Merger(settings) as merger:
            names = [
                typed
                async for typed in merger.run(
                    'SELECT typeof(s), typeof(t), count(*) FROM "t" GROUP BY ALL', {"t": (schema, Rows(0))}
                )
            ]
            assert not names
            assert await answer(
                merger.run("SELECT count(*), max(s) || 'x', max(t), max(l) FROM \"t\"", {"t": (schema, Rows(0))})
            ) == [(0, None, None, None)]

    go(work())


def test_large_inputs_go_into_tables_and_spill(settings: MergeSettings, tmp_path: Path) -> None:
    async def work() -> None:
        small = replace(settings, memory_bytes=64 << 20)
        async with Merger(small) as merger:
            inputs = {"t": (SCHEMA, Rows(120, 65536)), "u": (SCHEMA, Rows(1, 10)), "v": (SCHEMA, Rows(0))}
            last = -1.0
            rows = 0
            sql = 'SELECT x FROM (SELECT x, n FROM "t" UNION ALL SELECT x, n FROM "u" UNION ALL SELECT x, n FROM "v") ORDER BY x, n'
            async for batch in merger.run(sql, inputs):
                rows += batch.num_rows
                assert batch["x"][0].as_py() >= last
                last = batch["x"][-1].as_py()
            assert rows == 120 * 65536 + 10
            # The engine is as new.
            assert await answer(merger.run('SELECT count(*) FROM "t"', {"t": (SCHEMA, Rows(1))})) == [(1000,)]

    go(work())


def test_rows_take_the_planned_types(settings: MergeSettings) -> None:
    async def work() -> None:
        planned = pa.schema([("k", pa.int32()), ("y", pa.float32())])
        async with Merger(settings) as merger:
            run = merger.run('SELECT typeof(k), typeof(y), count(*) FROM "t" GROUP BY ALL', {"t": (planned, Rows(1))})
            assert await answer(run) == [("INTEGER", "FLOAT", 1000)]
            with pytest.raises(ExecutionError, match="do not fit"):
                await answer(merger.run('SELECT 1 FROM "t"', {"t": (pa.schema([("k", pa.int8()), ("y", pa.float64())]), Rows(1))}))
            with pytest.raises(BugError, match="2 columns and should have 1"):
                await answer(merger.run('SELECT 1 FROM "t"', {"t": (pa.schema([("k", pa.int64())]), Rows(1))}))

    go(work())


def test_too_much_to_gather_is_refused_early(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            for limit in ({"max_rows": 5000}, {"max_bytes": 80_000}):
                rows = Rows(1_000_000)
                with pytest.raises(QueryTooLargeError, match="more than 6,000 rows") as caught:
                    await answer(merger.run('SELECT count(*) FROM "t"', {"t": (SCHEMA, rows)}, **limit))
                assert caught.value.details["rows"] == 6000
                assert rows.sent == 6
                assert rows.is_closed

    go(work())


def test_a_failing_input_ends_the_merge_and_closes_the_others(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            for size in (10, 100_000):
                bad, good = Rows(5, size, fails_after=3), Rows(1, gate=asyncio.Event())
                with pytest.raises(ClusterError, match="the leaf failed"):
                    await answer(merger.run('SELECT 1 FROM "a", "b"', {"a": (SCHEMA, bad), "b": (SCHEMA, good)}))
                assert bad.is_closed
                assert good.is_closed
            assert await answer(merger.run('SELECT count(*) FROM "a"', {"a": (SCHEMA, Rows(1))})) == [(1000,)]

    go(work())


def test_an_error_in_the_select(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            with pytest.raises(ExecutionError):
                await answer(merger.run("SELECT CAST('x' || n AS INTEGER) FROM \"t\"", {"t": (SCHEMA, Rows(1))}))
            with pytest.raises(BugError):
                await answer(merger.run('SELECT count(*) FROM "t"; SELECT 1', {"t": (SCHEMA, Rows(1))}))
            assert await answer(merger.run('SELECT count(*) FROM "t"', {"t": (SCHEMA, Rows(1))})) == [(1000,)]

    go(work())


def test_merges_do_not_see_each_other(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            runs = [merger.run('SELECT count(*), sum(n) FROM "t"', {"t": (SCHEMA, Rows(1 + n, 5000))}) for n in range(8)]
            found = await asyncio.gather(*(answer(run) for run in runs))
            assert [int(str(rows[0][0])) for rows in found] == [5000 * (1 + n) for n in range(8)]

    go(work())


def test_the_deadline_interrupts(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            began = time.monotonic()
            with pytest.raises(QueryTimeoutError):
                await answer(merger.run(SLOW, {"t0": (SCHEMA, Rows(1))}, deadline_s=0.3))
            with pytest.raises(QueryTimeoutError):
                await answer(merger.run(SLOW, {"t0": (SCHEMA, Rows(1, gate=asyncio.Event()))}, deadline_s=0.1))
            assert time.monotonic() - began < 2
            assert await answer(merger.run('SELECT count(*) FROM "t"', {"t": (SCHEMA, Rows(1))})) == [(1000,)]

    go(work())


def test_a_reader_that_is_cancelled_or_leaves_frees_the_engine(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(settings) as merger:
            reading = asyncio.create_task(answer(merger.run(SLOW, {"t0": (SCHEMA, Rows(1))})))
            await asyncio.sleep(0.2)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            run = merger.run('SELECT a.n FROM "t0" a, "t0" b, "t0" c', {"t0": (SCHEMA, Rows(1))})
            assert (await anext(run)).num_rows
            await run.aclose()
            async with asyncio.timeout(2):
                while merger.idle_engines < settings.warm_engines:
                    await asyncio.sleep(0.01)
            assert await answer(merger.run('SELECT count(*) FROM "t"', {"t": (SCHEMA, Rows(1))})) == [(1000,)]

    go(work())


def test_tiny_merges_never_wait_for_large_ones(settings: MergeSettings) -> None:
    async def work() -> None:
        async with Merger(replace(settings, large_merges=1)) as merger:
            gate = asyncio.Event()
            sql = 'SELECT count(*) FROM "t"'
            large = [asyncio.create_task(answer(merger.run(sql, {"t": (SCHEMA, Rows(20, gate=gate))}))) for _ in range(3)]
            await asyncio.sleep(0.05)
            async with asyncio.timeout(2):
                assert await answer(merger.run(sql, {"t": (SCHEMA, Rows(1))})) == [(1000,)]
            assert not any(task.done() for task in large)
            gate.set()
            assert [await task for task in large] == [[(20_000,)]] * 3

    go(work())
