"""Faults of one worker process: slots that die, hang or grow, a front that is killed, a parent that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from qengine.errors import (
    BugError,
    IntegrityError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
    WorkerLostError,
)
from qengine.plan.physical import Failed, Finished, QueryId, Started, Task, TaskEvent, TaskInput
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.tasks import collect, error_of, make_task, rows_of, write_part

ENDLESS = "SELECT sum(a.range * b.range) AS s FROM range(10000000) a, range(10000000) b"
# A scalar function that DuckDB does not interrupt: minutes in one call.
STUBBORN = "SELECT sum(levenshtein(repeat('ab', 30000 + range::INTEGER), repeat('ba', 30000))) AS d FROM range(100)"
ONE = "SELECT 1 AS one"

Check = Callable[[GrpcChannel], Coroutine[Any, Any, None]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture
def worker(store: Path) -> Iterator[WorkerProcess]:
    with start_worker(store, worker="w1", slots=1) as started:
        yield started


def against(worker: WorkerProcess, check: Check, **settings: Any) -> None:
    async def checked() -> None:
        channel = GrpcChannel(worker.address, worker="w1", **settings)
        try:
            await check(channel)
        finally:
            await channel.close()

    asyncio.run(checked())


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_slots(worker: WorkerProcess) -> None:
    for pid in children_of(worker.pid):
        os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.02)


async def run_and_strike(channel: GrpcChannel, task: Task, strike: Callable[[], None]) -> list[TaskEvent]:
    """Run a task, and do `strike` once it has started."""
    events: list[TaskEvent] = []
    async for event in channel.run(task):
        if isinstance(event, Started):
            await asyncio.to_thread(strike)
        events.append(event)
    return events


def test_killed_slots_are_a_lost_worker_and_replaced(shared_worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        error = error_of(await run_and_strike(channel, make_task(ENDLESS, query="hit"), lambda: kill_slots(shared_worker)))
        assert isinstance(error, WorkerLostError)
        assert error.retryable
        assert "SIGKILL" in str(error)
        assert rows_of(await collect(channel.run(make_task(ONE, query="hit", attempt=1)))) == [{"one": 1}]

    against(shared_worker, check)
    wait_until(lambda: len(children_of(shared_worker.pid)) == 2)


def test_query_that_kills_two_slots_is_refused(shared_worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        def strike() -> None:
            kill_slots(shared_worker)

        first = error_of(await run_and_strike(channel, make_task(ENDLESS, query="poison"), strike))
        second = error_of(await run_and_strike(channel, make_task(ENDLESS, query="poison", attempt=1), strike))
        third = await collect(channel.run(make_task(ENDLESS, query="poison", attempt=2)))
        assert isinstance(first, WorkerLostError)
        assert isinstance(second, QueryTooLargeError)
        assert not second.retryable
        assert [type(e) for e in third] == [Failed]
        assert isinstance(error_of(third), QueryTooLargeError)
        assert rows_of(await collect(channel.run(make_task(ONE, query="innocent")))) == [{"one": 1}]

    against(shared_worker, check)


def test_stubborn_function_ends_two_seconds_after_its_deadline(shared_worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        began = time.monotonic()
        error = error_of(await collect(channel.run(make_task(STUBBORN, deadline_s=0.5))))
        assert isinstance(error, QueryTimeoutError)
        assert 0.5 <= time.monotonic() - began < 5.0
        assert rows_of(await collect(channel.run(make_task(ONE)))) == [{"one": 1}]

    against(shared_worker, check)


def test_stubborn_function_ends_two_seconds_after_cancel(shared_worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        running = asyncio.create_task(collect(channel.run(make_task(STUBBORN, query="stubborn"))))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await channel.cancel(QueryId("stubborn"))
        assert isinstance(error_of(await running), QueryCancelledError)
        assert time.monotonic() - began < 5.0
        assert rows_of(await collect(channel.run(make_task(ONE)))) == [{"one": 1}]

    against(shared_worker, check)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT length(repeat('x', 2000000000)) AS n",
        "SELECT repeat('x', 2000000000) AS n",
        "SELECT len(range(2000000000)) AS n",
        "SELECT length(lpad('a', 2000000000, 'b')) AS n",
    ],
)
def test_memory_bomb_ends_and_the_worker_lives(shared_worker: WorkerProcess, sql: str) -> None:
    async def check(channel: GrpcChannel) -> None:
        began = time.monotonic()
        error = error_of(await collect(channel.run(make_task(sql, deadline_s=1))))
        assert isinstance(error, QueryTooLargeError | QueryTimeoutError | WorkerLostError), error
        assert time.monotonic() - began < 5.0
        assert rows_of(await collect(channel.run(make_task(ONE)))) == [{"one": 1}]

    against(shared_worker, check)
    assert shared_worker.process.poll() is None


def test_killed_front_is_noticed_and_leaves_no_children(worker: WorkerProcess) -> None:
    wait_until(lambda: len(children_of(worker.pid)) == 2)
    slots = children_of(worker.pid)

    async def check(channel: GrpcChannel) -> None:
        began = time.monotonic()
        error = error_of(await run_and_strike(channel, make_task(ENDLESS), worker.kill))
        assert isinstance(error, WorkerLostError)
        assert time.monotonic() - began < 3.0
        assert isinstance(error_of(await collect(channel.run(make_task(ONE)))), WorkerLostError)
        with pytest.raises(WorkerLostError):
            await channel.status()

    against(worker, check)
    wait_until(lambda: not any(is_alive(pid) for pid in slots), 3.0)


def test_frozen_worker_is_silent(worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        began = time.monotonic()
        error = error_of(await run_and_strike(channel, make_task(ENDLESS), lambda: worker.process.send_signal(signal.SIGSTOP)))
        assert isinstance(error, WorkerLostError)
        assert time.monotonic() - began < 4.0
        worker.process.send_signal(signal.SIGCONT)

    against(worker, check, idle_s=2.0)


def test_front_ends_with_the_process_that_started_it(store: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom qengine.worker.supervise import start_worker\n"
        f"with start_worker(Path({str(store)!r})) as worker:\n    print(worker.pid, flush=True)\n    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    front = int(owner.stdout.readline())
    wait_until(lambda: len(children_of(front)) == 2)
    processes = [front, *children_of(front)]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not any(is_alive(pid) for pid in processes), 5.0)


def test_sigterm_drains(worker: WorkerProcess) -> None:
    async def check(channel: GrpcChannel) -> None:
        sql = "SELECT count(*) AS n FROM range(200000000) WHERE range % 7 = 3"
        events = await run_and_strike(channel, make_task(sql), lambda: worker.process.send_signal(signal.SIGTERM))
        assert isinstance(events[-1], Finished)
        assert await asyncio.to_thread(worker.process.wait, 10) == 0

    against(worker, check)


def test_broken_start_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerLostError), start_worker(tmp_path / "nowhere"):
        pass
    assert "there is no store at" in capfd.readouterr().err


def test_corrupt_part_is_an_error_of_the_data(shared_worker: WorkerProcess, shared_store: Path) -> None:
    rows = pa.table({"_healpix_29": pa.array(range(5000), pa.int64()), "a": [i * 0.5 for i in range(5000)]})
    part = write_part(shared_store, "p/bad.parquet", rows)
    data = bytearray((shared_store / part.uri).read_bytes())
    data[len(data) // 3] ^= 1
    (shared_store / part.uri).write_bytes(data)

    async def check(channel: GrpcChannel) -> None:
        task = make_task("SELECT sum(a) AS s FROM t0", [TaskInput(name="t0", parts=(part,), columns=("a",))])
        error = error_of(await collect(channel.run(task)))
        assert isinstance(error, IntegrityError)
        assert error.retryable

    against(shared_worker, check)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 2 AS a) TO '{store}/p/one.parquet' (FORMAT parquet)",
        "ATTACH '{store}/new.db'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('{store}/../secret.csv')",
        "SELECT * FROM glob('/etc/*')",
        "SET lock_configuration = false",
        "INSTALL httpfs",
        "PRAGMA database_list; SELECT 1",
        "SELECT 1) TO '{store}/x.csv'; SELECT (1",
        "CREATE TABLE t AS SELECT 1",
        "EXPORT DATABASE '{store}/out'",
        "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
    ],
)
def test_engine_reads_only_the_store_and_writes_nothing(shared_worker: WorkerProcess, shared_store: Path, sql: str) -> None:
    (shared_store.parent / "secret.csv").write_text("a\n1\n")
    before = sorted((str(p), p.read_bytes() if p.is_file() else b"") for p in shared_store.rglob("*"))

    async def check(channel: GrpcChannel) -> None:
        error = error_of(await collect(channel.run(make_task(sql.format(store=shared_store)))))
        assert isinstance(error, BugError | IntegrityError), error

    against(shared_worker, check)
    assert sorted((str(p), p.read_bytes() if p.is_file() else b"") for p in shared_store.rglob("*")) == before


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared") / "store"
    root.mkdir()
    write_part(root, "p/one.parquet", pa.table({"a": [1, 2, 3]}))
    return root


@pytest.fixture(scope="module")
def shared_worker(shared_store: Path) -> Iterator[WorkerProcess]:
    settings = WorkerSettings(store_root=shared_store, memory_bytes=512 << 20)
    with start_worker(shared_store, worker="w1", slots=1, settings=settings) as started:
        yield started
