"""A worker channel that fails as it is told: the fault-injecting implementation of the `WorkerChannel` seam.

`FaultyChannel(inner, plan)` passes everything on to a real channel, except that for each attempt `plan` names a fault. Plans are
plain functions, so a test can aim ("attempt 0 of every task dies in mid batch") or roll dice: `random_plan(seed, rate)` decides by a
hash of seed, task and attempt, which is the same whatever order the attempts come in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum

from qengine.errors import IntegrityError, QueryTooLargeError, WorkerLostError
from qengine.plan.physical import Batch, Failed, Finished, Started, Task, TaskEvent
from qengine.transport.channel import WorkerChannel
from tests.support.wrapped_channel import WrappedChannel


class Fault(Enum):
    """What happens to an attempt."""

    NONE = "none"
    REFUSED = "refused before anything ran"
    AFTER_STARTED = "dies after Started"
    MID_BATCH = "dies after the first batch"
    BEFORE_FINISHED = "dies after the last batch"
    HANGS = "says Started and then nothing, until the caller closes"
    DUPLICATE = "sends every batch twice, the copy under an older attempt number"
    LATE = "answers, but slowly"
    CORRUPT = "finds a damaged part"
    TOO_LARGE = "runs out of memory"


LETHAL = (Fault.REFUSED, Fault.AFTER_STARTED, Fault.MID_BATCH, Fault.BEFORE_FINISHED, Fault.CORRUPT)
"""Faults that a retry on another worker, or here, heals."""

Plan = Callable[[Task], Fault]


def no_faults(task: Task) -> Fault:
    return Fault.NONE


def first_attempts(fault: Fault, *, count: int = 1) -> Plan:
    """The first `count` attempts of every task fail like that."""
    return lambda task: fault if task.attempt < count else Fault.NONE


def random_plan(seed: int, *, rate: float = 0.3, faults: Sequence[Fault] = LETHAL, healthy_from: int = 2) -> Plan:
    """A share `rate` of the attempts fails, up to attempt `healthy_from`, so that every task ends well in time."""

    def plan(task: Task) -> Fault:
        dice = random.Random(f"{seed}/{task.id.fragment}/{task.id.number}/{task.attempt}")
        return dice.choice(list(faults)) if task.attempt < healthy_from and dice.random() < rate else Fault.NONE

    return plan


class FaultyChannel(WrappedChannel):
    """A channel around another one. `injected` lists what was done, in order."""

    def __init__(self, inner: WorkerChannel, plan: Plan = no_faults, *, late_s: float = 0.2) -> None:
        super().__init__(inner)
        self._plan = plan
        self._late_s = late_s
        self.injected: list[tuple[Task, Fault]] = []

    async def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        fault = self._plan(task)
        if fault is not Fault.NONE:
            self.injected.append((task, fault))
        if fault is Fault.REFUSED:
            yield _failed(task, WorkerLostError("injected: the worker cannot be reached"))
            return
        events = self._inner.run(task)
        batches = 0
        try:
            async for event in events:
                if isinstance(event, Finished) and fault is not Fault.NONE:
                    match fault:
                        case Fault.LATE:
                            await asyncio.sleep(self._late_s)
                        case Fault.DUPLICATE:
                            pass
                        case Fault.CORRUPT:
                            yield _failed(task, IntegrityError("injected: a part is damaged"))
                            return
                        case Fault.TOO_LARGE:
                            yield _failed(task, QueryTooLargeError("injected: out of memory"))
                            return
                        case _:
                            yield _failed(task, WorkerLostError("injected: the worker died before it finished"))
                            return
                yield event
                if isinstance(event, Started) and fault is Fault.AFTER_STARTED:
                    yield _failed(task, WorkerLostError("injected: the worker died after Started"))
                    return
                if isinstance(event, Started) and fault is Fault.HANGS:
                    await asyncio.Event().wait()
                if isinstance(event, Batch):
                    batches += 1
                    if fault is Fault.MID_BATCH and batches == 1:
                        yield _failed(task, WorkerLostError("injected: the worker died in mid stream"))
                        return
                    if fault is Fault.DUPLICATE:
                        yield Batch(task=task.id, attempt=task.attempt - 1, epoch=task.epoch, rows=event.rows)
        finally:
            await events.aclose()  # type: ignore[attr-defined]


def _failed(task: Task, error: WorkerLostError | IntegrityError | QueryTooLargeError) -> Failed:
    return Failed(task=task.id, attempt=task.attempt, epoch=task.epoch, error=error)
