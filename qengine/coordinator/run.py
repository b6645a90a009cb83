"""One fragment of one query being run: the scheduler's hands.

`Run` turns what happens on channels into events of its `Scheduler`, carries out the actions, and hands admitted rows to whoever
iterates over it. For each attempt one asyncio task (`_drive`) reads the channel and collects rows in a `Holding`; when the worker
spooled the result, it fetches the spool first, and only then tells the scheduler that the attempt has finished. So rows are on the
coordinator, complete and counted, before they are admitted, and no failure after that can take one back or double it.

Back-pressure: while more than `queue_bytes` of admitted rows wait to be read, the run takes no further slots and fetches no
spools; what already runs ends in memory or on disk. A reader that leaves (`aclose`, or the end of the iteration by an error) stops
all attempts and has the workers forget the query.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, assert_never, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qengine.coordinator.holding import Holding
from qengine.coordinator.lanes import Lane, Slot, SlotPool
from qengine.coordinator.moves import (
    AdmitAttempt,
    Cancelled,
    DropAttempt,
    Event,
    FailQuery,
    FinishQuery,
    LimitMet,
    SlotsFree,
    StartAttempt,
    StopAttempt,
    TaskFailed,
    TaskFinished,
    TaskSpooled,
    TaskStarted,
    Tick,
)
from qengine.coordinator.report import DispatchReport, RunProgress
from qengine.coordinator.schedule import Scheduler
from qengine.coordinator.tally import Tally
from qengine.coordinator.watch import Watch
from qengine.errors import BugError, ClusterError, ProtocolError, QEngineError, WorkerLostError
from qengine.plan.physical import (
    Batch,
    Failed,
    Finished,
    Progress,
    QueryId,
    Started,
    Task,
    TaskLimits,
    TaskStats,
    WorkerId,
)
from qengine.transport.channel import WorkerChannel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource:
    """The tasks of a fragment, made one by one when they are dispatched.

    `costs` is the expected work of each (any unit), `cells` the first cell that it reads. `make(number)` returns the task; its
    attempt, epoch and limits are filled in by the run. `describe(number)` says in messages what the task reads.
    """

    costs: npt.NDArray[np.float64]
    cells: npt.NDArray[np.int64]
    make: Callable[[int], Task]
    describe: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.costs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a run behaves. A worker that says nothing about a started attempt for `silence_s` (about one that has not started:
    `start_s`) has lost it. `stop_s` is how long the end of a run waits for workers to confirm that they stopped."""

    queue_bytes: int = 64 << 20
    silence_s: float = 5.0
    start_s: float = 30.0
    stop_s: float = 2.0
    temp_dir: Path | None = None


async def cancel_on(channel: WorkerChannel, query: QueryId, stop_s: float) -> None:
    """Have a worker forget a query; one that cannot be told in time finds out by itself: the streams of its attempts are closed."""
    try:
        async with asyncio.timeout(stop_s):
            await channel.cancel(query)
    except (QEngineError, TimeoutError) as error:
        log.warning("query %s could not be cancelled on worker %s: %s", query, channel.worker, error)


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Live:
    """An attempt that has been started and not ended."""

    slot: Slot
    watch: Watch
    holding: Holding
    heard_at: float
    is_started: bool = False
    is_listening: bool = True
    fraction: float = 0.0
    stats: TaskStats | None = None
    driver: asyncio.Task[None] | None = field(default=None, repr=False)
    has_slot: bool = True


