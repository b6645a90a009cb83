"""A worker that exists only in memory and does what a script says: the fake at the `WorkerChannel` seam.

`FakeChannel(worker, script=...)` asks the script, a function from a task (one attempt) to steps, what to do. Every row that it makes
says which task and attempt it is of, so that tests can count what was admitted. The fake notes what it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from qengine.coordinator.source import TaskSource
from qengine.errors import QEngineError, WorkerLostError
from qengine.plan.physical import (
    PROTOCOL_VERSION,
    Batch,
    Failed,
    Finished,
    Progress,
    QueryId,
    Started,
    Task,
    TaskEvent,
    TaskId,
    TaskStats,
    WorkerId,
)
from qengine.transport.channel import WorkerStatus

SCHEMA = pa.schema([("task", pa.int64()), ("attempt", pa.int64()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True)
class Rows:
    """Send a batch of `count` rows; with `width`, each also carries so many bytes."""

    count: int = 1
    width: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass, with a sign of life at the end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Go on when the test says so."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more, for ever."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End with this error."""

    error: QEngineError


@dataclass(frozen=True, slots=True)
class Vanish:
    """End the stream without a result."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send any event."""

    event: TaskEvent


@dataclass(frozen=True, slots=True)
class Lie:
    """Finish, announcing another number of rows than was sent."""

    rows: int


@dataclass(frozen=True, slots=True)
class Spool:
    """Finish, keeping `count` rows to be fetched in batches of one; break after `breaks_after` of them."""

    count: int
    breaks_after: int | None = None


Step = Rows | Wait | Until | Hang | Fail | Vanish | Send | Lie | Spool
Script = Callable[[Task], Sequence[Step]]


def one_row(task: Task) -> Sequence[Step]:
    """The simplest script."""
    return (Rows(1),)


