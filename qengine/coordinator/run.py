"""One fragment of one query being run: the scheduler's hands.

`Run` turns what happens on channels into events of its `Scheduler`, carries out the actions, and hands admitted rows to whoever
iterates over it. For each attempt one asyncio task (`_drive`) lets an `Attempt` collect the whole result, and only then tells the
scheduler that it has finished. So rows are on the coordinator, complete and counted, before they are admitted, and no failure after
that can take one back or double it.

A run that is part of a larger execution is given its `Supplies`: they prepare a worker for an attempt and hear of failures, and the
owner, not the run, has the workers forget the query, because other runs of it may go on.

Back-pressure: while more than `queue_bytes` of admitted rows wait to be read, the run takes no further slots and fetches no
spools; what already runs ends in memory or on disk. A reader that leaves (`aclose`, or the end of the iteration by an error) stops
all attempts and has the workers forget the query.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import pyarrow as pa

from qengine.coordinator.attempt import Attempt, RunSettings
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
    RoomAhead,
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
from qengine.coordinator.shared import Supplies
from qengine.coordinator.source import TaskSource
from qengine.coordinator.tally import Tally
from qengine.coordinator.top import TopWatch
from qengine.coordinator.watch import Watch
from qengine.errors import BugError, QEngineError, QueryCancelledError, WorkerLostError
from qengine.plan.physical import QueryId, Task, TaskLimits, TaskStats, WorkerId
from qengine.transport.channel import WorkerChannel

log = logging.getLogger(__name__)

_COLLECT_AFTER_S = 0.5


@dataclass(slots=True, eq=False)
class _Live:
    """An attempt that has been started, its place, and the asyncio task that drives it."""

    attempt: Attempt
    slot: Slot
    has_slot: bool = True
    driver: asyncio.Task[None] | None = None


class Run:
    """Iterate over it for the admitted batches; `aclose` it when leaving early; then read `report`.

    `schema` is that of the rows, once a task has ended, and `outcomes` says who ran each admitted task, and what it did.
    """

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
        shared: Supplies | None,
        early: TopWatch | None = None,
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
        self._shared = shared
        self._early = early
        self._live: dict[tuple[int, int], _Live] = {}
        self._complete: dict[tuple[int, int], tuple[Holding, TaskStats, WorkerId]] = {}
        self._drivers: set[asyncio.Task[None]] = set()
        self._ready: deque[Holding] = deque()
        self._ready_bytes = 0
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._scheduler: Scheduler | None = None
        self._outcome: FinishQuery | FailQuery | None = None
        self._needs_cancel = False
        self._is_paused = False
        self._started = 0
        self.schema: pa.Schema | None = None
        self.outcomes: dict[int, tuple[WorkerId, TaskStats]] = {}
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

    @property
    def progress(self) -> RunProgress:
        """How far the run is; may be asked at any time, also before it begins and after its end."""
        running = sum(live.attempt.fraction * float(self._source.costs[number]) for (number, _), live in self._live.items())
        # A task that runs twice may say more than its share.
        done = min(self._done_cost + running, self._total_cost)
        is_over = isinstance(self._outcome, FinishQuery)
        return RunProgress(
            query=self.query,
            tasks=len(self._source),
            finished=len(self._tally.tasks),
            running=len(self._live),
            rows=self._tally.rows,
            fraction=done / self._total_cost if self._total_cost > 0 and not is_over else 1.0,
            done_cost=self._total_cost if is_over else done,
            total_cost=self._total_cost,
            is_over=is_over,
        )

    @property
    def leftovers(self) -> frozenset[WorkerId]:
        """Workers that may still keep something of this run after its end; empty for a run that cleans up itself."""
        return frozenset(self._touched) if self._needs_cancel and self._shared is not None else frozenset()

    @property
    def touched(self) -> frozenset[WorkerId]:
        """Workers on which attempts were started."""
        return frozenset(self._touched)

    def pause(self) -> None:
        """Start no further attempts until `resume`: something that they need is being made."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._offer()

    def fail(self, error: QEngineError) -> None:
        """Stop all attempts now and have the reader fail with `error`. Does nothing after the end."""
        self._conclude(FailQuery(error))

    def cancel(self) -> None:
        """Stop all attempts now and have the reader fail with `QueryCancelledError`. Does nothing after the end."""
        if self._scheduler is None:
            self._conclude(FailQuery(QueryCancelledError("the query was cancelled before it began")))
        else:
            self.handle(Cancelled())

    async def _iterate(self) -> AsyncGenerator[pa.RecordBatch, None]:
        left = self._row_limit
        try:
            self._begin()
            while (holding := await self._next()) is not None:
                async for batch in holding.batches():
                    self.schema = batch.schema
                    if left is not None:
                        batch = batch.slice(0, left)
                        left -= batch.num_rows
                    if batch.num_rows:
                        self._tally.first_row(self._now())
                        if self._early is not None:
                            self._early.see(batch)
                        yield batch
                if self._early is not None and self._outcome is None and self._early.is_enough(t.number for t in self._tally.tasks):
                    self._tally.is_limit_met = True
                    self.handle(LimitMet())
        finally:
            # Not to be cut short by a second cancellation of the reader: attempts would go on.
            self._finishing = asyncio.create_task(self._finish())
            await asyncio.shield(self._finishing)

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
        if self._outcome is not None:
            return
        scheduler = self._make_scheduler(now + self._limits.deadline_s)
        self._enter(self)
        self._scheduler = scheduler
        self.handle(LimitMet() if self._row_limit == 0 else Tick(now))
        self._offer()

    async def _finish(self) -> None:
        if self._outcome is None:
            self.cancel()
        while self._ready:
            self._ready.popleft().discard()
        if self._drivers:
            await asyncio.wait(self._drivers, timeout=self._settings.stop_s)
        if self._needs_cancel and self._shared is None:
            watches = [self._watches[worker] for worker in self._touched]
            await asyncio.gather(*(watch.cancel(self.query, self._settings.stop_s) for watch in watches))
        self._tally.end(self._now())
        if isinstance(self._outcome, FailQuery):
            # Cancelled drivers and their errors are cycles that hold rows, and those of mapped spools hold disk.
            asyncio.get_running_loop().call_later(_COLLECT_AFTER_S, gc.collect)

    # -- for the dispatcher -----------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True when nothing will be started or admitted any more."""
        return self._outcome is not None

    @property
    def is_waiting(self) -> bool:
        """True when the run could use a slot now: tasks wait, and their rows would have room."""
        is_ready = self._outcome is None and self._room.is_set() and not self._is_paused
        return is_ready and self._scheduler is not None and self._scheduler.has_waiting

    def take(self, free: tuple[WorkerId, ...], *, is_idle: bool) -> bool:
        """Start at most one attempt on a free worker; return whether one was started. `is_idle`: nobody else could use the slot."""
        return self._try(SlotsFree(free, self._now(), is_idle))

    def take_ahead(self, workers: tuple[WorkerId, ...]) -> bool:
        """Have at most one attempt wait for a slot on one of these workers; return whether one does."""
        return self._try(RoomAhead(workers, self._now()))

    def _try(self, offer: SlotsFree | RoomAhead) -> bool:
        if self._outcome is not None or self._is_paused or not self._room.is_set():
            return False
        started = self._started
        self.handle(offer)
        return self._started > started

    def tick(self, at: float, *, lag_s: float) -> None:
        """Look for attempts that fell silent and for the deadline, and report progress. A few times a second.

        When the coordinator itself was asleep (`lag_s`), events are waiting to be read, and silence proves nothing.
        """
        for (number, attempt), live in list(self._live.items()):
            live.attempt.forgive(lag_s)
            if (silence_s := live.attempt.silence_s(at)) is not None:
                self._stop((number, attempt))
                live.attempt.watch.suspect()
                message = f"worker {live.slot.worker} said nothing about the attempt for {silence_s:.1f} s"
                self._fail(number, attempt, WorkerLostError(message))
        self.handle(Tick(at))
        self._report_progress()

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
        if self._scheduler is None:
            return
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
            if self._scheduler is not None:
                self._leave(self)
            for key in list(self._live):
                self._stop(key)
            self._readable.set()

    # -- actions ----------------------------------------------------------------------------------------------------------

    def _start(self, action: StartAttempt) -> None:
        number, attempt = action.task, action.attempt

        def running() -> None:
            now = self._now()
            if action.is_ahead or live.attempt.has_waited:
                self._tally.waited((number, attempt), until=now)
            self.handle(TaskStarted(number, attempt, now))

        async def spooled() -> None:
            self.handle(TaskSpooled(number, attempt))
            self._release(live)
            self._offer()
            await self._room.wait()

        live = _Live(
            Attempt(
                self._watches[action.worker],
                hold_bytes=self._limits.hold_bytes,
                settings=self._settings,
                on_started=running,
                on_spooled=spooled,
                prepare=None if self._shared is None else self._shared.prepare,
            ),
            self._pool.take(action.worker, self.lane),
        )
        self._started += 1
        self._touched.add(action.worker)
        self._tally.sent(action, self._now())
        self._live[number, attempt] = live
        live.driver = asyncio.create_task(self._drive(number, attempt, live))
        live.driver.add_done_callback(lambda driver: self._driven(driver, live))
        self._drivers.add(live.driver)

    def _stop(self, key: tuple[int, int]) -> None:
        if (live := self._live.pop(key, None)) is None:
            return
        # A result that the worker has spooled stays there until the query is cancelled.
        stats = live.attempt.stats
        self._needs_cancel = self._needs_cancel or (stats is not None and bool(stats.spool))
        if live.driver is not None:
            live.driver.cancel()

    def _admit(self, key: tuple[int, int]) -> None:
        holding, stats, worker = self._complete.pop(key)
        self.outcomes[key[0]] = worker, stats
        self._tally.admitted(key, stats, self._now())
        self._ready.append(holding)
        self._ready_bytes += holding.bytes
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
        if complete := self._complete.pop(key, None):
            complete[0].discard()

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
        failure: QEngineError
        try:
            stats = await live.attempt.receive(self._task(number, attempt, live.attempt.watch.channel))
        except QEngineError as error:
            failure = error
        except asyncio.CancelledError:
            live.attempt.discard()
            raise
        except Exception as error:  # whatever else a channel or a task maker raises is our bug and must end the query, not hang it
            log.exception("attempt %s/%s/%s broke", self.query, number, attempt)
            failure = BugError(f"running task {number} raised {error!r}")
        else:
            self._over(number, attempt, live)
            self._complete[number, attempt] = live.attempt.holding, stats, live.slot.worker
            self.handle(TaskFinished(number, attempt, self._now()))
            self._offer()
            return
        self._over(number, attempt, live)
        live.attempt.discard()
        if isinstance(failure, WorkerLostError):
            live.attempt.watch.suspect()
        if self._shared is not None:
            self._shared.failed(live.slot.worker, failure)
        self._fail(number, attempt, failure)
        self._offer()

    def _over(self, number: int, attempt: int, live: _Live) -> None:
        self._tally.stale += live.attempt.stale
        self._release(live)
        self._live.pop((number, attempt), None)

    def _task(self, number: int, attempt: int, channel: WorkerChannel) -> Task:
        limits = replace(self._limits, deadline_s=max(0.1, self._limits.deadline_s - self.age_s(self._now())))
        made = self._source.make(number)
        if (mapped := channel.mapped_from_bytes) is not None and made.partition is None:
            limits = replace(limits, hold_bytes=min(limits.hold_bytes, mapped))
        return replace(made, attempt=attempt, epoch=self._epoch, limits=limits, is_scan=self.lane is Lane.SCAN)

    def _fail(self, number: int, attempt: int, error: QEngineError) -> None:
        self._tally.failed((number, attempt))
        log.info("attempt %s/%s/%s failed: %s", self.query, number, attempt, error)
        self.handle(TaskFailed(number, attempt, error, self._now()))

    def _release(self, live: _Live) -> None:
        if live.has_slot:
            live.has_slot = False
            self._pool.give_back(live.slot)

    def _report_progress(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
