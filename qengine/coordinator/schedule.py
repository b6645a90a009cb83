"""Decides what runs where, what counts, and when a query is over. A state machine without I/O and without a clock.

`Scheduler` drives the tasks of one fragment of one query. It is told what happened (an event, with the time when it matters) and
answers with what to do (actions). The dispatcher owns channels, slots and clocks, and carries the actions out. The rules:

* Attempts of a task are numbered from 1. **Every task is admitted exactly once**: the first attempt that finishes is admitted,
  all others are stopped, and whatever comes from them later is dropped.
* Tasks start only into slots that are offered (`SlotsFree`), largest first. With `order="given"` they start by number; with a
  `ramp` (a query that needs only n rows) few run at first and each one that finishes lets one more run beside it, so that the
  number running doubles from round to round until `LimitMet`.
* While the slots of a worker are busy, one more task may wait there for each of them (`RoomAhead`), so that a slot that ends one
  goes on at once. That is for tasks that are short; and where an idle slot finds nothing else to start, it takes over a task that
  still waits elsewhere: the attempt there is stopped, and another started here. The loss of a worker on which a task only waited
  does not count against the task.
* An error that is not retryable ends the query: it would come again. After a retryable one the task is tried on another worker at
  once, and on a worker where it has already failed only if there is no other, and after a pause that doubles. After
  `max_attempts` failures the query fails.
* A task whose attempts ended `max_deaths` processes (workers or slots) after they had started is poison and ends the query,
  before it ends more.
* A lost worker fails its running attempts. While no worker lives the query waits `patience_s`; then it fails, naming the ranges.
* A straggler, which runs longer than `max(straggler_factor x median, straggler_min_s)` while a slot is idle, is started a second
  time on another worker. Tasks that are expected to cost more than the median may take that much longer, and the time in
  which a task waits for a busy slot does not count.
* Past the deadline, the query fails.

After `FinishQuery` or `FailQuery` nothing but `DropAttempt` comes out.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from qengine.coordinator.backlog import Backlog
from qengine.coordinator.moves import (
    Action,
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
    WorkerJoined,
    WorkerLost,
)
from qengine.errors import (
    ClusterError,
    PoisonTaskError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    RangesUnavailableError,
    WorkerLostError,
)
from qengine.plan.physical import WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers in the rules above. Times are in seconds on whatever clock stamps the events. Tasks that usually take
    `ahead_below_s` or more do not wait on workers (0: none does)."""

    order: Literal["largest", "given"] = "largest"
    ramp: int = 0
    max_attempts: int = 4
    max_deaths: int = 2
    patience_s: float = 30.0
    pause_s: float = 0.2
    straggler_factor: float = 3.0
    straggler_min_s: float = 2.0
    ahead_below_s: float = 2.0
    deadline_at: float = inf


@dataclass(slots=True)
class _Attempt:
    """`since` is when it began, or should have: one that waits ahead, when a slot of its worker was free."""

    worker: WorkerId
    since: float
    is_ahead: bool = False
    is_running: bool = False
    is_spooled: bool = False


@dataclass(slots=True)
class _Trouble:
    """What went wrong with one task so far."""

    failures: int = 0
    deaths: int = 0
    failed_on: dict[WorkerId, int] = field(default_factory=dict)
    not_before: float = 0.0


