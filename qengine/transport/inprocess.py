"""The channel to a worker that is this process: runners in threads, nothing encoded.

When it is a task's turn (`transport.turns`) it takes an idle runner, most recently used first because its metadata caches are warm,
and runs in a thread of a pool. Its
events come to the event loop through `call_soon_threadsafe`. Closing the iterator early cancels the runner, which goes back to
the idle ones as soon as it has really stopped.

A thread cannot be killed. If an attempt has not ended `GRACE_S` after its deadline, or after it was cancelled, it is stuck in a
function that ignores interrupts: the channel answers for it, leaves the thread behind and makes a new runner for the slot. Worker
processes (`qengine.worker`) kill the slot instead; use them for statements of strangers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from qengine.errors import PartitionLostError, QEngineError, QueryCancelledError, QueryTimeoutError, WorkerLostError
from qengine.plan.physical import (
    PROTOCOL_VERSION,
    Failed,
    Finished,
    Progress,
    QueryId,
    Started,
    Task,
    TaskEvent,
    WorkerId,
    partition_of,
)
from qengine.transport.channel import LOCAL, WorkerStatus
from qengine.transport.turns import Turn, Turns
from qengine.transport.version import qengine_version

GRACE_S = 2.0
"""How long an attempt may take to notice that it must stop."""

_MAPPED_FROM_BYTES = 32 << 20
_SIGN_S = 1.0
_STOP_S = 1.0


class Runner(Protocol):
    """What runs a task in a thread (`execution.runner.TaskRunner`)."""

    def run(self, task: Task, emit: Callable[[TaskEvent], None]) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class SpoolFiles(Protocol):
    """Where runners leave large results (`execution.spool.Spool`)."""

    def batches(self, name: str) -> Iterator[pa.RecordBatch]: ...

    def drop(self, name: str) -> None: ...

    def put(self, query: QueryId, name: str, content: memoryview) -> None: ...

    @property
    def root(self) -> Path: ...

    def has_partition(self, query: QueryId, name: str) -> bool: ...

    def adopt(self, query: QueryId, name: str, neighbour: Path) -> None: ...

    def drop_query(self, query: QueryId) -> None: ...

    def clear(self) -> None: ...


class _Work(NamedTuple):
    """What a runner does, in whose turn, and in which thread."""

    task: Task
    turn: Turn
    thread: asyncio.Future[None]


class InProcessChannel:
    """A worker with `slots` threads in this process. Use it from one event loop."""

    def __init__(
        self, worker: WorkerId, make_runner: Callable[[], Runner], spool: SpoolFiles, *, slots: int = 1, store: Path = Path()
    ) -> None:
        self._worker = worker
        self._make_runner = make_runner
        self._spool = spool
        self._slots = slots
        self._store = store
        self._idle = [make_runner() for _ in range(slots)]
        self._turns = Turns(slots)
        self._waiting: dict[Turn, Task] = {}
        self._writing: dict[asyncio.Future[None], QueryId] = {}
        # More threads than slots: those that were left behind do not come back.
        self._pool = ThreadPoolExecutor(max_workers=4 * slots + 4, thread_name_prefix=f"qengine-{worker}")
        self._running: dict[Runner, _Work] = {}
        self._abandoned: set[Runner] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def worker(self) -> WorkerId:
        return self._worker

    @property
    def address(self) -> str:
        return f"{LOCAL}{self._spool.root.resolve()}"

    @property
    def mapped_from_bytes(self) -> int | None:
        return _MAPPED_FROM_BYTES

    async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        if self._is_closed:
            yield _failed(task, WorkerLostError(f"worker {self._worker} is closed"))
            return
        try:
            await self._adopt(task)
        except PartitionLostError as lost:
            yield _failed(task, lost)
            return
        turn = self._turns.ask(is_scan=task.is_scan)
        self._waiting[turn] = task
        try:
            while not turn.granted.is_set():
                try:
                    async with asyncio.timeout(_SIGN_S):
                        await turn.granted.wait()
                except TimeoutError:
                    yield Progress(task=task.id, attempt=task.attempt, epoch=task.epoch, fraction=0.0)
        except BaseException:
            self._turns.end(turn)
            raise
        finally:
            del self._waiting[turn]
        if turn.is_over or self._is_closed:
            self._turns.end(turn)
            yield _failed(task, QueryCancelledError("the query was cancelled"))
            return
        # One turn more than slots may be dealt.
        runner = self._idle.pop() if self._idle else self._make_runner()
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[TaskEvent] = asyncio.Queue()

        told: deque[TaskEvent] = deque()
        is_woken = False

        def hear() -> None:
            nonlocal is_woken
            is_woken = False
            while told:
                events.put_nowait(told.popleft())

        def emit(event: TaskEvent) -> None:
            nonlocal is_woken
            # To wake up the loop costs more than most events: the start is told without the thread, and what comes before the loop
            # has woken up is heard of together.
            if isinstance(event, Started):
                return
            told.append(event)
            if not is_woken:
                is_woken = True
                # The loop may be gone when an abandoned thread wakes up at last.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(hear)

        thread = loop.run_in_executor(self._pool, runner.run, task, emit)
        self._running[runner] = _Work(task, turn, thread)
        # Not when the caller has read everything: a slow caller does not keep a slot.
        thread.add_done_callback(lambda _: self._ended(runner))
        ends_at = time.monotonic() + task.limits.deadline_s + GRACE_S
        is_over = False
        try:
            yield Started(task=task.id, attempt=task.attempt, epoch=task.epoch)
            while not is_over:
                try:
                    async with asyncio.timeout(max(ends_at - time.monotonic(), 0.001)):
                        event = await events.get()
                        is_over = isinstance(event, Finished | Failed)
                        # The slot is free when the caller learns of the end.
                        if is_over and not thread.done():
                            await asyncio.wait([thread])
                except TimeoutError:
                    is_over = True
                    error = QueryTimeoutError(f"the deadline of {task.limits.deadline_s:g} s passed and the query does not stop")
                    event = _failed(task, error)
                yield event
        finally:
            if not thread.done():
                runner.cancel()
                self._settle_later(self._settle(runner, thread))

    async def _adopt(self, task: Task) -> None:
        """Take the partitions that the task reads from their workers, which are others of this process."""
        wanted = [found for i in task.inputs for part in i.parts if (found := partition_of(part)) is not None]
        if wanted:
            loop = asyncio.get_running_loop()
            await self._written(task.id.query, loop.run_in_executor(self._pool, self._adopt_all, task.id.query, wanted))

    async def _written(self, query: QueryId, writing: asyncio.Future[None]) -> None:
        """Wait for a thread that writes files of a query. It goes on when the caller leaves, and `cancel` has to wait for it."""
        self._writing[writing] = query
        writing.add_done_callback(self._writing.pop)
        await asyncio.shield(writing)

    def _adopt_all(self, query: QueryId, wanted: list[tuple[str, str]]) -> None:
        lost: dict[str, str] = {}
        for name, address in wanted:
            if self._spool.has_partition(query, name):
                continue
            try:
                self._spool.adopt(query, name, Path(address.removeprefix(LOCAL)))
            except PartitionLostError as error:
                lost[name] = error.message
        if lost:
            raise PartitionLostError("; ".join(lost.values())[:1000], details={"partitions": list(lost)})

    async def fetch(self, spool: str) -> AsyncIterator[pa.RecordBatch]:
        loop = asyncio.get_running_loop()
        batches = self._spool.batches(spool)
        while (batch := await loop.run_in_executor(self._pool, next, batches, None)) is not None:
            yield batch
        self._spool.drop(spool)

    async def put(self, query: QueryId, name: str, content: memoryview) -> None:
        if self._is_closed:
            raise WorkerLostError(f"worker {self._worker} is closed")
        loop = asyncio.get_running_loop()
        await self._written(query, loop.run_in_executor(self._pool, self._spool.put, query, name, content))

    async def cancel(self, query: QueryId) -> None:
        for turn, task in list(self._waiting.items()):
            if task.id.query == query:
                self._turns.withdraw(turn)
        for runner, work in self._running.items():
            if work.task.id.query == query:
                runner.cancel()
        # What still runs would leave files behind.
        late = await self._stopped(query, _STOP_S)
        await asyncio.get_running_loop().run_in_executor(self._pool, self._spool.drop_query, query)
        if late:
            self._settle_later(self._drop_later(query))

    async def _stopped(self, query: QueryId, patience_s: float) -> set[asyncio.Future[None]]:
        """Wait for the ends of the threads that are at work for a query; return those that have not ended."""
        ending = {writing for writing, whose in self._writing.items() if whose == query}
        ending |= {work.thread for work in self._running.values() if work.task.id.query == query}
        return (await asyncio.wait(ending, timeout=patience_s))[1] if ending else set()

    async def _drop_later(self, query: QueryId) -> None:
        await self._stopped(query, GRACE_S)
        if not self._is_closed:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._spool.drop_query, query)

    async def status(self) -> WorkerStatus:
        if self._is_closed:
            raise WorkerLostError(f"worker {self._worker} is closed")
        return WorkerStatus(
            worker=self._worker,
            protocol=PROTOCOL_VERSION,
            version=qengine_version(),
            slots=self._slots,
            running=tuple(str(work.task.id) for work in self._running.values()),
            store=str(self._store),
            ahead=self._slots,
        )

    async def close(self) -> None:
        """End what runs, close the runners and delete the spools."""
        if self._is_closed:
            return
        self._is_closed = True
        for turn in list(self._waiting):
            self._turns.withdraw(turn)
        for runner in self._running:
            runner.cancel()
        ends_at = time.monotonic() + GRACE_S
        while self._running and time.monotonic() < ends_at:
            await asyncio.sleep(0.01)
        while self._idle:
            self._idle.pop().close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spool.clear()

    def _ended(self, runner: Runner) -> None:
        """A thread has come back from a task."""
        if runner in self._abandoned:
            self._abandoned.discard(runner)
            runner.close()
            return
        work = self._running.pop(runner)
        if self._is_closed:
            runner.close()
        else:
            self._idle.append(runner)
        self._turns.end(work.turn)

    def _settle_later(self, chore: Coroutine[None, None, None]) -> None:
        settling = asyncio.create_task(chore)
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _settle(self, runner: Runner, thread: asyncio.Future[None]) -> None:
        """Give a cancelled runner time to stop; if it does not, put a new one in its place."""
        done, _ = await asyncio.wait([thread], timeout=GRACE_S)
        if not done and not self._is_closed:
            self._abandoned.add(runner)
            work = self._running.pop(runner)
            self._idle.append(self._make_runner())
            self._turns.end(work.turn)


def _failed(task: Task, error: QEngineError) -> Failed:
    return Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=error)