@dataclass(eq=False)
class FakeChannel:
    """See the module. `is_dead` and `is_hung` may be set at any time."""

    name: str
    script: Script = one_row
    slots: int = 2
    is_dead: bool = False
    is_hung: bool = False
    runs: list[tuple[QueryId, int, int]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    closed: list[tuple[int, int]] = field(default_factory=list)
    cancelled: list[QueryId] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    put_relations: list[tuple[QueryId, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    is_closed: bool = False
    _spools: dict[str, tuple[Task, Spool]] = field(default_factory=dict)
    _death: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def worker(self) -> WorkerId:
        return WorkerId(self.name)

    @property
    def address(self) -> str:
        return f"fake:{self.name}"

    @property
    def mapped_from_bytes(self) -> int | None:
        return None

    def kill(self) -> None:
        """Die: running attempts lose their connection, and nobody answers."""
        self.is_dead = True
        self._death.set()

    def revive(self) -> None:
        """Come back, having forgotten everything."""
        self.is_dead = self.is_hung = False
        self._death = asyncio.Event()
        self._spools.clear()

    async def run(self, task: Task) -> AsyncGenerator[TaskEvent, None]:
        names = {"task": task.id, "attempt": task.attempt, "epoch": task.epoch}
        self.runs.append((task.id.query, task.id.number, task.attempt))
        self.tasks.append(task)
        if self.is_dead:
            yield Failed(**names, error=WorkerLostError(f"{self.name} is dead"))
            return
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        death = self._death
        is_over = False
        try:
            yield Started(**names)
            rows = 0
            for step in self.script(task):
                match step:
                    case Rows():
                        batch = _batch(task, rows, step)
                        rows += step.count
                        yield Batch(**names, rows=batch)
                    case Wait() | Until() | Hang():
                        await _either(_pass(step), death)
                        if not death.is_set():
                            yield Progress(**names, fraction=0.5)
                    case Fail():
                        is_over = True
                        yield Failed(**names, error=step.error)
                        return
                    case Vanish():
                        is_over = True
                        return
                    case Send():
                        yield step.event
                    case Lie():
                        is_over = True
                        yield Finished(**names, stats=_stats(step.rows))
                        return
                    case Spool():
                        digest = f"{task.id}@{task.attempt}"
                        self._spools[digest] = task, step
                        is_over = True
                        yield Finished(**names, stats=_stats(step.count, digest))
                        return
                if self.is_hung:
                    await asyncio.Event().wait()
                if death.is_set():
                    is_over = True
                    yield Failed(**names, error=WorkerLostError(f"{self.name} died"))
                    return
            is_over = True
            yield Finished(**names, stats=_stats(rows))
        finally:
            self.running -= 1
            if not is_over:
                self.closed.append((task.id.number, task.attempt))

    async def fetch(self, spool: str) -> AsyncGenerator[pa.RecordBatch, None]:
        self.fetched.append(spool)
        if self.is_dead or spool not in self._spools:
            raise WorkerLostError(f"{self.name} has no spool {spool}")
        task, step = self._spools.pop(spool)
        for row in range(step.count):
            if row == step.breaks_after:
                raise WorkerLostError(f"{self.name} broke off")
            yield _batch(task, row, Rows(1))

    async def put(self, query: QueryId, name: str, content: memoryview) -> None:
        if self.is_dead:
            raise WorkerLostError(f"{self.name} is dead")
        self.put_relations.append((query, name))

    async def cancel(self, query: QueryId) -> None:
        self.cancelled.append(query)
        for spool in [spool for spool, (task, _) in self._spools.items() if task.id.query == query]:
            del self._spools[spool]

    async def status(self) -> WorkerStatus:
        if self.is_hung:
            await asyncio.Event().wait()
        if self.is_dead:
            raise WorkerLostError(f"{self.name} is dead")
        return WorkerStatus(
            worker=self.worker, protocol=PROTOCOL_VERSION, version="0", slots=self.slots, running=(), store="/nowhere"
        )

    async def close(self) -> None:
        self.is_closed = True

    @property
    def spools(self) -> tuple[str, ...]:
        """Spools that nobody has fetched or cancelled."""
        return tuple(self._spools)


def source(
    count: int, *, query: str = "q", costs: Sequence[float] | None = None, cells: Sequence[int] | None = None, fragment: int = 0
) -> TaskSource:
    """Tasks that say nothing but their number."""

    def make(number: int) -> Task:
        return Task(id=TaskId(QueryId(query), fragment, number), attempt=0, epoch=0, sql=f"SELECT {number}", inputs=())

    return TaskSource(
        costs=np.array(costs if costs is not None else [1.0] * count, dtype=np.float64),
        cells=np.array(cells if cells is not None else [number << 50 for number in range(count)], dtype=np.int64),
        make=make,
        describe=lambda number: f"range {number}",
    )


def _batch(task: Task, first: int, step: Rows) -> pa.RecordBatch:
    numbers = pa.array(range(first, first + step.count), pa.int64())
    columns = [pa.array([task.id.number] * step.count, pa.int64()), pa.array([task.attempt] * step.count, pa.int64()), numbers]
    if not step.width:
        return pa.record_batch(columns, schema=SCHEMA)
    load = pa.array([b"x" * step.width] * step.count, pa.binary())
    return pa.record_batch([*columns, load], schema=SCHEMA.append(pa.field("load", pa.binary())))


def _stats(rows: int, spool: str = "") -> TaskStats:
    return TaskStats(rows=rows, result_bytes=24 * rows, input_bytes=1000, elapsed_s=0.01, cpu_s=0.01, spool=spool)


async def _pass(step: Wait | Until | Hang) -> None:
    match step:
        case Wait():
            await asyncio.sleep(step.seconds)
        case Until():
            await step.event.wait()
        case Hang():
            await asyncio.Event().wait()


async def _either(work: object, death: asyncio.Event) -> None:
    """Wait for the work or for the worker's death."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(death.wait())]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
