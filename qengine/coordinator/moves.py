"""What the scheduler is told (events) and what it answers (actions): two closed unions of frozen values.

Times are seconds on the dispatcher's monotonic clock. Tasks are numbers in 0..n-1, attempts of a task count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from qengine.errors import QEngineError
from qengine.plan.physical import WorkerId

# -- events -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """The worker can be given attempts (again)."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker died, fell silent or cannot be reached; nothing that it ran will finish."""

    worker: WorkerId
    at: float


@dataclass(frozen=True, slots=True)
class SlotsFree:
    """Each of these workers has a free slot for this query. At most one `StartAttempt` answers. `is_idle` says that no other query
    could use the slot, so that running something a second time takes nothing from anybody."""

    workers: tuple[WorkerId, ...]
    at: float
    is_idle: bool = True


@dataclass(frozen=True, slots=True)
class RoomAhead:
    """All slots of these workers are busy with this lane, but each lets one more attempt wait, so that the slot which ends first
    goes on at once. At most one `StartAttempt` answers."""

    workers: tuple[WorkerId, ...]
    at: float


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """The attempt left the worker's queue and runs."""

    task: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class TaskSpooled:
    """The attempt is complete, but its rows still have to be fetched: it no longer occupies a slot and is no straggler."""

    task: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """All rows of the attempt are here."""

    task: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The attempt is over, and none of its rows count."""

    task: int
    attempt: int
    error: QEngineError
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. At least once a second."""

    at: float


@dataclass(frozen=True, slots=True)
class LimitMet:
    """The admitted rows are enough."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody wants the answer any more."""


Event = (
    WorkerJoined
    | WorkerLost
    | SlotsFree
    | RoomAhead
    | TaskStarted
    | TaskSpooled
    | TaskFinished
    | TaskFailed
    | Tick
    | LimitMet
    | Cancelled
)

# -- actions ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run the task on the worker. `is_backup`: beside an attempt that is slow; `is_move`: instead of one that still waited
    elsewhere; `is_ahead`: behind others that are running there."""

    task: int
    attempt: int
    worker: WorkerId
    is_backup: bool = False
    is_move: bool = False
    is_ahead: bool = False


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """End the attempt; whatever it has sent does not count."""

    task: int
    attempt: int


@dataclass(frozen=True, slots=True)
class AdmitAttempt:
    """The rows of this attempt are the rows of the task."""

    task: int
    attempt: int


@dataclass(frozen=True, slots=True)
class DropAttempt:
    """The attempt finished too late; forget its rows."""

    task: int
    attempt: int


@dataclass(frozen=True, slots=True)
class FinishQuery:
    """All rows that are needed have been admitted."""


@dataclass(frozen=True, slots=True)
class FailQuery:
    """The query is over without an answer."""

    error: QEngineError


Action = StartAttempt | StopAttempt | AdmitAttempt | DropAttempt | FinishQuery | FailQuery
