"""The fault-injecting channel does what its plan says, so that tests that use it test something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from qengine.errors import IntegrityError, QueryTooLargeError, WorkerLostError
from qengine.plan.physical import Batch, Failed, Finished, Progress, Started, Task, TaskEvent
from qengine.transport.inprocess import InProcessChannel
from qengine.worker.local import in_process_channel
from tests.support.faulty_channel import LETHAL, Fault, FaultyChannel, first_attempts, no_faults, random_plan
from tests.support.tasks import collect, error_of, make_task, rows_of, started

Make = Callable[[], InProcessChannel]
ROWS = "SELECT range AS i FROM range(200000)"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda: in_process_channel(tmp_path, slots=1)


def _run(make: Make, fault: Fault, task: Task) -> list[TaskEvent]:
    async def run() -> list[TaskEvent]:
        channel = FaultyChannel(make(), first_attempts(fault))
        try:
            return await collect(channel.run(task))
        finally:
            await channel.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "kinds", "error"),
    [
        (Fault.REFUSED, [Failed], WorkerLostError),
        (Fault.AFTER_STARTED, [Started, Failed], WorkerLostError),
        (Fault.MID_BATCH, [Started, Batch, Failed], WorkerLostError),
        (Fault.BEFORE_FINISHED, [Started, Batch, Batch, Batch, Batch, Failed], WorkerLostError),
        (Fault.CORRUPT, [Started, Batch, Batch, Batch, Batch, Failed], IntegrityError),
        (Fault.TOO_LARGE, [Started, Batch, Batch, Batch, Batch, Failed], QueryTooLargeError),
    ],
)
def test_first_attempt_fails_and_the_second_is_whole(make: Make, fault: Fault, kinds: list[type], error: type[Exception]) -> None:
    events = _run(make, fault, make_task(ROWS))
    assert [type(e) for e in events if not isinstance(e, Progress)] == kinds
    assert type(error_of(events)) is error
    assert len(rows_of(_run(make, fault, make_task(ROWS, attempt=1)))) == 200000


def test_duplicates_carry_an_older_attempt(make: Make) -> None:
    events = _run(make, Fault.DUPLICATE, make_task(ROWS))
    assert isinstance(events[-1], Finished)
    batches = [e for e in events if isinstance(e, Batch)]
    assert sum(e.rows.num_rows for e in batches if e.attempt == 0) == 200000
    assert sum(e.rows.num_rows for e in batches if e.attempt == -1) == 200000


def test_hanging_ends_when_the_caller_closes(make: Make) -> None:
    async def run() -> None:
        channel = FaultyChannel(make(), first_attempts(Fault.HANGS))
        events = channel.run(make_task(ROWS))
        await started(events)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(events)
        assert len(rows_of(await collect(channel.run(make_task(ROWS, attempt=1))))) == 200000
        await channel.close()

    asyncio.run(run())


def test_random_plan_is_the_same_in_any_order() -> None:
    plan = random_plan(7, rate=0.5)
    tasks = [make_task(ROWS, number=n, attempt=a) for n in range(50) for a in range(4)]
    faults = {str(t.id) + str(t.attempt): plan(t) for t in tasks}
    assert {str(t.id) + str(t.attempt): random_plan(7, rate=0.5)(t) for t in reversed(tasks)} == faults
    assert {plan(t) for t in tasks} == {Fault.NONE, *LETHAL}
    assert all(plan(t) is Fault.NONE for t in tasks if t.attempt >= 2)
    assert no_faults(tasks[0]) is Fault.NONE
