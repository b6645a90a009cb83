"""The scheduler alone: every rule of its module docstring, and a random machine that plays workers, slots and time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qengine.coordinator.moves import (
    Action,
    AdmitAttempt,
    Cancelled,
    DropAttempt,
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
from qengine.coordinator.placement import rank_workers
from qengine.coordinator.schedule import Policy, Scheduler
from qengine.errors import (
    ClusterError,
    ExecutionError,
    IntegrityError,
    PoisonTaskError,
    QEngineError,
    QueryCancelledError,
    QueryTimeoutError,
    RangesUnavailableError,
    WorkerLostError,
)
from qengine.plan.physical import WorkerId

A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


def scheduler(costs: list[float], workers: tuple[WorkerId, ...] = (A, B), **policy: object) -> Scheduler:
    """Tasks whose preferred workers are `workers` in the given order, all of them."""
    rankings = np.tile(np.arange(len(workers), dtype=np.int32), (len(costs), 1))
    return Scheduler(
        np.array(costs),
        rankings,
        workers,
        alive=workers,
        policy=Policy(**policy),  # type: ignore[arg-type]
        describe=lambda number: f"range {number}",
    )


def start(machine: Scheduler, *workers: WorkerId, at: float = 0.0) -> StartAttempt:
    """Offer slots and run what is started."""
    (action,) = machine.handle(SlotsFree(workers, at))
    assert isinstance(action, StartAttempt)
    machine.handle(TaskStarted(action.task, action.attempt, at))
    return action


def test_a_task_waits_on_a_busy_worker_until_an_idle_slot_takes_it_over() -> None:
    machine = scheduler([5, 4, 3])
    start(machine, A)
    start(machine, B)
    (ahead,) = machine.handle(RoomAhead((A, B), 0))
    assert ahead == StartAttempt(2, 1, A, is_ahead=True)
    assert machine.handle(RoomAhead((A, B), 0)) == (), "nothing is left"
    assert machine.handle(SlotsFree((A,), 0)) == (), "it waits there already"
    assert machine.handle(SlotsFree((B,), 1, is_idle=False)) == (), "others need the slot"
    machine.handle(TaskFinished(1, 1, 1))
    assert machine.handle(SlotsFree((B,), 1)) == (StopAttempt(2, 1), StartAttempt(2, 2, B, is_move=True))
    assert machine.handle(TaskFinished(2, 1, 1.5)) == (DropAttempt(2, 1),), "it had begun after all"
    assert machine.handle(SlotsFree((A,), 1.5)) == (), "what was started in a free slot stays there"
    assert machine.handle(TaskFinished(2, 2, 2)) == (AdmitAttempt(2, 2),)


def test_what_runs_is_not_taken_over() -> None:
    machine = scheduler([5, 4])
    start(machine, A)
    machine.handle(RoomAhead((A,), 0))
    machine.handle(TaskFinished(0, 1, 1))
    machine.handle(TaskStarted(1, 1, 1))
    assert machine.handle(SlotsFree((B,), 1)) == ()


def test_long_tasks_and_those_that_may_not_be_needed_do_not_wait_on_workers() -> None:
    for policy in ({"order": "given"}, {"ramp": 4}):
        machine = scheduler([1, 1, 1], **policy)
        start(machine, A)
        assert machine.handle(RoomAhead((A,), 0)) == ()
    machine = scheduler([1, 1, 1])
    start(machine, A)
    machine.handle(TaskFinished(0, 1, 60))
    assert machine.handle(RoomAhead((A,), 60)) == ()


def test_waiting_on_workers_that_are_lost_does_not_count_against_a_task() -> None:
    machine = scheduler([5, 4], max_attempts=1)
    start(machine, A)
    machine.handle(RoomAhead((A,), 0))
    machine.handle(TaskFinished(0, 1, 1))
    assert machine.handle(TaskFailed(1, 1, WorkerLostError("x"), 1)) == ()
    assert start(machine, A, B, at=2) == StartAttempt(1, 2, B)
    assert error_of(machine.handle(TaskFailed(1, 2, WorkerLostError("x"), 3)))


def error_of(actions: tuple[Action, ...]) -> QEngineError:
    assert isinstance(actions[-1], FailQuery)
    return actions[-1].error


def test_largest_first_and_given_order() -> None:
    machine = scheduler([1, 5, 3])
    assert [start(machine, A).task for _ in range(3)] == [1, 2, 0]
    assert machine.handle(SlotsFree((A, B), 0)) == ()
    machine = scheduler([1, 5, 3], order="given")
    assert [start(machine, A).task for _ in range(3)] == [0, 1, 2]


def test_a_task_goes_to_its_preferred_worker_and_an_idle_worker_takes_anothers() -> None:
    rankings = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.int32)
    machine = Scheduler(np.array([1.0, 2.0, 3.0]), rankings, (A, B), alive=(A, B), policy=Policy(), describe=str)
    assert start(machine, A, B) == StartAttempt(2, 1, A)
    assert start(machine, A, B) == StartAttempt(1, 1, B)
    assert start(machine, B) == StartAttempt(0, 1, B)


def test_no_tasks_is_the_end() -> None:
    assert scheduler([]).handle(Tick(0)) == (FinishQuery(),)


def test_finished_tasks_are_admitted_and_the_last_one_ends_the_query() -> None:
    machine = scheduler([2, 1])
    first, second = start(machine, A), start(machine, B)
    assert machine.handle(TaskFinished(second.task, 1, 1)) == (AdmitAttempt(second.task, 1),)
    assert machine.handle(TaskFinished(first.task, 1, 1)) == (AdmitAttempt(first.task, 1), FinishQuery())
    assert machine.is_over


def test_a_retry_goes_to_another_worker_and_the_late_result_is_dropped() -> None:
    machine = scheduler([1])
    start(machine, A)
    assert machine.handle(TaskFailed(0, 1, ClusterError("broke"), 1)) == ()
    assert machine.handle(SlotsFree((A,), 1)) == ()
    assert start(machine, A, B, at=1) == StartAttempt(0, 2, B)
    assert machine.handle(TaskFinished(0, 1, 2)) == (DropAttempt(0, 1),)
    assert machine.handle(TaskFinished(0, 2, 2)) == (AdmitAttempt(0, 2), FinishQuery())
    assert machine.handle(TaskFinished(0, 2, 2)) == (DropAttempt(0, 2),)


def test_a_retry_on_the_same_worker_waits() -> None:
    machine = scheduler([1], (A,), pause_s=1.0)
    start(machine, A)
    machine.handle(TaskFailed(0, 1, ClusterError("broke"), 1))
    assert machine.handle(SlotsFree((A,), 1.5)) == ()
    assert start(machine, A, at=2.0) == StartAttempt(0, 2, A)
    machine.handle(TaskFailed(0, 2, ClusterError("broke"), 3))
    assert machine.handle(SlotsFree((A,), 4.5)) == ()
    assert start(machine, A, at=5.0).attempt == 3


def test_user_errors_end_the_query_at_once() -> None:
    machine = scheduler([1, 1])
    start(machine, A)
    start(machine, B)
    error = ExecutionError("overflow")
    assert machine.handle(TaskFailed(0, 1, error, 1)) == (StopAttempt(1, 1), FailQuery(error))
    assert machine.handle(TaskFinished(1, 1, 2)) == (DropAttempt(1, 1),)


@pytest.mark.parametrize(
    ("raised", "expected"), [(ClusterError("broke"), RangesUnavailableError), (IntegrityError("bit flip"), IntegrityError)]
)
def test_after_the_last_attempt_the_query_fails_and_names_the_range(raised: QEngineError, expected: type[QEngineError]) -> None:
    machine = scheduler([1], (A, B), max_attempts=3)
    for number, worker in enumerate((A, B)):
        assert start(machine, worker, at=number).worker == worker
        assert machine.handle(TaskFailed(0, number + 1, raised, number)) == ()
    start(machine, A, at=100)
    error = error_of(machine.handle(TaskFailed(0, 3, raised, 101)))
    assert type(error) is expected
    assert "range 0" in str(error)
    assert raised.message in str(error)


def test_a_task_that_ends_two_processes_is_poison() -> None:
    machine = scheduler([1], (A, B, C))
    start(machine, A)
    machine.handle(TaskFailed(0, 1, WorkerLostError("slot died"), 1))
    start(machine, B, at=1)
    error = error_of(machine.handle(WorkerLost(B, 2)))
    assert isinstance(error, PoisonTaskError)
    assert "range 0" in str(error)


def test_attempts_that_never_started_are_no_deaths() -> None:
    machine = scheduler([1], (A, B, C))
    for number, worker in enumerate((A, B)):
        machine.handle(SlotsFree((worker,), number))
        assert machine.handle(TaskFailed(0, number + 1, WorkerLostError("no route"), number)) == ()
    assert start(machine, C, at=9) == StartAttempt(0, 3, C)


def test_a_lost_worker_loses_its_attempts_and_its_queue() -> None:
    machine = scheduler([3, 2, 1])
    start(machine, A)
    assert machine.handle(WorkerLost(A, 1)) == (StopAttempt(0, 1),)
    assert machine.handle(SlotsFree((A,), 1)) == ()
    assert [start(machine, B, at=1) for _ in range(3)] == [StartAttempt(0, 2, B), StartAttempt(1, 1, B), StartAttempt(2, 1, B)]


def test_without_workers_the_query_waits_and_then_names_what_is_missing() -> None:
    machine = scheduler([1] * 7, (A,), patience_s=3)
    machine.handle(TaskFinished(start(machine, A).task, 1, 1))
    machine.handle(WorkerLost(A, 10))
    assert machine.handle(Tick(12.9)) == ()
    error = error_of(machine.handle(Tick(13)))
    assert isinstance(error, RangesUnavailableError)
    assert "range 1, range 2, range 3, range 4, range 5 and 1 more" in str(error)


def test_a_worker_that_comes_back_ends_the_wait() -> None:
    machine = scheduler([1], (A,), patience_s=3)
    machine.handle(WorkerLost(A, 10))
    machine.handle(WorkerJoined(A))
    assert machine.handle(Tick(20)) == ()
    assert start(machine, A, at=20) == StartAttempt(0, 1, A)


def test_no_worker_from_the_beginning() -> None:
    machine = Scheduler(
        np.ones(1), np.zeros((1, 1), dtype=np.int32), (A,), alive=(), policy=Policy(patience_s=3), describe=lambda n: f"range {n}"
    )
    assert machine.handle(Tick(5)) == ()
    assert isinstance(error_of(machine.handle(Tick(8))), RangesUnavailableError)


def test_a_straggler_runs_twice_and_the_first_result_counts() -> None:
    machine = scheduler([1, 1, 1])
    for worker in (A, B, A):
        start(machine, worker)
    machine.handle(TaskFinished(0, 1, 1))
    machine.handle(TaskFinished(1, 1, 1))
    assert machine.handle(SlotsFree((A, B), 3.0)) == ()
    assert machine.handle(SlotsFree((A,), 3.1)) == ()
    assert machine.handle(SlotsFree((A, B), 3.1, is_idle=False)) == (), "others need the slot"
    backup = start(machine, A, B, at=3.1)
    assert backup == StartAttempt(2, 2, B, is_backup=True)
    assert machine.handle(SlotsFree((A, B), 50)) == ()
    assert machine.handle(TaskFinished(2, 2, 51)) == (AdmitAttempt(2, 2), StopAttempt(2, 1), FinishQuery())


def test_waiting_on_a_worker_is_no_straggling() -> None:
    machine = scheduler([1, 1, 1], straggler_min_s=1.0)
    first, second = start(machine, A), start(machine, B)
    (ahead,) = machine.handle(RoomAhead((A,), 0))
    assert isinstance(ahead, StartAttempt)
    machine.handle(TaskFinished(first.task, first.attempt, 1))
    machine.handle(TaskFinished(second.task, second.attempt, 1))
    assert not machine.handle(SlotsFree((A, B), 9)), "its worker has it begin any moment"
    machine.handle(TaskStarted(ahead.task, ahead.attempt, 9))
    assert not machine.handle(SlotsFree((A, B), 11)), "it takes no longer than the others"
    assert start(machine, A, B, at=99) == StartAttempt(ahead.task, 2, B, is_backup=True)


def test_a_task_that_does_not_begin_on_a_free_worker_is_a_straggler() -> None:
    machine = scheduler([1, 1, 1], straggler_min_s=1.0)
    first, second = start(machine, A), start(machine, B)
    (ahead,) = machine.handle(RoomAhead((A,), 0))
    assert isinstance(ahead, StartAttempt)
    machine.handle(TaskFinished(first.task, first.attempt, 1))
    machine.handle(TaskFinished(second.task, second.attempt, 1))
    assert not machine.handle(SlotsFree((A, B), 9))
    assert start(machine, A, B, at=13) == StartAttempt(ahead.task, 2, B, is_backup=True)


def test_large_tasks_and_spooled_ones_are_no_stragglers() -> None:
    machine = scheduler([10, 1, 1])
    for worker in (A, B, B):
        start(machine, worker)
    machine.handle(TaskFinished(1, 1, 1))
    machine.handle(TaskFinished(2, 1, 1))
    assert machine.handle(SlotsFree((A, B), 29)) == ()
    machine.handle(TaskSpooled(0, 1))
    assert machine.handle(SlotsFree((A, B), 100)) == ()


def test_a_failed_backup_leaves_the_first_attempt_alone() -> None:
    machine = scheduler([1, 1])
    start(machine, A)
    start(machine, B)
    machine.handle(TaskFinished(1, 1, 1))
    assert start(machine, B, at=9).is_backup
    assert machine.handle(TaskFailed(0, 2, ClusterError("broke"), 10)) == ()
    assert machine.handle(SlotsFree((A, B), 11)) == ()
    assert machine.handle(TaskFinished(0, 1, 12)) == (AdmitAttempt(0, 1), FinishQuery())


def test_a_limited_query_starts_few_and_doubles() -> None:
    machine = scheduler([1] * 20, ramp=2, order="given")
    running = [start(machine, A) for _ in range(2)]
    assert machine.handle(SlotsFree((A, B), 0)) == ()
    for round_size in (4, 8):
        for attempt in running:
            machine.handle(TaskFinished(attempt.task, 1, 1))
        running = [start(machine, A) for _ in range(round_size)]
        assert machine.handle(SlotsFree((A, B), 0)) == ()
    actions = machine.handle(LimitMet())
    assert actions == (*(StopAttempt(attempt.task, 1) for attempt in running), FinishQuery())


def test_cancel_and_deadline() -> None:
    machine = scheduler([1])
    start(machine, A)
    actions = machine.handle(Cancelled())
    assert actions[0] == StopAttempt(0, 1)
    assert isinstance(error_of(actions), QueryCancelledError)
    machine = scheduler([1], deadline_at=5)
    assert machine.handle(Tick(4.9)) == ()
    assert isinstance(error_of(machine.handle(Tick(5))), QueryTimeoutError)


class Cluster(RuleBasedStateMachine):
    """Three workers that live and die, attempts that end in any way and order, late and doubled messages. Whatever happens: a task is
    admitted at most once, and a query that finishes has admitted all of them."""

    @initialize(costs=st.lists(st.sampled_from([0.0, 1.0, 5.0]), min_size=1, max_size=5), ramp=st.sampled_from([0, 1, 2]))
    def begin(self, costs: list[float], ramp: int) -> None:
        self.workers = (A, B, C)
        self.count = len(costs)
        cells = np.arange(self.count, dtype=np.int64) << 52
        self.alive = set(self.workers)
        self.machine = Scheduler(
            np.array(costs),
            rank_workers(cells, self.workers),
            self.workers,
            alive=self.workers,
            policy=Policy(ramp=ramp, patience_s=10, straggler_min_s=1, deadline_at=500),
            describe=lambda number: f"range {number}",
        )
        self.now = 0.0
        self.running: dict[tuple[int, int], WorkerId] = {}
        self.history: list[tuple[int, int]] = []
        self.admitted: Counter[int] = Counter()
        self.outcome: FinishQuery | FailQuery | None = None
        self.is_limited = False

    def take(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case StartAttempt():
                    key = (action.task, action.attempt)
                    assert self.outcome is None
                    assert action.worker in self.alive
                    assert key not in self.history, "attempt numbers are used once"
                    assert self.admitted[action.task] == 0, "what is admitted is not run again"
                    assert all(worker != action.worker for (task, _), worker in self.running.items() if task == action.task)
                    assert action.is_backup == any(task == action.task for task, _ in self.running)
                    self.running[key] = action.worker
                    self.history.append(key)
                case StopAttempt():
                    del self.running[action.task, action.attempt]
                case AdmitAttempt():
                    self.admitted[action.task] += 1
                case FinishQuery() | FailQuery():
                    assert self.outcome is None, "a query ends once"
                    assert not self.running, "everything is stopped at the end"
                    self.outcome = action
                case DropAttempt():
                    pass

    @rule(workers=st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True))
    def offer(self, workers: list[WorkerId]) -> None:
        self.take(self.machine.handle(SlotsFree(tuple(workers), self.now)))

    @rule(workers=st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True))
    def offer_ahead(self, workers: list[WorkerId]) -> None:
        self.take(self.machine.handle(RoomAhead(tuple(workers), self.now)))

    @rule()
    def offer_everything(self) -> None:
        """Long enough after the last start that what still runs is a straggler."""
        self.now += 3.5
        for _ in range(2 * self.count):
            self.take(self.machine.handle(SlotsFree(self.workers, self.now)))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin_attempt(self, data: st.DataObject) -> None:
        self.take(self.machine.handle(TaskStarted(*data.draw(st.sampled_from(sorted(self.running))), self.now)))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def spool(self, data: st.DataObject) -> None:
        self.take(self.machine.handle(TaskSpooled(*data.draw(st.sampled_from(sorted(self.running))))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        actions = self.machine.handle(TaskFinished(*key, self.now))
        assert AdmitAttempt(*key) in actions
        self.take(actions)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def finish_late_or_twice(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.history)))
        if key not in self.running:
            assert self.machine.handle(TaskFinished(*key, self.now)) == (DropAttempt(*key),)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), error=st.sampled_from([ClusterError("x"), WorkerLostError("x"), IntegrityError("x")]))
    def fail(self, data: st.DataObject, error: QEngineError) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        self.take(self.machine.handle(TaskFailed(*key, error, self.now)))

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def fail_late(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.history)))
        if key not in self.running:
            assert self.machine.handle(TaskFailed(*key, ExecutionError("late"), self.now)) == ()

    @rule(worker=st.sampled_from([A, B, C]))
    def lose(self, worker: WorkerId) -> None:
        self.alive.discard(worker)
        self.take(self.machine.handle(WorkerLost(worker, self.now)))
        assert worker not in self.running.values()

    @rule(worker=st.sampled_from([A, B, C]))
    def join(self, worker: WorkerId) -> None:
        self.alive.add(worker)
        self.take(self.machine.handle(WorkerJoined(worker)))

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.machine.handle(Tick(self.now)))

    @precondition(lambda self: len(self.history) > 5)
    @rule()
    def limit(self) -> None:
        self.is_limited = self.is_limited or self.outcome is None
        self.take(self.machine.handle(LimitMet()))

    @invariant()
    def admits_once(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert all(count == 1 for count in self.admitted.values())
        if isinstance(self.outcome, FinishQuery) and not self.is_limited:
            assert len(self.admitted) == self.count

    def teardown(self) -> None:
        """From wherever it is, a cluster that works from now on brings the query to its end: nothing is forgotten."""
        if not hasattr(self, "machine"):
            return
        for worker in self.workers:
            self.join(worker)
        for _ in range(20 * self.count):
            self.now += 2.0
            self.take(self.machine.handle(SlotsFree(self.workers, self.now)))
            for key in sorted(self.running):
                if key in self.running:
                    del self.running[key]
                    self.take(self.machine.handle(TaskFinished(*key, self.now)))
        assert self.outcome is not None
        self.admits_once()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
