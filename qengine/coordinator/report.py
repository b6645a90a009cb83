"""What happened when a fragment ran: the figures of EXPLAIN ANALYZE and of progress bars."""

from __future__ import annotations

from dataclasses import dataclass

from qengine.plan.physical import QueryId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run so far. `done_cost` of `total_cost` weighs tasks by their estimated bytes, running ones by what their workers say;
    `fraction` is their ratio, 1 for a run that needs no more tasks (`is_over`)."""

    query: QueryId
    tasks: int
    finished: int
    running: int
    rows: int
    fraction: float
    done_cost: float = 0.0
    total_cost: float = 0.0
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """One admitted task: the attempt that counted, where it ran and what it did there."""

    number: int
    attempt: int
    worker: WorkerId
    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    cpu_s: float
    is_spooled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """One worker's share: all its attempts, and figures of those that were admitted."""

    worker: WorkerId
    attempts: int
    failures: int
    admitted: int
    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchReport:
    """A whole run. `dropped` attempts finished too late, `stopped` ones were ended by us; `stale` events belonged to an older epoch
    or attempt. `tasks` is in the order of admission; without a limit or an error it has one entry for each of `task_count`."""

    query: QueryId
    lane: str
    task_count: int
    attempts: int
    retries: int
    backups: int
    dropped: int
    stopped: int
    stale: int
    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    first_row_s: float
    is_limit_met: bool
    tasks: tuple[TaskReport, ...]
    workers: tuple[WorkerReport, ...]
