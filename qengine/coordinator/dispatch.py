"""Runs the tasks of queries on workers: connections, health, slots and fairness. Rows come out, exactly once.

A `Dispatcher` is shared by all queries of a coordinator. It keeps one `Watch` per worker and one `SlotPool` over all of them, and
for each fragment that is running a `Run`, which has its own `Scheduler`. Whenever a slot may have become free, or a run may have
got something to start, `_offer` goes round: the interactive lane first, and within a lane the runs take turns, each taking one slot
at a time, until nobody takes any; then scans take turns at places to wait on busy workers. A run in the interactive lane that lasts
longer than `demote_after_s` goes on in the scan lane.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from qengine.coordinator.attempt import RunSettings
from qengine.coordinator.lanes import Lane, SlotPool
from qengine.coordinator.moves import WorkerJoined, WorkerLost
from qengine.coordinator.placement import rank_workers
from qengine.coordinator.report import RunProgress
from qengine.coordinator.run import Run
from qengine.coordinator.schedule import Policy, Scheduler
from qengine.coordinator.shared import Supplies
from qengine.coordinator.source import TaskSource
from qengine.coordinator.top import TopWatch
from qengine.coordinator.watch import Health, Watch, WatchSettings, WorkerState
from qengine.errors import BugError
from qengine.plan.physical import QueryId, TaskLimits, WorkerId
from qengine.transport.channel import WorkerChannel
from qengine.transport.turns import GROWN_S

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings:
    """How queries are run. `policy` holds the scheduler's numbers; its order, ramp and deadline are set for each run. Runs of at
    most `interactive_tasks` tasks start in the interactive lane. A run with a row limit starts `limit_ramp` tasks and doubles."""

    policy: Policy = field(default_factory=Policy)
    run: RunSettings = field(default_factory=RunSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    interactive_tasks: int = 4
    demote_after_s: float = GROWN_S
    limit_ramp: int = 2
    tick_s: float = 0.25


def part_of(query: QueryId, first: int) -> QueryId:
    """Return the name under which workers know one of several plans of a query, whose fragments are numbered from `first`: each is
    forgotten when it has ended, and the others go on."""
    return QueryId(f"{query}.{first}") if first else query


class Dispatcher:
    """Runs tasks on the workers behind `channels`. Use it as an async context manager, or `start` and `close` it.

    Parameters
    ----------
    channels
        One per worker; their names must differ. The dispatcher closes them.
    epoch
        The coordinator's term. Events of another one are not accepted.
    """

    def __init__(self, channels: Sequence[WorkerChannel], *, epoch: int, settings: DispatchSettings | None = None) -> None:
        self._settings = settings or DispatchSettings()
        self._epoch = epoch
        self._pool = SlotPool()
        self._watches = {channel.worker: Watch(channel, self._settings.watch, self._changed) for channel in channels}
        if len(self._watches) != len(channels):
            raise BugError(f"{len(channels)} channels to {len(self._watches)} different workers")
        self._lanes: dict[Lane, deque[Run]] = {lane: deque() for lane in Lane}
        self._chores: list[asyncio.Task[None]] = []
        self._is_offering = False
        self._is_busy = asyncio.Event()

    async def __aenter__(self) -> Dispatcher:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Shake hands with all workers. Those that cannot be reached are lost for now and tried again in the background."""
        await asyncio.gather(*(watch.probe() for watch in self._watches.values()))
        self._chores = [asyncio.create_task(watch.run()) for watch in self._watches.values()]
        self._chores.append(asyncio.create_task(self._tick()))

    async def close(self) -> None:
        """Cancel all runs, stop watching, close the channels."""
        await asyncio.gather(*(self.cancel(query) for query in {run.query for run in self._runs()}))
        chores, self._chores = self._chores, []
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await asyncio.gather(*(watch.channel.close() for watch in self._watches.values()))

    @property
    def slots(self) -> int:
        """Slots of all living workers that scans use at once: what task sizes are computed from."""
        return self._pool.scan_count

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """The state of every worker."""
        return tuple(
            WorkerState(worker=worker, health=watch.health, status=watch.status, error=watch.error)
            for worker, watch in self._watches.items()
        )

    def run(
        self,
        source: TaskSource,
        *,
        query: QueryId,
        limits: TaskLimits | None = None,
        row_limit: int | None = None,
        is_ordered: bool = False,
        lane: Lane | None = None,
        on_progress: Callable[[RunProgress], None] | None = None,
        shared: Supplies | None = None,
        early: TopWatch | None = None,
    ) -> Run:
        """Run all tasks of `source` and return their rows as an async iterator of batches, in any order. Nothing starts before the
        iteration does.

        Parameters
        ----------
        limits
            `deadline_s` counts for the whole run, the others for each task.
        row_limit
            Stop when this many rows are there; exactly as many are returned. Tasks start in the given order, a few at first.
        is_ordered
            Start tasks in the given order instead of the largest first. (Rows come in any order all the same.)
        lane
            Chosen by the number of tasks if not given.
        early
            Sees every batch and may end the run when the tasks that are left do not matter. They start in the given order.
        shared
            Relations that tasks read. With them the caller is the one who has to `release` the query in the end.
        """
        policy = self._settings.policy
        is_limited = row_limit is not None
        if lane is None:
            lane = Lane.INTERACTIVE if len(source) <= self._settings.interactive_tasks else Lane.SCAN
        return Run(
            source,
            query=query,
            lane=lane,
            limits=limits or TaskLimits(),
            row_limit=row_limit,
            scheduler=lambda deadline_at: self._scheduler(
                source,
                replace(
                    policy,
                    order="given" if is_ordered or is_limited else policy.order,
                    ramp=self._settings.limit_ramp if is_limited else policy.ramp,
                    deadline_at=deadline_at,
                ),
            ),
            epoch=self._epoch,
            settings=self._settings.run,
            pool=self._pool,
            watches=self._watches,
            enter=self._enter,
            leave=self._leave,
            offer=self._offer,
            on_progress=on_progress,
            shared=shared,
            early=early,
        )

    async def cancel(self, query: QueryId) -> None:
        """End all runs of a query and of its parts (`part_of`), whose readers get `QueryCancelledError`, and have every worker
        forget them."""
        runs = [run for run in self._runs() if run.query == query or run.query.startswith(f"{query}.")]
        for run in runs:
            run.cancel()
        await asyncio.gather(*(self.release(part, self._watches) for part in {query, *(run.query for run in runs)}))

    def address(self, worker: WorkerId) -> str:
        """Where other workers find a worker."""
        return self._watches[worker].channel.address

    async def release(self, query: QueryId, workers: Iterable[WorkerId]) -> None:
        """Have workers forget a query or a part of one."""
        watches = [self._watches[worker] for worker in workers]
        await asyncio.gather(*(watch.cancel(query, self._settings.run.stop_s) for watch in watches))

    # -- runs -------------------------------------------------------------------------------------------------------------

    def _runs(self) -> list[Run]:
        return [run for ring in self._lanes.values() for run in ring]

    def _scheduler(self, source: TaskSource, policy: Policy) -> Scheduler:
        workers = tuple(self._watches)
        return Scheduler(
            source.costs,
            rank_workers(source.cells, workers),
            workers,
            alive=[worker for worker, watch in self._watches.items() if watch.health in (Health.ALIVE, Health.SUSPECT)],
            policy=policy,
            describe=source.describe,
        )

    def _enter(self, run: Run) -> None:
        if not self._chores:
            raise BugError("the dispatcher has not been started, or is closed")
        self._lanes[run.lane].append(run)
        self._is_busy.set()

    def _leave(self, run: Run) -> None:
        self._lanes[run.lane].remove(run)
        if not any(self._lanes.values()):
            self._is_busy.clear()

    def _offer(self) -> None:
        """Offer free slots to runs until none is taken."""
        if self._is_offering:
            return
        self._is_offering = True
        try:
            for lane, ring in self._lanes.items():
                while ring and self._take_turns(lane, ring):
                    pass
            scans = self._lanes[Lane.SCAN]
            while scans and self._queue_ahead(scans):
                pass
        finally:
            self._is_offering = False

    def _take_turns(self, lane: Lane, ring: deque[Run]) -> bool:
        """Go round until one run takes a slot; return whether one did."""
        is_scan_waiting = any(run.is_waiting for run in self._lanes[Lane.SCAN])
        free = self._usable(self._pool.free(lane, is_scan_waiting=is_scan_waiting))
        if not free:
            return False
        is_idle = not any(run.is_waiting for ring in self._lanes.values() for run in ring)
        for _ in range(len(ring)):
            run = ring[0]
            ring.rotate(-1)
            if run.take(free, is_idle=is_idle):
                return True
        return False

    def _queue_ahead(self, ring: deque[Run]) -> bool:
        """Go round until one run has an attempt wait on a busy worker; return whether one did."""
        workers = self._usable(self._pool.ahead())
        if not workers:
            return False
        for _ in range(len(ring)):
            run = ring[0]
            ring.rotate(-1)
            if run.take_ahead(workers):
                return True
        return False

    def _usable(self, workers: tuple[WorkerId, ...]) -> tuple[WorkerId, ...]:
        return tuple(worker for worker in workers if self._watches[worker].health is Health.ALIVE)

    # -- workers and time -------------------------------------------------------------------------------------------------

    def _changed(self, watch: Watch) -> None:
        worker = watch.worker
        match watch.health:
            case Health.ALIVE if watch.status is not None:
                if not self._pool.has(worker):
                    self._pool.add(worker, watch.status.slots, watch.status.ahead)
                    for run in self._runs():
                        run.handle(WorkerJoined(worker))
                self._offer()
            case Health.LOST:
                self._pool.remove(worker)
                for run in self._runs():
                    run.handle(WorkerLost(worker, asyncio.get_running_loop().time()))
                self._offer()
            case _:
                pass

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._is_busy.wait()
            before = loop.time()
            await asyncio.sleep(self._settings.tick_s)
            now = loop.time()
            lag_s = max(0.0, now - before - self._settings.tick_s)
            for run in self._runs():
                run.tick(now, lag_s=lag_s)
                if run.lane is Lane.INTERACTIVE and not run.is_over and run.age_s(now) > self._settings.demote_after_s:
                    self._lanes[Lane.INTERACTIVE].remove(run)
                    run.move(Lane.SCAN)
                    self._lanes[Lane.SCAN].append(run)
            self._offer()
