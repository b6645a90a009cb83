"""Faults of an exchange: workers that die with their partitions, partitions that are damaged, deleted, or lost again and again.

Every query ends with the rows of one database or with an error, and leaves nothing on any worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.coordinator.dispatch import DispatchSettings
from qengine.coordinator.schedule import Policy
from qengine.coordinator.service import ServiceSettings
from qengine.errors import QEngineError, RangesUnavailableError, RelationMissingError
from qengine.plan.physical import Failed, Finished, Task, TaskEvent, WorkerId, partition_of
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.settings import WorkerSettings
from qengine.worker.supervise import WorkerProcess, start_worker
from tests.support.cluster import NO_BROADCASTS, service_settings
from tests.support.exchange_store import bare, load_tables, tables
from tests.support.wrapped_channel import WrappedChannel

pytestmark = pytest.mark.timeout(120)

GROUPS = "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM one.stars GROUP BY k"
JOIN = "SELECT a.id, b.sid FROM one.stars AS a FULL JOIN two.spots AS b ON a.k = b.k"

MIXED = 32_000
"""A threshold between the sizes of the tasks of these statements."""

Hook = Callable[[WorkerId, Task], object]


@pytest.fixture(scope="module")
def found() -> dict[str, pa.Table]:
    return tables(2000, seed=8)


@pytest.fixture(scope="module")
def store(found: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_tables(tmp_path_factory.mktemp("exchange"), found, rows_per_tile=250)


@pytest.fixture(scope="module")
def truth(found: dict[str, pa.Table]) -> dict[str, list[str]]:
    connection: duckdb.DuckDBPyConnection = bare(found)
    return {text: rows_of(connection.execute(text).to_arrow_table()) for text in (GROUPS, JOIN)}


def rows_of(table: pa.Table) -> list[str]:
    return sorted(str([None if value is None else int(value) for value in row.values()]) for row in table.to_pylist())


class HookedChannel(WrappedChannel):
    """A channel that calls `before` with each task that reads partitions, and `after` when it has ended well."""

    def __init__(self, inner: WorkerChannel, before: Hook | None = None, after: Hook | None = None) -> None:
        super().__init__(inner)
        self._before = before
        self._after = after

    async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        is_consumer = any(partition_of(part) for i in task.inputs for part in i.parts)
        if is_consumer and self._before is not None:
            self._before(self.worker, task)
        events = self._inner.run(task)
        try:
            async for event in events:
                if is_consumer and isinstance(event, Finished) and self._after is not None:
                    self._after(self.worker, task)
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]


def settings(exchange_bytes: int = 0) -> ClusterSettings:
    service: ServiceSettings = service_settings(3, NO_BROADCASTS, exchange_bytes=exchange_bytes)
    return ClusterSettings(
        dispatch=DispatchSettings(policy=Policy(patience_s=1.0, pause_s=0.05)),
        service=replace(service, deadline_s=60.0),
    )


@contextmanager
def in_process(
    store: Path, work: Path, before: Hook | None = None, after: Hook | None = None, *, exchange_bytes: int = 0
) -> Iterator[LocalClient]:
    channels = [HookedChannel(in_process_channel(store, worker=f"w{n}", work_dir=work / str(n)), before, after) for n in range(2)]
    with LocalClient(cluster(store, settings(exchange_bytes), channels=channels)) as client:
        yield client
        assert not list(work.glob("*/spool-*/*/*"))


@contextmanager
def processes(store: Path, work: Path, *, count: int = 3) -> Iterator[list[WorkerProcess]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                start_worker(store, worker=f"w{n}", settings=WorkerSettings(store_root=store, work_dir=work / str(n)))
            )
            for n in range(count)
        ]


class Once:
    """Calls something the first time only, from the `skip`-th call on."""

    def __init__(self, act: Callable[[WorkerId], object], *, skip: int = 0) -> None:
        self._act = act
        self._skip = skip
        self.is_done = False

    def __call__(self, worker: WorkerId, task: Task) -> None:
        if self._skip > 0:
            self._skip -= 1
        elif not self.is_done:
            self.is_done = True
            self._act(worker)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "skip"),
    [
        pytest.param(JOIN, 1, id="join"),
        *(pytest.param(text, skip, marks=SLOW, id=f"{text[:10]} {skip}") for text in (GROUPS, JOIN) for skip in (0, 2, 3, 5)),
    ],
)
def test_a_killed_worker_takes_its_partitions_with_it(
    store: Path, truth: dict[str, list[str]], tmp_path: Path, text: str, skip: int
) -> None:
    with processes(store, tmp_path) as workers:
        kill = Once(lambda _: workers[0].kill(), skip=skip)
        channels = [HookedChannel(GrpcChannel(w.address, worker=w.worker), kill) for w in workers]
        with LocalClient(cluster(store, settings(), channels=channels)) as client:
            assert rows_of(client.query(text).to_arrow()) == truth[text]
            assert kill.is_done
            assert rows_of(client.query(text).to_arrow()) == truth[text]
        assert not list(tmp_path.glob("[12]/spool/*/*"))


@SLOW
def test_a_worker_killed_after_some_consumers_have_ended(store: Path, truth: dict[str, list[str]], tmp_path: Path) -> None:
    with processes(store, tmp_path, count=2) as workers:
        kill = Once(lambda _: workers[1].kill(), skip=1)
        channels = [HookedChannel(GrpcChannel(w.address, worker=w.worker), None, kill) for w in workers]
        with LocalClient(cluster(store, settings(), channels=channels)) as client:
            assert rows_of(client.query(JOIN).to_arrow()) == truth[JOIN]
            assert kill.is_done


@SLOW
def test_the_last_worker_killed_is_an_error(store: Path, tmp_path: Path) -> None:
    with processes(store, tmp_path, count=1) as workers:
        channels = [HookedChannel(GrpcChannel(w.address, worker=w.worker), Once(lambda _: workers[0].kill())) for w in workers]
        with LocalClient(cluster(store, settings(), channels=channels)) as client, pytest.raises(RangesUnavailableError):
            client.query(GROUPS).to_arrow()


def flip(work: Path) -> int:
    """Damage all partitions that are there by one bit, or those of every worker."""
    paths = sorted(work.glob("*/spool-*/*/*.parquet"))
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        # Not in place: another worker's link to the same bytes is another copy in a real cluster.
        path.unlink()
        path.write_bytes(bytes(data))
    return len(paths)


def remove(work: Path) -> int:
    paths = sorted(work.glob("*/spool-*/*/*.parquet"))
    for path in paths:
        path.unlink()
    return len(paths)


@pytest.mark.parametrize("harm", [flip, remove])
@pytest.mark.parametrize("text", [GROUPS, JOIN], ids=["groups", "join"])
@pytest.mark.parametrize("skip", [0, 2])
def test_damaged_and_deleted_partitions_are_made_again(
    store: Path, truth: dict[str, list[str]], tmp_path: Path, harm: Callable[[Path], int], text: str, skip: int
) -> None:
    harmed: list[int] = []
    once = Once(lambda _: harmed.append(harm(tmp_path)), skip=skip)
    with in_process(store, tmp_path, once) as client:
        assert rows_of(client.query(text).to_arrow()) == truth[text]
    assert harmed
    assert harmed[0] > 0


def test_small_and_large_results_together(store: Path, truth: dict[str, list[str]], tmp_path: Path) -> None:
    kinds: set[str] = set()

    def look(worker: WorkerId, task: Task) -> None:
        kinds.update(part.uri.partition(":")[0] for i in task.inputs for part in i.parts)
        once(worker, task)

    once = Once(lambda _: flip(tmp_path))
    with in_process(store, tmp_path, look, exchange_bytes=MIXED) as client:
        assert rows_of(client.query(JOIN).to_arrow()) == truth[JOIN]
    assert kinds == {"exchange", "shared"}
    assert once.is_done


def test_partitions_lost_again_and_again_end_in_an_error(store: Path, tmp_path: Path) -> None:
    with (
        in_process(store, tmp_path, lambda *_: remove(tmp_path)) as client,
        pytest.raises(QEngineError) as raised,
    ):
        client.query(GROUPS).to_arrow()
    assert "partition" in str(raised.value)


def test_a_reader_that_leaves_cleans_up(store: Path, tmp_path: Path) -> None:
    async def leave() -> None:
        channels = [in_process_channel(store, worker=f"w{n}", work_dir=tmp_path / str(n)) for n in range(2)]
        async with cluster(store, settings(), channels=channels) as service:
            result = await service.query(JOIN)
            await anext(result.batches)
            assert list(tmp_path.glob("*/spool-*/*/*"))
            await result.close()
            assert not list(tmp_path.glob("*/spool-*/*/*"))

    asyncio.run(leave())


def test_a_cancelled_query_cleans_up(store: Path, tmp_path: Path) -> None:
    async def cancel() -> None:
        reached = asyncio.Event()
        channels = [
            HookedChannel(in_process_channel(store, worker=f"w{n}", work_dir=tmp_path / str(n)), lambda *_: reached.set())
            for n in range(2)
        ]
        async with cluster(store, settings(), channels=channels) as service:
            result = await service.query(JOIN)
            reading = asyncio.create_task(result.to_table())
            await reached.wait()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await result.close()
            async with asyncio.timeout(5):
                while list(tmp_path.glob("*/spool-*/*/*")):
                    await asyncio.sleep(0.02)

    asyncio.run(cancel())


def test_a_worker_that_forgot_a_relation_is_given_it_again(store: Path, truth: dict[str, list[str]], tmp_path: Path) -> None:
    """Rows of small tasks are put on the workers; here each worker loses them once."""
    lost: list[WorkerId] = []

    class Forgetful(HookedChannel):
        async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
            shared = any(part.uri.startswith("shared:") for i in task.inputs for part in i.parts)
            if shared and self.worker not in lost:
                lost.append(self.worker)
                error = RelationMissingError("injected: restarted")
                yield Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=error)
                return
            async for event in super().run(task):
                yield event

    channels = [Forgetful(in_process_channel(store, worker=f"w{n}", work_dir=tmp_path / str(n))) for n in range(2)]
    with LocalClient(cluster(store, settings(MIXED), channels=channels)) as client:
        for _ in range(5):
            assert rows_of(client.query(JOIN).to_arrow()) == truth[JOIN]
    assert lost
