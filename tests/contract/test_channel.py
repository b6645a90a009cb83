"""One suite for every `WorkerChannel`: in process, gRPC to a real worker process, and the fault-injecting one with no faults."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qengine.errors import (
    BugError,
    ExecutionError,
    IntegrityError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
    WorkerLostError,
)
from qengine.plan.physical import (
    PROTOCOL_VERSION,
    Batch,
    Finished,
    PartRef,
    Progress,
    QueryId,
    Started,
    TaskInput,
    WorkerId,
)
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.faulty_channel import FaultyChannel
from tests.support.tasks import collect, error_of, make_task, rows_of, started, write_part

ENDLESS = "SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b"
MANY_ROWS = "SELECT range AS i, range * 2 AS j FROM range(1000000)"

Check = Callable[[WorkerChannel], Awaitable[None]]
Use = Callable[[Check], None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def part(store: Path) -> PartRef:
    rows = pa.table({"_healpix_29": pa.array(range(5000), pa.int64()), "a": [i * 0.5 for i in range(5000)]})
    return write_part(store, "p/one.parquet", rows)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def worker_process(store: Path, work_dir: Path) -> Iterator[WorkerProcess]:
    settings = WorkerSettings(store_root=store, memory_bytes=512 << 20, work_dir=work_dir / "grpc")
    with start_worker(store, worker="w1", slots=2, settings=settings) as started:
        yield started


@pytest.fixture(scope="module", params=["in_process", "grpc", "faulty"])
def use(request: pytest.FixtureRequest, store: Path, work_dir: Path) -> Use:
    """Run a check against a fresh channel in its own event loop."""

    def make() -> WorkerChannel:
        if request.param == "grpc":
            process: WorkerProcess = request.getfixturevalue("worker_process")
            return GrpcChannel(process.address, worker="w1")
        local = in_process_channel(store, worker="w1", slots=2, memory_bytes=512 << 20, work_dir=work_dir / request.param)
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


def test_one_row(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        events = await collect(channel.run(make_task("SELECT 1 AS one", query="late", attempt=3, epoch=2**60)))
        assert [type(e) for e in events if not isinstance(e, Progress)] == [Started, Batch, Finished]
        assert rows_of(events) == [{"one": 1}]
        assert {(e.attempt, e.epoch, str(e.task)) for e in events} == {(3, 2**60, "late/0/0")}

    use(check)


def test_inputs(use: Use, part: PartRef) -> None:
    async def check(channel: WorkerChannel) -> None:
        given = TaskInput(name="t0", parts=(part,), columns=("a",), ranges=((10, 12), (4999, 5001)))
        empty = TaskInput(name="t1", parts=(), columns=("b", "c"), types=("BIGINT", "VARCHAR"))
        events = await collect(channel.run(make_task("SELECT a, b, c FROM t0 LEFT JOIN t1 ON a = b ORDER BY a", [given, empty])))
        assert [row["a"] for row in rows_of(events)] == [5.0, 5.5, 2499.5]
        assert isinstance(events[-1], Finished)
        assert events[-1].stats.input_bytes == part.bytes

    use(check)


def test_types_survive(use: Use) -> None:
    sql = (
        "SELECT 1::TINYINT AS a, 2::UBIGINT AS b, 1.5::FLOAT AS c, 'x' AS d, TIMESTAMP '2020-01-01' AS e, [1.0, 2.0] AS f, "
        "12.34::DECIMAL(9, 2) AS g, true AS h, NULL::DOUBLE AS i, 'on'::ENUM('on', 'off') AS j, 'b'::BLOB AS k"
    )

    async def check(channel: WorkerChannel) -> None:
        (batch,) = [e for e in await collect(channel.run(make_task(sql))) if isinstance(e, Batch)]
        kinds = [str(t) for t in batch.rows.schema.types]
        assert kinds[:4] == ["int8", "uint64", "float", "string"]
        assert kinds[6:9] == ["decimal128(9, 2)", "bool", "double"]
        assert batch.rows.to_pylist()[0]["j"] == "on"

    use(check)


def test_empty_result_keeps_its_schema(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        events = await collect(channel.run(make_task("SELECT 1::BIGINT AS one WHERE false")))
        assert rows_of(events) == []
        assert [e.rows.schema for e in events if isinstance(e, Batch)] == [pa.schema({"one": pa.int64()})]

    use(check)


def test_many_rows_inline(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        events = await collect(channel.run(make_task(MANY_ROWS, hold_bytes=32 << 20)))
        batches = [e.rows for e in events if isinstance(e, Batch)]
        assert isinstance(events[-1], Finished)
        assert events[-1].stats.rows == 1000000
        assert len(batches) > 10
        assert pa.Table.from_batches(batches).column("i").to_numpy().sum() == 1000000 * 999999 // 2

    use(check)


def test_spool_is_fetched_and_deleted(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        events = await collect(channel.run(make_task(MANY_ROWS, hold_bytes=1 << 20)))
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.stats.spool
        assert not any(isinstance(e, Batch) for e in events)
        rows = [batch async for batch in channel.fetch(last.stats.spool)]
        assert pa.Table.from_batches(rows).column("i").to_numpy().sum() == 1000000 * 999999 // 2
        with pytest.raises((IntegrityError, WorkerLostError)):
            [batch async for batch in channel.fetch(last.stats.spool)]

    use(check)


@pytest.mark.parametrize("is_near", [True, False], ids=["near", "far"])
def test_spools_are_mapped_or_sent(worker_process: WorkerProcess, work_dir: Path, is_near: bool) -> None:
    async def check() -> None:
        channel = GrpcChannel(worker_process.address, worker="w1", maps_spools=is_near)
        try:
            assert channel.mapped_from_bytes is None, "nothing is known of the worker yet"
            await channel.status()
            assert (channel.mapped_from_bytes is not None) == is_near
            for harm in (False, True):
                last = (await collect(channel.run(make_task(MANY_ROWS, hold_bytes=1 << 20))))[-1]
                assert isinstance(last, Finished)
                (path,) = work_dir.glob(f"grpc/spool/*/{last.stats.spool}.frames")
                if harm:
                    data = bytearray(path.read_bytes())
                    data[len(data) // 2] ^= 1
                    path.write_bytes(data)
                    with pytest.raises(IntegrityError):
                        [batch async for batch in channel.fetch(last.stats.spool)]
                else:
                    batches = [batch async for batch in channel.fetch(last.stats.spool)]
                    assert not path.exists()
                    rows = pa.Table.from_batches(batches)
                    assert sorted(rows["i"].to_pylist()) == list(range(1_000_000))
                    assert rows["j"].combine_chunks().equals(pc.multiply(rows["i"], 2).combine_chunks())
            await channel.cancel(last.task.query)
        finally:
            await channel.close()

    asyncio.run(check())


def test_cancel_drops_spools(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        events = await collect(channel.run(make_task(MANY_ROWS, query="dropped", hold_bytes=1 << 20)))
        assert isinstance(events[-1], Finished)
        await channel.cancel(QueryId("dropped"))
        with pytest.raises((IntegrityError, WorkerLostError)):
            [batch async for batch in channel.fetch(events[-1].stats.spool)]

    use(check)


def test_cancel_leaves_nothing_of_attempts_that_still_run(use: Use, work_dir: Path) -> None:
    async def check(channel: WorkerChannel) -> None:
        growing = make_task("SELECT range AS i FROM range(2000000000)", hold_bytes=1 << 20, result_bytes=1 << 40)
        running = channel.run(growing)
        before = set(work_dir.glob("*/spool*/*/*"))
        while set(work_dir.glob("*/spool*/*/*")) <= before:
            await anext(running)
        await channel.cancel(growing.id.query)
        assert set(work_dir.glob("*/spool*/*/*")) <= before
        assert isinstance(error_of(await collect(running)), QueryCancelledError)
        assert set(work_dir.glob("*/spool*/*/*")) <= before

    use(check)


def test_unknown_spool_and_query(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        await channel.cancel(QueryId("never heard of"))
        with pytest.raises((IntegrityError, WorkerLostError)):
            [batch async for batch in channel.fetch("../../etc/passwd")]

    use(check)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT CAST('x' AS INTEGER) AS a", ExecutionError),
        ("SELECT nope FROM range(3)", BugError),
        ("SELECT 1; SELECT 2", BugError),
    ],
)
def test_errors_keep_their_kind(use: Use, sql: str, kind: type[Exception]) -> None:
    async def check(channel: WorkerChannel) -> None:
        error = error_of(await collect(channel.run(make_task(sql))))
        assert type(error) is kind
        assert rows_of(await collect(channel.run(make_task("SELECT 1 AS one")))) == [{"one": 1}]

    use(check)


def test_missing_part(use: Use, part: PartRef) -> None:
    async def check(channel: WorkerChannel) -> None:
        gone = PartRef(part.digest, "p/gone.parquet", part.rows, part.bytes)
        error = error_of(
            await collect(channel.run(make_task("SELECT 1 AS n FROM t0", [TaskInput(name="t0", parts=(gone,), columns=())])))
        )
        assert isinstance(error, IntegrityError)
        assert error.retryable
        assert "p/gone.parquet" in str(error)

    use(check)


def test_result_limit(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        assert isinstance(error_of(await collect(channel.run(make_task(MANY_ROWS, result_bytes=1 << 20)))), QueryTooLargeError)

    use(check)


def test_deadline(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        began = time.monotonic()
        error = error_of(await collect(channel.run(make_task(ENDLESS, deadline_s=0.5))))
        assert isinstance(error, QueryTimeoutError)
        assert time.monotonic() - began < 2.0
        assert rows_of(await collect(channel.run(make_task("SELECT 1 AS one")))) == [{"one": 1}]

    use(check)


def test_progress_and_cancel(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        running = asyncio.create_task(collect(channel.run(make_task(ENDLESS, query="long"))))
        await asyncio.sleep(1.4)
        assert (await channel.status()).running == ("long/0/0",)
        began = time.monotonic()
        await channel.cancel(QueryId("long"))
        events = await running
        assert time.monotonic() - began < 1.5
        assert isinstance(error_of(events), QueryCancelledError)
        assert any(isinstance(e, Progress) for e in events)
        assert (await channel.status()).running == ()

    use(check)


def test_early_close_cancels(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        # One more than there are slots: none would be left if closing did not free them.
        for _ in range(3):
            events = channel.run(make_task(ENDLESS))
            await started(events)
            await events.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(3):
            assert rows_of(await collect(channel.run(make_task("SELECT 1 AS one")))) == [{"one": 1}]

    use(check)


def test_more_tasks_than_slots(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        sql = "SELECT count(*) AS n FROM range(3000000) WHERE range % 3 = 0"
        tasks = [make_task(sql, number=n, query=f"q{n % 3}") for n in range(20)]
        results = await asyncio.gather(*(collect(channel.run(task)) for task in tasks))
        assert all(rows_of(events) == [{"n": 1000000}] for events in results)
        assert [events[-1].task.number for events in results] == list(range(20))

    use(check)


def test_waiting_for_a_slot_is_not_silence(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        busy = [channel.run(make_task(ENDLESS, query="busy", number=n)) for n in range(2)]
        for events in busy:
            await started(events)
        waiting = asyncio.create_task(collect(channel.run(make_task("SELECT 1 AS one", query="patient"))))
        await asyncio.sleep(1.3)
        assert not waiting.done()
        await channel.cancel(QueryId("busy"))
        assert rows_of(await waiting) == [{"one": 1}]
        for events in busy:
            assert isinstance(error_of(await collect(events)), QueryCancelledError)

    use(check)


def test_scans_wait_for_their_turn_and_small_queries_do_not(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        assert (await channel.status()).ahead == 2
        running = channel.run(replace(make_task(ENDLESS, query="first"), is_scan=True))
        await started(running)
        second = asyncio.create_task(collect(channel.run(replace(make_task(ENDLESS, query="second"), is_scan=True))))
        third = asyncio.create_task(collect(channel.run(replace(make_task("SELECT 3 AS one", query="third"), is_scan=True))))
        left = channel.run(replace(make_task(ENDLESS, query="left"), is_scan=True))
        await asyncio.sleep(1.1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(left)
        await left.aclose()  # type: ignore[attr-defined]
        assert rows_of(await collect(channel.run(make_task("SELECT 1 AS one")))) == [{"one": 1}], "the other slot is free"
        await channel.cancel(QueryId("second"))
        ended = await second
        assert isinstance(error_of(ended), QueryCancelledError)
        assert not any(isinstance(event, Started) for event in ended)
        assert any(isinstance(event, Progress) for event in ended), "who waits says so"
        assert not third.done()
        await channel.cancel(QueryId("first"))
        assert rows_of(await third) == [{"one": 3}]
        assert isinstance(error_of(await collect(running)), QueryCancelledError)

    use(check)


def test_status(use: Use, store: Path) -> None:
    async def check(channel: WorkerChannel) -> None:
        status = await channel.status()
        assert (status.worker, status.protocol, status.slots, status.store) == ("w1", PROTOCOL_VERSION, 2, str(store))
        assert channel.worker == WorkerId("w1")

    use(check)


def test_closed_channel_is_a_lost_worker(use: Use) -> None:
    async def check(channel: WorkerChannel) -> None:
        await channel.close()
        assert isinstance(error_of(await collect(channel.run(make_task("SELECT 1 AS one")))), WorkerLostError)
        with pytest.raises(WorkerLostError):
            await channel.status()
        await channel.close()

    use(check)
