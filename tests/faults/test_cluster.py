"""Faults of a whole cluster: worker processes over gRPC that are killed, frozen and brought back under running queries.

Every query here ends with the exact answer, or with an error that says what is missing. Never with other rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.remote import RemoteClient
from qengine.coordinator.dispatch import DispatchSettings
from qengine.coordinator.schedule import Policy
from qengine.coordinator.service import QueryService
from qengine.errors import IntegrityError, QEngineError, RangesUnavailableError
from qengine.opening import open_store
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.cluster import service_settings
from tests.support.sized_store import LONG, LONG_ANSWER, LONG_WHERE, ROWS, make_store

pytestmark = pytest.mark.timeout(180)

STARS = "SELECT id, ra, dec, mag, name FROM sky.stars"
COUNT = "SELECT COUNT(*) AS n FROM sky.stars WHERE mag >= 0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("cluster"))


@contextmanager
def two_workers(store: Path) -> Iterator[list[WorkerProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(start_worker(store, worker=name)) for name in ("w0", "w1")]


@asynccontextmanager
async def served(store: Path, workers: list[WorkerProcess], *, patience_s: float = 1.0) -> AsyncIterator[QueryService]:
    """Queries of one task per tile over these workers; a query without workers waits `patience_s` for one."""
    settings = ClusterSettings(
        addresses=tuple(worker.address for worker in workers),
        dispatch=DispatchSettings(policy=Policy(patience_s=patience_s, pause_s=0.05)),
        service=replace(service_settings(1000), deadline_s=90.0),
    )
    async with cluster(store, settings) as service:
        yield service


async def rows(service: QueryService, text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await (await service.query(text)).to_table()).to_pylist()
    return found


async def running(worker: WorkerProcess) -> int:
    """How many attempts the worker has, as it says itself."""
    channel = GrpcChannel(worker.address)
    try:
        return len((await channel.status()).running)
    finally:
        await channel.close()


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    ends_at = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        await asyncio.sleep(0.02)


async def struck(
    service: QueryService, text: str, workers: list[WorkerProcess], strike: Callable[[], None]
) -> list[dict[str, Any]]:
    """Answer `text`; do `strike` when all `workers` run tasks of it."""
    answer = asyncio.create_task(rows(service, text))
    for worker in workers:
        await until(lambda worker=worker: running(worker))  # type: ignore[misc]
    assert not answer.done()
    strike()
    return await answer


def test_killed_workers_one_both_and_back(store: Path) -> None:
    async def check(first: WorkerProcess, second: WorkerProcess) -> None:
        async with served(store, [first, second]) as service:
            assert await struck(service, LONG, [first, second], second.kill) == LONG_ANSWER

            began = time.monotonic()
            with pytest.raises(RangesUnavailableError, match=r"sky\.stars on cells \d+ to \d+") as raised:
                await struck(service, LONG, [first], first.kill)
            assert time.monotonic() - began < 15
            assert not raised.value.retryable
            with pytest.raises(RangesUnavailableError, match=r"sky\.stars on cells"):
                await rows(service, COUNT)
            assert service.catalog().find("sky", "stars") is not None, "the coordinator goes on"

            again = WorkerSettings(store_root=store, listen=first.address)
            with start_worker(store, worker="w0", settings=again) as third:
                assert third.address == first.address
                await until(lambda: _answers(service))
                assert await rows(service, LONG) == LONG_ANSWER

    async def _answers(service: QueryService) -> bool:
        try:
            return await rows(service, COUNT) == [{"n": ROWS}]
        except RangesUnavailableError:
            return False

    with two_workers(store) as (first, second):
        asyncio.run(check(first, second))


def test_workers_that_die_are_started_again(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fronts() -> list[int]:
        found = []
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in map(int, children.read_text().split()):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found += [pid] if b"qengine.worker" in command else []
        return found

    async def check() -> None:
        async with cluster(store, ClusterSettings(workers=1)) as service:
            (state,) = service.workers()
            for _ in range(2):
                (front,) = fronts()
                os.kill(front, signal.SIGKILL)
                await until(lambda front=front: _is_another(front), 60.0)  # type: ignore[misc]
                assert await rows(service, COUNT) == [{"n": ROWS}]
                assert [one.worker for one in service.workers()] == [state.worker], "it is found where it was"

    async def _is_another(front: int) -> bool:
        return bool(fronts()) and front not in fronts()

    with caplog.at_level("WARNING", "qengine.worker"):
        asyncio.run(check())
    assert fronts() == []
    assert sum("is started again" in message for message in caplog.messages) == 2
    assert sum("runs again at" in message for message in caplog.messages) == 2


def test_frozen_worker_and_answers_that_nobody_waits_for(store: Path) -> None:
    async def check(first: WorkerProcess, second: WorkerProcess) -> None:
        workers = [first, second]
        async with served(store, workers, patience_s=10.0) as service:
            # Closed before it was read to its end.
            result = await service.query(STARS + f" WHERE {LONG_WHERE}")
            batch = await anext(result.batches)
            assert batch.num_rows
            await result.close()
            await until(lambda: _are_idle(workers), 4.0)

            # The reader is cancelled.
            reading = asyncio.create_task(rows(service, LONG))
            for worker in workers:
                await until(lambda worker=worker: running(worker))  # type: ignore[misc]
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await until(lambda: _are_idle(workers), 4.0)

            # The reader stops half way and forgets the result.
            async for batch in (await service.query(f"SELECT id FROM sky.stars WHERE {LONG_WHERE}", maxrec=10)).batches:
                assert batch.num_rows == 10
            await until(lambda: _are_idle(workers), 4.0)

            # One worker freezes, and comes back.
            began = time.monotonic()
            freeze = lambda: second.process.send_signal(signal.SIGSTOP)  # noqa: E731
            try:
                assert await struck(service, LONG, workers, freeze) == LONG_ANSWER
            finally:
                second.process.send_signal(signal.SIGCONT)
            assert time.monotonic() - began < 30
            assert await rows(service, LONG) == LONG_ANSWER
            await until(lambda: _are_idle(workers), 4.0)

    async def _are_idle(workers: list[WorkerProcess]) -> bool:
        return not sum([await running(worker) for worker in workers])

    with two_workers(store) as (first, second):
        asyncio.run(check(first, second))


def damage(kind: str, path: Path) -> None:
    """Change a part in place; each kind leaves another trace."""
    content = bytearray(path.read_bytes())
    match kind:
        case "a byte of the data":
            content[len(content) // 3] ^= 1
        case "a byte of the footer":
            content[-200] ^= 1
        case "cut":
            del content[-100:]
        case "longer":
            content += b"\0"
        case "other rows":
            table = pq.read_table(path)
            pq.write_table(table.slice(1), path)
            return
        case "gone":
            path.unlink()
            return
    path.write_bytes(content)


DAMAGES = ("a byte of the data", "a byte of the footer", "cut", "longer", "other rows", "gone")


def test_corrupt_parts_are_named_and_never_read(store: Path, tmp_path: Path) -> None:
    """Six parts, each with another damage: queries that need one of them name it; queries that need none are answered."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    files, registry = open_store(copy)
    with registry:
        snapshot = registry.catalog().find("sky", "stars")
    assert snapshot is not None
    bad: dict[str, int] = {}
    lost: list[int] = []
    uris = snapshot.home.uri.to_pylist()
    for number, kind in enumerate(DAMAGES):
        uri = uris[5 * number]
        ids = pq.read_table(files.path(uri), columns=["id"])["id"].to_pylist()
        bad[uri] = ids[0]
        lost += ids
        damage(kind, files.path(uri))
    good_id = int(pq.read_table(files.path(uris[3]), columns=["id"])["id"][0].as_py())

    async def collect(service: QueryService, seen: list[int]) -> None:
        async for batch in (await service.query("SELECT id FROM sky.stars WHERE mag > -1")).batches:
            seen += batch["id"].to_pylist()

    async def check(worker: WorkerProcess) -> None:
        async with served(copy, [worker]) as service:
            for uri, key in [*bad.items(), *bad.items()]:  # a second try must not take the part for verified
                with pytest.raises(IntegrityError, match=re.escape(Path(uri).name)):
                    await rows(service, f"SELECT id, mag FROM sky.stars WHERE id = {key}")
            seen: list[int] = []
            with pytest.raises(IntegrityError):
                await collect(service, seen)
            assert len(set(seen)) == len(seen)
            assert not set(seen) & set(lost), "rows before the error are rows of good parts"
            assert await rows(service, f"SELECT id FROM sky.stars WHERE id = {good_id}") == [{"id": good_id}]

    with start_worker(copy) as worker:
        asyncio.run(check(worker))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_workers_that_die_at_any_moment(store: Path, seed: int) -> None:
    """Two workers behind fixed addresses; again and again one is killed and started anew. Answers are exact or an error."""
    rng = np.random.default_rng(seed)

    async def check(workers: list[WorkerProcess], stack: contextlib.ExitStack) -> None:
        async with served(store, workers, patience_s=20.0) as service:
            for _ in range(5):
                victim = int(rng.integers(2))
                answers = [asyncio.create_task(rows(service, LONG)) for _ in range(2)]
                await asyncio.sleep(float(rng.uniform(0, 1.5)))
                workers[victim].kill()
                settings = WorkerSettings(store_root=store, listen=workers[victim].address)
                workers[victim] = await asyncio.to_thread(
                    stack.enter_context, start_worker(store, worker=f"w{victim}", settings=settings)
                )
                for answer in answers:
                    assert await answer == LONG_ANSWER

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(start_worker(store, worker=f"w{number}")) for number in range(2)]
        asyncio.run(check(workers, stack))


@pytest.mark.slow
def test_killed_service_leaves_no_processes_and_readers_are_told(store: Path) -> None:
    command = [sys.executable, "-m", "qengine.cli", "serve", "--store", str(store), "--workers", "2", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://\S+/tap", process.stderr.readline())
        assert found is not None
        family = _descendants(process.pid)
        assert len(family) >= 4, "two workers with a slot each"
        with RemoteClient(found[0]) as client:
            result = client.query(f"SELECT id, ra, dec, mag, name FROM sky.stars WHERE {LONG_WHERE}")
            batches = iter(result)
            next(batches)
            process.kill()
            with pytest.raises(QEngineError, match="rows are missing"):
                for _ in batches:
                    pass
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    ends_at = time.monotonic() + 15
    while any(_is_alive(pid) for pid in family):
        assert time.monotonic() < ends_at, "workers outlive their coordinator"
        time.sleep(0.05)


def _parent(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def _descendants(root: int) -> set[int]:
    family = {root}
    while True:
        more = {int(p.name) for p in Path("/proc").glob("[0-9]*") if _parent(int(p.name)) in family} - family
        if not more:
            return family - {root}
        family |= more


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
