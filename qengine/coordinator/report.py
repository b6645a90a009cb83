"""What happened when a fragment ran: the figures of EXPLAIN ANALYZE and of progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """One admitted task: the attempt that counted, where it ran and what it did there. `overhead_s` is what the attempt took on the
    coordinator's clock beyond that, unless it waited for a slot: dispatch, rows and the wire."""

    number: int
    attempt: int
    worker: WorkerId
    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    cpu_s: float
    is_spooled: bool
    overhead_s: float = 0.0


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
    or attempt. `tasks` is in the order of admission; without a limit or an error it has one entry for each of `task_count`.
    `began_at` is on the loop's clock."""

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
    began_at: float = 0.0


def to_actual(report: DispatchReport) -> Mapping[str, Any]:
    """Return the figures of a run as plain values, for EXPLAIN ANALYZE: of the whole run, of its slowest task, of each worker."""
    slowest = max(report.tasks, key=lambda task: task.elapsed_s, default=None)
    overheads = [task.overhead_s for task in report.tasks if not task.is_spooled]
    return {
        "lane": report.lane,
        "tasks": len(report.tasks),
        "attempts": report.attempts,
        "retries": report.retries,
        "backups": report.backups,
        "rows": report.rows,
        "result_bytes": report.result_bytes,
        "part_bytes": report.input_bytes,
        "seconds": round(report.elapsed_s, 4),
        "first_row_s": round(report.first_row_s, 4),
        "worker_seconds": round(sum(worker.elapsed_s for worker in report.workers), 4),
        "cpu_seconds": round(sum(worker.cpu_s for worker in report.workers), 4),
        "dispatch_ms_per_task": round(1000 * sum(overheads) / len(overheads), 2) if overheads else 0.0,
        "is_limit_met": report.is_limit_met,
        "slowest": None
        if slowest is None
        else {
            "task": slowest.number,
            "worker": str(slowest.worker),
            "seconds": round(slowest.elapsed_s, 4),
            "rows": slowest.rows,
            "part_bytes": slowest.input_bytes,
        },
        "workers": [
            {
                "worker": str(one.worker),
                "tasks": one.admitted,
                "attempts": one.attempts,
                "failures": one.failures,
                "rows": one.rows,
                "result_bytes": one.result_bytes,
                "part_bytes": one.input_bytes,
                "seconds": round(one.elapsed_s, 4),
                "cpu_seconds": round(one.cpu_s, 4),
            }
            for one in report.workers
        ],
    }
