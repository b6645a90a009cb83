"""Partitions on every `WorkerChannel`: written by one worker, read by another, lost and damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from qengine.errors import PartitionLostError
from qengine.plan.physical import PARTITION, Batch, Finished, Partition, Partitioning, QueryId, TaskInput
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.faulty_channel import FaultyChannel
from tests.support.tasks import collect, error_of, make_task, rows_of

ROWS = "SELECT CAST(range % 1000 AS BIGINT) AS k, range AS v FROM range(100000)"
BY_K = Partitioning(keys=(("k", "BIGINT"),), count=5, threshold_bytes=1000)

Pair = tuple[WorkerChannel, WorkerChannel]
Check = Callable[[WorkerChannel, WorkerChannel, Path], Awaitable[None]]
Use = Callable[[Check], None]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[WorkerProcess]]]:
    root = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        yield (
            root,
            [
                stack.enter_context(
                    start_worker(root, worker=f"w{n}", settings=WorkerSettings(store_root=root, work_dir=root / f"work{n}"))
                )
                for n in range(2)
            ],
        )


@pytest.fixture(params=["in_process", "grpc", "faulty"])
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Use:
    """Run a check against two workers; the path is where the first keeps its partitions."""

    def make() -> tuple[Pair, Path]:
        if request.param == "grpc":
            root, processes = request.getfixturevalue("processes")
            first, second = (GrpcChannel(p.address, worker=p.worker) for p in processes)
            return (first, second), root / "work0" / "spool"
        one, other = (in_process_channel(tmp_path, worker=f"w{n}", slots=2, work_dir=tmp_path / f"work{n}") for n in range(2))
        folder = tmp_path / "work0" / "spool-w0"
        return ((FaultyChannel(one), FaultyChannel(other)) if request.param == "faulty" else (one, other)), folder

    def run(check: Check) -> None:
        async def checked() -> None:
            (first, second), folder = make()
            try:
                await check(first, second, folder)
            finally:
                for channel in (first, second):
                    await channel.cancel(QueryId("q1"))
                    await channel.close()

        asyncio.run(checked())

    return run


async def produce(channel: WorkerChannel, partition: Partitioning = BY_K) -> tuple[Partition, ...]:
    events = await collect(channel.run(replace(make_task(ROWS), partition=partition)))
    last = events[-1]
    assert isinstance(last, Finished), last
    assert not any(isinstance(e, Batch) for e in events)
    return last.stats.partitions


def reads(channel: WorkerChannel, parts: tuple[Partition, ...]) -> TaskInput:
    refs = tuple(part.at(channel.address) for part in parts)
    return TaskInput(name="r0", parts=refs, columns=("k", "v"), types=("BIGINT", "BIGINT"), line_column="")


GROUPS = "SELECT k, count(*) AS n, sum(v)::BIGINT AS s FROM r0 GROUP BY k"


def test_partitions_go_from_worker_to_worker(use: Use) -> None:
    async def check(first: WorkerChannel, second: WorkerChannel, folder: Path) -> None:
        parts = await produce(first)
        assert [p.number for p in parts] == [0, 1, 2, 3, 4]
        assert sum(p.rows for p in parts) == 100_000
        groups: list[int] = []
        for number, part in enumerate(parts):
            for channel in (first, second):
                found = rows_of(await collect(channel.run(make_task(GROUPS, [reads(first, (part,))], number=number))))
                assert all(row["n"] == 100 for row in found)
            groups += [row["k"] for row in found]
        assert sorted(groups) == list(range(1000))
        await first.cancel(QueryId("q1"))
        assert not list(folder.glob("*/*"))

    use(check)


def test_small_results_come_inline_with_their_partition(use: Use) -> None:
    async def check(first: WorkerChannel, second: WorkerChannel, folder: Path) -> None:
        task = replace(make_task(ROWS), partition=replace(BY_K, threshold_bytes=8 << 20))
        events = await collect(first.run(task))
        rows = rows_of(events)
        assert isinstance(events[-1], Finished)
        assert not events[-1].stats.partitions
        assert len(rows) == 100_000
        by_file = {}
        for part in await produce(second):
            path = next(folder.parent.parent.glob(f"work1/*/*/{part.name}.parquet"))
            by_file.update(dict.fromkeys(pq.read_table(path)["k"].to_pylist(), part.number))
        assert {row["k"]: row[PARTITION] for row in rows} == by_file

    use(check)


def test_damaged_and_missing_partitions_are_named(use: Use) -> None:
    async def check(first: WorkerChannel, second: WorkerChannel, folder: Path) -> None:
        parts = await produce(first)
        path = next(folder.glob(f"*/{parts[1].name}.parquet"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(bytes(data))
        next(folder.glob(f"*/{parts[2].name}.parquet")).unlink()
        for channel in (second, first):
            error = error_of(await collect(channel.run(make_task(GROUPS, [reads(first, parts)]))))
            assert isinstance(error, PartitionLostError)
            assert error.retryable
            assert set(error.details["partitions"]) & {parts[1].name, parts[2].name}
            assert not set(error.details["partitions"]) & {parts[0].name, parts[3].name}
        assert rows_of(await collect(second.run(make_task(GROUPS, [reads(first, parts[3:])]))))

    use(check)


def test_names_from_outside_open_nothing(use: Use) -> None:
    async def check(first: WorkerChannel, second: WorkerChannel, folder: Path) -> None:
        odd = Partition(0, "../../../../etc/passwd", 1, 1)
        assert isinstance(error_of(await collect(second.run(make_task(GROUPS, [reads(first, (odd,))])))), PartitionLostError)

    use(check)


def test_a_worker_that_is_gone_is_named_with_its_partitions(tmp_path: Path) -> None:
    async def check() -> None:
        with start_worker(tmp_path, worker="w1") as one, start_worker(tmp_path, worker="w2") as other:
            first, second = GrpcChannel(one.address), GrpcChannel(other.address)
            parts = await produce(first)
            one.kill()
            error = error_of(await collect(second.run(make_task(GROUPS, [reads(first, parts)]))))
            assert isinstance(error, PartitionLostError)
            assert set(error.details["partitions"]) == {p.name for p in parts}
            assert error.details["addresses"] == [one.address]
            for channel in (first, second):
                await channel.close()

    asyncio.run(check())