class Scheduler:
    """The tasks of one fragment of one query, from the first offer of a slot to the last admission.

    Parameters
    ----------
    costs
        Expected work per task, in any unit.
    rankings
        Array (tasks, workers) of indexes into `workers`, the preferred worker first (`placement.rank_workers`).
    workers
        All workers that the rankings speak of.
    alive
        Those that can be given attempts now.
    describe
        Says what ranges a task reads, for messages.
    """

    def __init__(
        self,
        costs: npt.NDArray[np.float64],
        rankings: npt.NDArray[np.int32],
        workers: Sequence[WorkerId],
        *,
        alive: Sequence[WorkerId],
        policy: Policy,
        describe: Callable[[int], str],
    ) -> None:
        self._policy = policy
        self._describe = describe
        self._count = len(costs)
        self._costs: list[float] = costs.tolist()
        priorities = range(self._count) if policy.order == "given" else [-cost for cost in self._costs]
        self._backlog = Backlog(priorities, rankings, workers)
        self._alive: dict[WorkerId, None] = dict.fromkeys(alive)
        self._backlog.settle(self._alive)
        self._running: dict[tuple[int, int], _Attempt] = {}
        self._attempts: dict[int, int] = {}
        self._troubles: dict[int, _Trouble] = {}
        self._retries: list[int] = []
        self._done: set[int] = set()
        self._durations: list[float] = []
        self._done_costs: list[float] = []
        self._deserted_at: float | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """True after `FinishQuery` or `FailQuery`."""
        return self._is_over

    @property
    def admitted(self) -> int:
        """How many tasks have been admitted."""
        return len(self._done)

    @property
    def has_waiting(self) -> bool:
        """True while tasks wait for their first or another attempt."""
        return not self._is_over and (len(self._backlog) > 0 or bool(self._retries))

    def handle(self, event: Event) -> tuple[Action, ...]:
        """Take notice of an event and return what to do, in this order."""
        if self._is_over:
            return (DropAttempt(event.task, event.attempt),) if isinstance(event, TaskFinished) else ()
        if self._count == 0:
            return self._end(FinishQuery())
        match event:
            case SlotsFree():
                return self._fill(event)
            case RoomAhead():
                return self._ahead(event)
            case TaskStarted():
                if attempt := self._running.get((event.task, event.attempt)):
                    attempt.is_running = True
                    attempt.since = event.at
                return ()
            case TaskSpooled():
                if attempt := self._running.get((event.task, event.attempt)):
                    attempt.is_spooled = True
                return ()
            case TaskFinished():
                return self._finish(event)
            case TaskFailed():
                return self._fail((event.task, event.attempt), event.error, event.at)
            case WorkerJoined():
                if event.worker not in self._alive:
                    self._alive[event.worker] = None
                    self._deserted_at = None
                    self._backlog.settle(self._alive)
                return ()
            case WorkerLost():
                return self._lose(event)
            case Tick():
                return self._tick(event.at)
            case LimitMet():
                return self._end(FinishQuery())
            case Cancelled():
                return self._end(FailQuery(QueryCancelledError("the query was cancelled")))
        assert_never(event)

    # -- starting ---------------------------------------------------------------------------------------------------------

    def _fill(self, event: SlotsFree) -> tuple[Action, ...]:
        free = [worker for worker in event.workers if worker in self._alive]
        if not free or (self._policy.ramp and self._tasks_running() >= self._policy.ramp + len(self._done)):
            return ()
        for attempt in self._running.values():
            if attempt.since == inf and attempt.worker in free:
                attempt.since = event.at
        started = self._retry(free, event.at) or self._first(free, event.at)
        if started or not event.is_idle:
            return started
        return self._take_over(free, event.at) or self._backup(free, event.at)

    def _ahead(self, event: RoomAhead) -> tuple[Action, ...]:
        """Let one more task wait on a busy worker, unless tasks are long, or may not be needed at all."""
        if self._policy.ramp or self._policy.order == "given":
            return ()
        usual = self._durations[len(self._durations) // 2] if self._durations else 0.0
        if usual >= self._policy.ahead_below_s:
            return ()
        taken = self._backlog.take([worker for worker in event.workers if worker in self._alive])
        return self._start(*taken, event.at, is_ahead=True) if taken else ()

    def _take_over(self, free: list[WorkerId], at: float) -> tuple[Action, ...]:
        """Have a free slot run the largest of the tasks that still wait for one on another worker."""
        waiting = [
            (self._costs[task], task, number)
            for (task, number), attempt in self._running.items()
            if attempt.is_ahead and not attempt.is_running and attempt.worker not in free
        ]
        for _, task, number in sorted(waiting, reverse=True):
            trouble = self._troubles.get(task)
            fresh = [worker for worker in free if trouble is None or worker not in trouble.failed_on]
            if fresh:
                del self._running[task, number]
                return (StopAttempt(task, number), *self._start(task, fresh[0], at, is_move=True))
        return ()

    def _tasks_running(self) -> int:
        return len({task for task, _ in self._running})

    def _retry(self, free: list[WorkerId], at: float) -> tuple[Action, ...]:
        for position, task in enumerate(self._retries):
            trouble = self._troubles[task]
            fresh = [worker for worker in free if worker not in trouble.failed_on]
            is_everywhere = all(worker in trouble.failed_on for worker in self._alive)
            if fresh:
                chosen = next((worker for worker in self._backlog.candidates(task) if worker in fresh), fresh[0])
            elif is_everywhere and at >= trouble.not_before:
                chosen = min(free, key=lambda worker: trouble.failed_on[worker])
            else:
                continue
            del self._retries[position]
            return self._start(task, chosen, at)
        return ()

    def _first(self, free: list[WorkerId], at: float) -> tuple[Action, ...]:
        taken = self._backlog.take(free)
        return self._start(*taken, at) if taken else ()

    def _backup(self, free: list[WorkerId], at: float) -> tuple[Action, ...]:
        """Start the slowest straggler again. No duration is known before the first task finishes, so a lone task has no backup."""
        if not self._durations or self._retries or len(self._backlog):
            return ()
        for (task, _), attempt in sorted(self._running.items(), key=lambda item: item[1].since):
            if attempt.is_spooled or at - attempt.since <= self._allowance(task):
                continue
            if any(number == task and other is not attempt for (number, _), other in self._running.items()):
                continue
            others = [worker for worker in free if worker != attempt.worker]
            trouble = self._troubles.get(task)
            fresh = [worker for worker in others if trouble is None or worker not in trouble.failed_on]
            if fresh:
                return self._start(task, fresh[0], at, is_backup=True)
        return ()

    def _allowance(self, task: int) -> float:
        median = self._durations[len(self._durations) // 2]
        usual_cost = self._done_costs[len(self._done_costs) // 2]
        size = max(1.0, self._costs[task] / usual_cost) if usual_cost > 0 else 1.0
        return max(self._policy.straggler_factor * median * size, self._policy.straggler_min_s)

    def _start(
        self, task: int, worker: WorkerId, at: float, *, is_backup: bool = False, is_move: bool = False, is_ahead: bool = False
    ) -> tuple[Action, ...]:
        number = self._attempts.get(task, 0) + 1
        self._attempts[task] = number
        self._running[task, number] = _Attempt(worker, inf if is_ahead else at, is_ahead)
        return (StartAttempt(task, number, worker, is_backup, is_move, is_ahead),)

    # -- ending -----------------------------------------------------------------------------------------------------------

    def _finish(self, event: TaskFinished) -> tuple[Action, ...]:
        attempt = self._running.pop((event.task, event.attempt), None)
        if attempt is None:
            return (DropAttempt(event.task, event.attempt),)
        self._done.add(event.task)
        insort(self._durations, max(0.0, event.at - attempt.since))
        insort(self._done_costs, self._costs[event.task])
        actions: list[Action] = [AdmitAttempt(event.task, event.attempt)]
        for key in [key for key in self._running if key[0] == event.task]:
            del self._running[key]
            actions.append(StopAttempt(*key))
        if len(self._done) == self._count:
            actions.extend(self._end(FinishQuery()))
        return tuple(actions)

    def _fail(self, key: tuple[int, int], error: QEngineError, at: float) -> tuple[Action, ...]:
        attempt = self._running.pop(key, None)
        if attempt is None:
            return ()
        if not error.retryable:
            return self._end(FailQuery(error))
        task = key[0]
        trouble = self._troubles.setdefault(task, _Trouble())
        # Each task waits behind another once at most, so this ends.
        trouble.failures += not (attempt.is_ahead and not attempt.is_running and isinstance(error, WorkerLostError))
        trouble.failed_on[attempt.worker] = trouble.failed_on.get(attempt.worker, 0) + 1
        trouble.deaths += isinstance(error, WorkerLostError) and attempt.is_running and not attempt.is_spooled
        if trouble.deaths >= self._policy.max_deaths:
            return self._end(FailQuery(self._poison(task, error)))
        if trouble.failures >= self._policy.max_attempts:
            return self._end(FailQuery(self._exhausted(task, error)))
        if all(number != task for number, _ in self._running):
            trouble.not_before = at + self._policy.pause_s * 2.0 ** (trouble.failures - 1)
            self._retries.append(task)
        return ()

    def _lose(self, event: WorkerLost) -> tuple[Action, ...]:
        if event.worker not in self._alive:
            return ()
        del self._alive[event.worker]
        self._backlog.settle(self._alive)
        if not self._alive:
            self._deserted_at = event.at
        actions: list[Action] = []
        for key in [key for key, attempt in self._running.items() if attempt.worker == event.worker]:
            actions.append(StopAttempt(*key))
            actions.extend(self._fail(key, WorkerLostError(f"worker {event.worker} was lost"), event.at))
            if self._is_over:
                break
        return tuple(actions)

    def _tick(self, at: float) -> tuple[Action, ...]:
        if at >= self._policy.deadline_at:
            state = f"{len(self._done)} of {self._count} tasks had finished"
            return self._end(FailQuery(QueryTimeoutError(f"the deadline of the query passed; {state}")))
        if not self._alive:
            if self._deserted_at is None:
                self._deserted_at = at
            if at - self._deserted_at >= self._policy.patience_s:
                return self._end(FailQuery(self._deserted()))
        return ()

    def _end(self, outcome: FinishQuery | FailQuery) -> tuple[Action, ...]:
        self._is_over = True
        stops = tuple(StopAttempt(*key) for key in self._running)
        self._running.clear()
        return (*stops, outcome)

    # -- errors -----------------------------------------------------------------------------------------------------------

    def _poison(self, task: int, error: QEngineError) -> QEngineError:
        deaths = self._troubles[task].deaths
        return PoisonTaskError(
            f"{self._describe(task)} ended {deaths} processes that ran it, and is not tried again; last: {error}",
            hint="the statement may need more memory than a slot has: restrict it, or have fewer tasks run at once",
        )

    def _exhausted(self, task: int, error: QEngineError) -> QEngineError:
        message = f"{self._describe(task)} failed {self._troubles[task].failures} times; last: {error}"
        if isinstance(error, ClusterError):
            return RangesUnavailableError(
                message, hint="start workers again; the coordinator's log says how each was lost", details=error.details
            )
        return type(error)(message, hint=error.hint, details=error.details)

    def _deserted(self) -> QEngineError:
        missing = [task for task in range(self._count) if task not in self._done]
        named = ", ".join(self._describe(task) for task in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        return RangesUnavailableError(
            f"no worker can be reached that could serve {named}{more}",
            hint="start workers again; the coordinator's log says how each was lost",
        )
