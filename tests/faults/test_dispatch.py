"""The dispatcher on a real event loop, over workers that fail in every way the script allows. Each test counts rows: exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.coordinator.attempt import RunSettings
from qengine.coordinator.dispatch import Dispatcher, DispatchSettings
from qengine.coordinator.lanes import Lane
from qengine.coordinator.report import RunProgress
from qengine.coordinator.run import Run
from qengine.coordinator.schedule import Policy
from qengine.coordinator.watch import Health, WatchSettings
from qengine.errors import (
    BugError,
    ClusterError,
    ExecutionError,
    PoisonTaskError,
    ProtocolError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    RangesUnavailableError,
    WorkerLostError,
)
from qengine.plan.physical import Batch, Failed, Finished, QueryId, Task, TaskId, TaskLimits, TaskStats
from tests.support.fake_channel import (
    Fail,
    FakeChannel,
    Hang,
    Lie,
    Rows,
    Send,
    Spool,
    Step,
    Until,
    Vanish,
    Wait,
    source,
)

Q = QueryId("q")

FAST = DispatchSettings(
    policy=Policy(pause_s=0.02, patience_s=0.3, straggler_min_s=0.2),
    run=RunSettings(silence_s=0.4, stop_s=0.5),
    watch=WatchSettings(heartbeat_s=0.05, lease_s=0.3, reconnect_min_s=0.02, reconnect_max_s=0.1),
    tick_s=0.02,
)


def go(work: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(bounded())


async def read(run: Run) -> Counter[tuple[int, int]]:
    """All rows as (task, row number); each must come once."""
    rows: Counter[tuple[int, int]] = Counter()
    async for batch in run:
        rows.update(zip(batch["task"].to_pylist(), batch["row"].to_pylist(), strict=True))
    assert all(count == 1 for count in rows.values()), "rows counted twice"
    return rows


def every_row(tasks: int, rows: int = 1) -> set[tuple[int, int]]:
    return {(task, row) for task in range(tasks) for row in range(rows)}


def attempts_of(channel: FakeChannel) -> list[tuple[int, int]]:
    return [(number, attempt) for _, number, attempt in channel.runs]


async def until(test: object, *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not test():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_all_rows_of_all_tasks_once() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, script=lambda task: (Rows(2), Rows(3))) for name in "abc"]
        async with Dispatcher(channels, epoch=7, settings=FAST) as dispatcher:
            assert dispatcher.slots == 3, "one slot of each worker is kept for small queries"
            seen: list[RunProgress] = []
            run = dispatcher.run(source(50), query=Q, on_progress=seen.append)
            assert set(await read(run)) == every_row(50, 5)
        assert all(channel.runs for channel in channels), "work is spread"
        assert all(channel.most_running <= 2 for channel in channels), "no more than its slots"
        assert all(task.epoch == 7 and task.attempt == 1 for channel in channels for task in channel.tasks)
        assert all(not channel.cancelled for channel in channels), "a query that ended well needs no cancel"
        report = run.report
        assert (report.task_count, report.attempts, report.retries, report.rows) == (50, 50, 0, 250)
        assert sum(worker.rows for worker in report.workers) == 250
        assert report.input_bytes == 50_000
        assert seen[-1].finished == 50
        assert seen[-1].fraction == 1.0
        assert all(channel.is_closed for channel in channels)

    go(work())


def test_no_tasks_no_rows() -> None:
    async def work() -> None:
        async with Dispatcher([FakeChannel("a")], epoch=1, settings=FAST) as dispatcher:
            assert not await read(dispatcher.run(source(0), query=Q))

    go(work())


def test_a_retryable_failure_runs_elsewhere() -> None:
    async def work() -> None:
        def script(task: Task) -> Sequence[Step]:
            return (Rows(3), Fail(ClusterError("disk fell off"))) if task.attempt == 1 else (Rows(3),)

        channels = [FakeChannel("a", script), FakeChannel("b", script)]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(10), query=Q)
            assert set(await read(run)) == every_row(10, 3)
        first = {number: c.name for c in channels for number, attempt in attempts_of(c) if attempt == 1}
        second = {number: c.name for c in channels for number, attempt in attempts_of(c) if attempt == 2}
        assert all(first[number] != second[number] for number in range(10))
        assert run.report.retries == 10
        assert sum(worker.failures for worker in run.report.workers) == 10

    go(work())


@pytest.mark.parametrize(
    ("ending", "reason"),
    [((Rows(2), Vanish()), "without a result"), ((Rows(2), Lie(3)), "2 arrived"), ((Rows(2), Lie(1)), "2 arrived")],
)
def test_incomplete_results_do_not_count(ending: tuple[Step, ...], reason: str) -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: ending if task.attempt == 1 else (Rows(2),)) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            assert set(await read(dispatcher.run(source(6), query=Q))) == every_row(6, 2)
        channels = [FakeChannel(name, lambda task: ending) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(QEngineError, match=reason):
                await read(dispatcher.run(source(1), query=Q))

    go(work())


def test_a_user_error_ends_the_query_and_reaches_every_worker() -> None:
    async def work() -> None:
        def script(task: Task) -> Sequence[Step]:
            return (Wait(0.05), Fail(ExecutionError("overflow"))) if task.id.number == 3 else (Hang(),)

        channels = [FakeChannel("a", script), FakeChannel("b", script)]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(ExecutionError, match="overflow"):
                await read(dispatcher.run(source(4), query=Q))
            assert [channel.running for channel in channels] == [0, 0]
            assert [channel.cancelled for channel in channels] == [[Q], [Q]]
            # The slots are free again.
            for channel in channels:
                channel.script = lambda task: (Rows(1),)
            assert set(await read(dispatcher.run(source(9), query=Q))) == every_row(9)

    go(work())


def test_events_of_old_attempts_and_epochs_are_ignored_and_of_newer_epochs_refused() -> None:
    async def work() -> None:
        def stale(task: Task) -> Sequence[Step]:
            batch = pa.record_batch({"task": [task.id.number], "attempt": [0], "row": [-1]})
            other = TaskId(Q, 0, task.id.number + 1)
            stats = TaskStats(rows=9, result_bytes=0, input_bytes=0, elapsed_s=0, cpu_s=0)
            return (
                Send(Batch(task=task.id, attempt=task.attempt, epoch=task.epoch - 1, rows=batch)),
                Send(Batch(task=task.id, attempt=task.attempt + 1, epoch=task.epoch, rows=batch)),
                Send(Batch(task=other, attempt=task.attempt, epoch=task.epoch, rows=batch)),
                Send(Finished(task=task.id, attempt=task.attempt, epoch=task.epoch - 1, stats=stats)),
                Send(Failed(task=task.id, attempt=task.attempt - 1, epoch=task.epoch, error=ExecutionError("late"))),
                Rows(2),
            )

        async with Dispatcher([FakeChannel("a", stale)], epoch=5, settings=FAST) as dispatcher:
            run = dispatcher.run(source(3), query=Q)
            assert set(await read(run)) == every_row(3, 2)
            assert run.report.stale == 15

        def newer(task: Task) -> Sequence[Step]:
            return (Send(Failed(task=task.id, attempt=1, epoch=6, error=ClusterError("fenced"))),)

        async with Dispatcher([FakeChannel("a", newer)], epoch=5, settings=FAST) as dispatcher:
            with pytest.raises(ProtocolError, match="epoch 6"):
                await read(dispatcher.run(source(3), query=Q))

    go(work())


def test_a_hanging_attempt_is_lost_and_runs_elsewhere() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1), Hang()) if task.attempt == 1 else (Rows(1),)) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(1), query=Q)
            assert set(await read(run)) == every_row(1)
            assert run.report.attempts == 2
            assert 0.35 < run.report.elapsed_s < 2
            assert [channel.running for channel in channels] == [0, 0], "the hanging attempt was stopped on its worker"

    go(work())


def test_signs_of_life_keep_a_slow_attempt() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (*(Wait(0.2),) * 5, Rows(1))) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(1), query=Q)
            assert set(await read(run)) == every_row(1)
            assert run.report.attempts == 1

    go(work())


def test_poison_ends_the_query_after_two_deaths() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1), Fail(WorkerLostError("slot died")))) for name in "abc"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(PoisonTaskError, match="range 0"):
                await read(dispatcher.run(source(1), query=Q))
            assert sum(len(channel.runs) for channel in channels) == 2

    go(work())


def test_a_worker_killed_in_a_scan() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1), Wait(0.02), Rows(1))) for name in "abc"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            reading = asyncio.create_task(read(dispatcher.run(source(60), query=Q)))
            await until(lambda: len(channels[1].runs) >= 4)
            channels[1].kill()
            assert set(await reading) == every_row(60, 2)
            await until(lambda: dispatcher.workers[1].health is Health.LOST)
            assert dispatcher.slots == 2
            channels[1].revive()
            await until(lambda: dispatcher.workers[1].health is Health.ALIVE)
            before = len(channels[1].runs)
            assert set(await read(dispatcher.run(source(60), query=Q))) == every_row(60, 2)
            assert len(channels[1].runs) > before, "a worker that came back gets work"

    go(work())


def test_a_silent_worker_is_lost_by_its_heartbeat() -> None:
    async def work() -> None:
        settings = replace(
            FAST, run=RunSettings(silence_s=60, start_s=60, stop_s=0.2), policy=replace(FAST.policy, straggler_min_s=60)
        )
        channels = [FakeChannel(name, lambda task: (Wait(0.01), Rows(1))) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
            channels[0].is_hung = True
            assert set(await read(dispatcher.run(source(20), query=Q))) == every_row(20)
            assert dispatcher.workers[0].health is Health.LOST

    go(work())


def test_all_workers_lost_names_the_ranges() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1), Hang())) for name in "ab"]
        settings = replace(FAST, policy=replace(FAST.policy, max_deaths=9))
        async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
            reading = asyncio.create_task(read(dispatcher.run(source(3), query=Q)))
            await until(lambda: sum(channel.running for channel in channels) == 3)
            for channel in channels:
                channel.kill()
            with pytest.raises(RangesUnavailableError, match="range 0, range 1, range 2"):
                await reading
        dead = FakeChannel("a", is_dead=True)
        async with Dispatcher([dead], epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(RangesUnavailableError, match="range 0"):
                await read(dispatcher.run(source(1), query=Q))
            dead.revive()
            await until(lambda: dispatcher.slots == 1)
            assert set(await read(dispatcher.run(source(1), query=Q))) == every_row(1)

    go(work())


def test_spooled_results_are_fetched_and_a_broken_fetch_runs_again() -> None:
    async def work() -> None:
        def script(task: Task) -> Sequence[Step]:
            breaks_after = 2 if task.attempt == 1 and task.id.number % 2 else None
            return (Rows(1), Spool(4, breaks_after=breaks_after))

        channels = [FakeChannel(name, script) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(6), query=Q)
            assert set(await read(run)) == every_row(6, 4)
            assert run.report.retries == 3
            assert all(task.is_spooled for task in run.report.tasks)
            assert not any(channel.spools for channel in channels)

    go(work())


def test_rows_beyond_the_hold_go_through_disk(tmp_path: Path) -> None:
    async def work() -> None:
        settings = replace(FAST, run=replace(FAST.run, temp_dir=tmp_path, queue_bytes=50_000))
        channels = [FakeChannel(name, lambda task: [Rows(10, width=1000)] * 2) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
            run = dispatcher.run(source(12), query=Q, limits=TaskLimits(hold_bytes=5000))
            assert set(await read(run)) == every_row(12, 20)
        assert not list(tmp_path.iterdir())

    go(work())


def test_a_slow_reader_stops_new_attempts_and_loses_nothing() -> None:
    async def work() -> None:
        settings = replace(FAST, run=replace(FAST.run, queue_bytes=30_000))
        channels = [FakeChannel(name, lambda task: (Rows(10, width=1000),)) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
            run = dispatcher.run(source(60), query=Q)
            await anext(run)
            await asyncio.sleep(0.1)
            started = sum(len(channel.runs) for channel in channels)
            assert started <= 10, "at most what the queue takes and the slots hold"
            other = dispatcher.run(source(20, query="r"), query=QueryId("r"))
            assert set(await read(other)) == every_row(20, 10), "others go on meanwhile"
            rows = await read(run)
            assert len(rows) == 60 * 10 - 10

    go(work())


def test_leaving_early_stops_everything_everywhere() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1),) if task.id.number == 0 else (Rows(1), Hang())) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(30), query=Q)
            await anext(run)
            await until(lambda: [channel.running for channel in channels] == [1, 1])
            await run.aclose()
            assert [channel.running for channel in channels] == [0, 0]
            assert [channel.cancelled for channel in channels] == [[Q], [Q]]
            with pytest.raises(StopAsyncIteration):
                await anext(run)
            await run.aclose()

    go(work())


def test_a_cancelled_reader_and_a_cancelled_query() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Rows(1), Hang())) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            reading = asyncio.create_task(read(dispatcher.run(source(4), query=Q)))
            await until(lambda: [channel.running for channel in channels] == [2, 2])
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert [channel.running for channel in channels] == [0, 0]
            assert [channel.cancelled for channel in channels] == [[Q], [Q]]

            reading = asyncio.create_task(read(dispatcher.run(source(4), query=Q)))
            await until(lambda: [channel.running for channel in channels] == [2, 2])
            await dispatcher.cancel(Q)
            with pytest.raises(QueryCancelledError):
                await reading
            assert [channel.running for channel in channels] == [0, 0]

            run = dispatcher.run(source(4), query=Q)
            run.cancel()
            with pytest.raises(QueryCancelledError):
                await read(run)

    go(work())


def test_a_limit_starts_few_tasks_and_cuts_exactly() -> None:
    async def work() -> None:
        channels = [FakeChannel(name, lambda task: (Wait(0.01), Rows(4))) for name in "abcdef"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(1000), query=Q, row_limit=6)
            assert len(await read(run)) == 6
            assert sum(len(channel.runs) for channel in channels) <= 6
            assert run.report.is_limit_met
            assert sum(channel.running for channel in channels) == 0
            assert len(await read(dispatcher.run(source(3), query=Q, row_limit=12))) == 12
            assert len(await read(dispatcher.run(source(3), query=Q, row_limit=100))) == 12
            assert not await read(dispatcher.run(source(3), query=Q, row_limit=0))

    go(work())


def test_a_straggler_runs_twice() -> None:
    async def work() -> None:
        def script(task: Task) -> Sequence[Step]:
            return (*(Wait(0.1),) * 100, Rows(1)) if task.id.number == 5 and task.attempt == 1 else (Rows(1),)

        channels = [FakeChannel(name, script) for name in "ab"]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            run = dispatcher.run(source(8), query=Q)
            assert set(await read(run)) == every_row(8)
            assert run.report.backups == 1
            assert run.report.elapsed_s < 2
            assert sum(channel.running for channel in channels) == 0
            assert [key for channel in channels for key in channel.closed] == [(5, 1)]

    go(work())


def test_the_deadline_of_a_query() -> None:
    async def work() -> None:
        channels = [FakeChannel("a", lambda task: [Wait(0.1)] * 100)]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(QueryTimeoutError, match="0 of 2 tasks"):
                await read(dispatcher.run(source(2), query=Q, limits=TaskLimits(deadline_s=0.3)))
            assert channels[0].running == 0
            assert all(task.limits.deadline_s <= 0.3 for task in channels[0].tasks)

    go(work())


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_an_interactive_query_never_waits_behind_scans(slots: int) -> None:
    async def work() -> None:
        gate = asyncio.Event()
        channels = [
            FakeChannel(name, lambda task: (Until(gate), Rows(1)) if task.id.query != "i" else (Rows(1),), slots) for name in "ab"
        ]
        settings = replace(FAST, run=replace(FAST.run, silence_s=60))
        async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
            scans = [dispatcher.run(source(50, query=f"s{n}"), query=QueryId(f"s{n}")) for n in range(3)]
            reading = [asyncio.create_task(read(scan)) for scan in scans]
            await until(lambda: sum(channel.running for channel in channels) == 2 * max(1, slots - 1))
            quick = dispatcher.run(source(3, query="i"), query=QueryId("i"))
            async with asyncio.timeout(0.5):
                assert set(await read(quick)) == every_row(3)
            assert quick.report.lane == "interactive"
            assert scans[0].report.lane == "scan"
            assert all(channel.most_running <= max(2, slots) for channel in channels)
            gate.set()
            for scan in reading:
                assert set(await scan) == every_row(50)

    go(work())


def test_scans_take_turns() -> None:
    async def work() -> None:
        channels = [FakeChannel("a", lambda task: (Wait(0.005), Rows(1)), slots=1)]
        async with Dispatcher(channels, epoch=1, settings=FAST) as dispatcher:
            runs = [dispatcher.run(source(20, query=name), query=QueryId(name)) for name in "xyz"]
            await asyncio.gather(*(read(run) for run in runs))
        order = [query for query, _, _ in channels[0].runs]
        for end in range(9, 60, 3):
            counts = Counter(order[:end])
            assert max(counts.values()) - min(counts.values()) <= 2

    go(work())


def test_a_long_interactive_query_moves_to_the_scan_lane() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        channel = FakeChannel("a", lambda task: (Until(gate), Rows(1)) if task.id.query == "q" else (Rows(1),), slots=2)
        settings = replace(FAST, demote_after_s=0.1, run=replace(FAST.run, silence_s=60))
        async with Dispatcher([channel], epoch=1, settings=settings) as dispatcher:
            slow = dispatcher.run(source(4), query=Q, lane=Lane.INTERACTIVE)
            reading = asyncio.create_task(read(slow))
            await until(lambda: slow.report.lane == "scan")
            gate.set()
            assert set(await reading) == every_row(4)

    go(work())


def test_bugs_of_a_channel_or_a_task_maker_end_the_query() -> None:
    async def work() -> None:
        def broken(task: Task) -> Sequence[Step]:
            raise ZeroDivisionError("in the channel")

        async with Dispatcher([FakeChannel("a", broken)], epoch=1, settings=FAST) as dispatcher:
            with pytest.raises(BugError, match="in the channel"):
                await read(dispatcher.run(source(3), query=Q))

            def maker(number: int) -> Task:
                raise KeyError("no such part")

            with pytest.raises(BugError, match="no such part"):
                await read(dispatcher.run(replace(source(3), make=maker), query=Q))

            def shout(progress: RunProgress) -> None:
                raise ValueError("listener fell over")

            dispatcher_channel = FakeChannel("b")
        async with Dispatcher([dispatcher_channel], epoch=1, settings=replace(FAST, tick_s=60)) as dispatcher:
            with pytest.raises(BugError, match="listener fell over"):
                await read(dispatcher.run(source(3), query=Q, on_progress=shout))

    go(work())


def test_a_dispatcher_that_is_not_running_refuses() -> None:
    async def work() -> None:
        dispatcher = Dispatcher([FakeChannel("a")], epoch=1, settings=FAST)
        with pytest.raises(BugError, match="not been started"):
            await read(dispatcher.run(source(3), query=Q))
        with pytest.raises(BugError, match="2 channels to 1"):
            Dispatcher([FakeChannel("a"), FakeChannel("a")], epoch=1)

    go(work())


def test_closing_the_dispatcher_ends_running_queries() -> None:
    async def work() -> None:
        channel = FakeChannel("a", lambda task: (Hang(),))
        dispatcher = Dispatcher([channel], epoch=1, settings=FAST)
        await dispatcher.start()
        reading = asyncio.create_task(read(dispatcher.run(source(3), query=Q)))
        await until(lambda: channel.running == 1)
        await dispatcher.close()
        with pytest.raises(QueryCancelledError):
            await reading
        assert channel.running == 0
        assert channel.is_closed
        assert len(asyncio.all_tasks()) <= 2, "nothing is left behind"

    go(work())


def test_random_failures_never_lose_or_double_a_row() -> None:
    async def work() -> None:
        for seed in range(20):

            def script(task: Task, seed: int = seed) -> Sequence[Step]:
                dice = hash((seed, task.id.number, task.attempt)) % 11
                if task.attempt > 2:
                    return (Rows(2),)
                return (
                    (Rows(1), Fail(ClusterError("x"))),
                    (Rows(2), Vanish()),
                    (Spool(2, breaks_after=1),),
                    (Lie(3),),
                    (Spool(2),),
                    (Wait(0.001), Rows(2)),
                    (Rows(1), Wait(0.002), Rows(1)),
                    (Rows(2),),
                    (Rows(2),),
                    (Rows(2),),
                    (Rows(2),),
                )[dice]

            settings = replace(FAST, policy=replace(FAST.policy, max_deaths=9, pause_s=0.001, straggler_min_s=0.001))
            channels = [FakeChannel(name, script, slots=1 + seed % 3) for name in "abc"]
            async with Dispatcher(channels, epoch=1, settings=settings) as dispatcher:
                assert set(await read(dispatcher.run(source(25), query=Q))) == every_row(25, 2)
            assert not any(channel.spools for channel in channels)

    go(work())