class Run:
    """Iterate over it for the admitted batches; `aclose` it when leaving early; then read `report`."""

    def __init__(
        self,
        source: TaskSource,
        *,
        query: QueryId,
        lane: Lane,
        limits: TaskLimits,
        row_limit: int | None,
        scheduler: Callable[[float], Scheduler],
        epoch: int,
        settings: RunSettings,
        pool: SlotPool,
        watches: Mapping[WorkerId, Watch],
        enter: Callable[[Run], None],
        leave: Callable[[Run], None],
        offer: Callable[[], None],
        on_progress: Callable[[RunProgress], None] | None,
    ) -> None:
        self.query = query
        self.lane = lane
        self._source = source
        self._limits = limits
        self._row_limit = row_limit
        self._make_scheduler = scheduler
        self._epoch = epoch
        self._settings = settings
        self._pool = pool
        self._watches = watches
        self._enter, self._leave, self._offer = enter, leave, offer
        self._on_progress = on_progress
        self._live: dict[tuple[int, int], _Live] = {}
        self._complete: dict[tuple[int, int], _Live] = {}
        self._drivers: set[asyncio.Task[None]] = set()
        self._ready: deque[Holding] = deque()
        self._ready_bytes = 0
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._outcome: FinishQuery | FailQuery | None = None
        self._needs_cancel = False
        self._touched: set[WorkerId] = set()
        self._tally = Tally(query, len(source))
        self._done_cost = 0.0
        self._total_cost = float(source.costs.sum())
        self._rows = self._iterate()

    # -- for the reader ---------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        return await anext(self._rows)

    async def aclose(self) -> None:
        """Stop everything that still runs for this run. Does nothing after the end."""
        await self._rows.aclose()

    @property
    def report(self) -> DispatchReport:
        """What happened; complete once the iteration has ended or `aclose` has returned."""
        return self._tally.report(self.lane.value)

    def cancel(self) -> None:
        """Have the reader fail with `QueryCancelledError`."""
        self.handle(Cancelled())

    async def _iterate(self) -> AsyncGenerator[pa.RecordBatch, None]:
        left = self._row_limit
        self._begin()
        try:
            while (holding := await self._next()) is not None:
                async for batch in holding.batches():
                    if left is not None:
                        batch = batch.slice(0, left)
                        left -= batch.num_rows
                    if batch.num_rows:
                        self._tally.first_row(self._now())
                        yield batch
        finally:
            # Not to be cut short by a second cancellation of the reader: attempts would go on.
            await asyncio.shield(asyncio.ensure_future(self._finish()))

    async def _next(self) -> Holding | None:
        while not self._ready:
            if isinstance(self._outcome, FinishQuery):
                return None
            if isinstance(self._outcome, FailQuery):
                raise self._outcome.error
            self._readable.clear()
            await self._readable.wait()
        if isinstance(self._outcome, FailQuery):
            raise self._outcome.error
        holding = self._ready.popleft()
        self._ready_bytes -= holding.bytes
        if not self._room.is_set() and self._ready_bytes < self._settings.queue_bytes:
            self._room.set()
            self._offer()
        return holding

    def _begin(self) -> None:
        now = self._now()
        self._tally.begin(now)
        self._scheduler = self._make_scheduler(now + self._limits.deadline_s)
        self._enter(self)
        self.handle(LimitMet() if self._row_limit == 0 else Tick(now))
        self._offer()

    async def _finish(self) -> None:
        if self._outcome is None:
            self.handle(Cancelled())
        while self._ready:
            self._ready.popleft().discard()
        if self._drivers:
            await asyncio.wait(self._drivers, timeout=self._settings.stop_s)
        if self._needs_cancel:
            stop_s = self._settings.stop_s
            await asyncio.gather(*(cancel_on(self._watches[worker].channel, self.query, stop_s) for worker in self._touched))
        self._tally.end(self._now())

    # -- for the dispatcher -----------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True when nothing will be started or admitted any more."""
        return self._outcome is not None

    @property
    def is_waiting(self) -> bool:
        """True when the run could use a slot now: tasks wait, and their rows would have room."""
        return self._outcome is None and self._room.is_set() and self._scheduler.has_waiting

    def take(self, free: tuple[WorkerId, ...]) -> bool:
        """Start at most one attempt on a free worker; return whether one was started."""
        if self._outcome is not None or not self._room.is_set():
            return False
        started = len(self._live)
        self.handle(SlotsFree(free, self._now()))
        return len(self._live) > started

    def tick(self, at: float) -> None:
        """Look for attempts that fell silent and for the deadline, and report progress. About four times a second."""
        for (number, attempt), live in list(self._live.items()):
            silence = at - live.heard_at
            if live.is_listening and silence > (self._settings.silence_s if live.is_started else self._settings.start_s):
                self._stop((number, attempt))
                live.watch.suspect()
                error = WorkerLostError(f"worker {live.slot.worker} said nothing about the attempt for {silence:.1f} s")
                self._fail(number, attempt, error)
        self.handle(Tick(at))
        self._report_progress()

    def forgive(self, lag_s: float) -> None:
        """The coordinator itself was asleep for so long; nobody else was silent."""
        for live in self._live.values():
            live.heard_at += lag_s

    def move(self, lane: Lane) -> None:
        """Go on in another lane."""
        self.lane = lane
        for live in self._live.values():
            if live.has_slot:
                self._pool.move(live.slot, lane)

    def age_s(self, at: float) -> float:
        """Seconds since the run began."""
        return at - self._tally.began_at

    def handle(self, event: Event) -> None:
        """Tell the scheduler and do what it says."""
        for action in self._scheduler.handle(event):
            match action:
                case StartAttempt():
                    self._start(action)
                case StopAttempt():
                    self._tally.stopped += 1
                    self._stop((action.task, action.attempt))
                case AdmitAttempt():
                    self._admit((action.task, action.attempt))
                case DropAttempt():
                    self._drop((action.task, action.attempt))
                case FinishQuery() | FailQuery():
                    self._conclude(action)
                case _:
                    assert_never(action)

    def _conclude(self, outcome: FinishQuery | FailQuery) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._needs_cancel = self._needs_cancel or isinstance(outcome, FailQuery)
            self._leave(self)
            for key in list(self._live):
                self._stop(key)
            self._readable.set()

    # -- actions ----------------------------------------------------------------------------------------------------------

    def _start(self, action: StartAttempt) -> None:
        live = _Live(
            slot=self._pool.take(action.worker, self.lane),
            watch=self._watches[action.worker],
            holding=Holding(self._limits.hold_bytes, self._settings.temp_dir),
            heard_at=self._now(),
        )
        self._touched.add(action.worker)
        self._tally.started(action)
        self._live[action.task, action.attempt] = live
        live.driver = asyncio.create_task(self._drive(action.task, action.attempt, live))
        live.driver.add_done_callback(lambda driver: self._driven(driver, live))
        self._drivers.add(live.driver)

    def _stop(self, key: tuple[int, int]) -> None:
        live = self._live.pop(key, None)
        if live is None:
            return
        # A result that the worker has spooled stays there until the query is cancelled.
        self._needs_cancel = self._needs_cancel or (live.stats is not None and bool(live.stats.spool))
        if live.driver is not None:
            live.driver.cancel()

    def _admit(self, key: tuple[int, int]) -> None:
        live = self._complete.pop(key)
        assert live.stats is not None
        self._tally.admitted(key, live.stats)
        self._ready.append(live.holding)
        self._ready_bytes += live.holding.bytes
        if self._ready_bytes >= self._settings.queue_bytes:
            self._room.clear()
        self._readable.set()
        self._done_cost += float(self._source.costs[key[0]])
        self._report_progress()
        if self._row_limit is not None and self._tally.rows >= self._row_limit:
            self._tally.is_limit_met = True
            self.handle(LimitMet())

    def _drop(self, key: tuple[int, int]) -> None:
        self._tally.dropped += 1
        if live := self._complete.pop(key, None):
            live.holding.discard()

    # -- attempts ---------------------------------------------------------------------------------------------------------

    def _driven(self, driver: asyncio.Task[None], live: _Live) -> None:
        # Here and not in `_drive`, which never begins when it is cancelled early.
        self._drivers.discard(driver)
        self._release(live)
        if not driver.cancelled() and (error := driver.exception()) is not None:
            log.error("driving query %s broke", self.query, exc_info=error)
            self._conclude(FailQuery(BugError(f"driving query {self.query} raised {error!r}")))
        self._offer()

    async def _drive(self, number: int, attempt: int, live: _Live) -> None:
        """Bring one attempt to its end and tell the scheduler."""
        failure: QEngineError | None = None
        try:
            await self._receive(number, attempt, live)
        except QEngineError as error:
            failure = error
        except asyncio.CancelledError:
            live.holding.discard()
            raise
        except Exception as error:  # whatever else a channel or a task maker raises is our bug and must end the query, not hang it
            log.exception("attempt %s/%s/%s broke", self.query, number, attempt)
            failure = BugError(f"running task {number} raised {error!r}")
        self._release(live)
        self._live.pop((number, attempt), None)
        if failure is None:
            self._complete[number, attempt] = live
            self.handle(TaskFinished(number, attempt, self._now()))
        else:
            live.holding.discard()
            if isinstance(failure, WorkerLostError):
                live.watch.suspect()
            self._fail(number, attempt, failure)
        self._offer()

    async def _receive(self, number: int, attempt: int, live: _Live) -> None:
        """Collect the whole result of the attempt in `live.holding`, or raise."""
        task = self._task(number, attempt)
        events = live.watch.channel.run(task)
        try:
            async for event in events:
                if event.epoch > self._epoch:
                    raise ProtocolError(
                        f"worker {live.slot.worker} answers to epoch {event.epoch}, and this coordinator is of epoch {self._epoch}",
                        hint="another coordinator has taken over",
                    )
                if event.task != task.id or event.attempt != attempt or event.epoch != self._epoch:
                    self._tally.stale += 1
                    continue
                live.watch.heard(self._heard(live))
                if live.stats is not None:
                    continue  # complete; only the end of the stream is still to come
                match event:
                    case Started():
                        live.is_started = True
                        self.handle(TaskStarted(number, attempt, self._now()))
                    case Progress():
                        live.fraction = event.fraction
                    case Batch():
                        live.is_listening = False
                        await live.holding.add(event.rows)
                        live.is_listening = True
                        self._heard(live)
                    case Finished():
                        live.stats = event.stats
                    case Failed():
                        raise event.error
                    case _:
                        assert_never(event)
        finally:
            await self._close(events)
        if live.stats is None:
            raise WorkerLostError(f"worker {live.slot.worker} ended the stream of task {task.id} without a result")
        if live.stats.spool:
            await self._fetch(number, attempt, live, live.stats.spool)
        if live.holding.rows != live.stats.rows:
            raise ClusterError(
                f"worker {live.slot.worker} announced {live.stats.rows} rows of task {task.id}, and {live.holding.rows} arrived"
            )

    async def _fetch(self, number: int, attempt: int, live: _Live, spool: str) -> None:
        live.holding.discard()
        live.holding = Holding(self._limits.hold_bytes, self._settings.temp_dir)
        self.handle(TaskSpooled(number, attempt))
        self._release(live)
        self._offer()
        live.is_listening = False
        await self._room.wait()
        live.is_listening = True
        self._heard(live)
        batches = live.watch.channel.fetch(spool)
        try:
            async for batch in batches:
                live.is_listening = False
                await live.holding.add(batch)
                live.is_listening = True
                live.watch.heard(self._heard(live))
        finally:
            await self._close(batches)

    def _task(self, number: int, attempt: int) -> Task:
        left_s = max(0.1, self._limits.deadline_s - self.age_s(self._now()))
        limits = replace(self._limits, deadline_s=left_s)
        return replace(self._source.make(number), attempt=attempt, epoch=self._epoch, limits=limits)

    async def _close(self, stream: AsyncIterator[object]) -> None:
        if isinstance(stream, _Closable):
            try:
                async with asyncio.timeout(self._settings.stop_s):
                    await stream.aclose()
            except TimeoutError:
                log.warning("a stream of query %s did not close in %g s", self.query, self._settings.stop_s)

    def _fail(self, number: int, attempt: int, error: QEngineError) -> None:
        self._tally.failed((number, attempt))
        log.info("attempt %s/%s/%s failed: %s", self.query, number, attempt, error)
        self.handle(TaskFailed(number, attempt, error, self._now()))

    def _release(self, live: _Live) -> None:
        if live.has_slot:
            live.has_slot = False
            self._pool.give_back(live.slot)

    def _heard(self, live: _Live) -> float:
        live.heard_at = self._now()
        return live.heard_at

    def _report_progress(self) -> None:
        if self._on_progress is None:
            return
        running = sum(live.fraction * float(self._source.costs[number]) for (number, _), live in self._live.items())
        self._on_progress(
            RunProgress(
                query=self.query,
                tasks=len(self._source),
                finished=len(self._tally.tasks),
                running=len(self._live),
                rows=self._tally.rows,
                fraction=min(1.0, (self._done_cost + running) / self._total_cost) if self._total_cost > 0 else 1.0,
            )
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
