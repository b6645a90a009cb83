"""Counts what happens in a run, and makes its report."""

from __future__ import annotations

from collections import Counter

from qengine.coordinator.moves import StartAttempt
from qengine.coordinator.report import DispatchReport, TaskReport, WorkerReport
from qengine.plan.physical import QueryId, TaskStats, WorkerId


class Tally:
    """Figures of one run while it goes on. Times are on the loop's clock."""

    def __init__(self, query: QueryId, task_count: int) -> None:
        self.tasks: list[TaskReport] = []
        self.rows = 0
        self.dropped = 0
        self.stopped = 0
        self.stale = 0
        self.is_limit_met = False
        self.began_at = 0.0
        self._query = query
        self._task_count = task_count
        self._first_row_at: float | None = None
        self._ended_at: float | None = None
        self._workers: dict[tuple[int, int], WorkerId] = {}
        self._clocks: dict[tuple[int, int], float] = {}
        self._failures: Counter[WorkerId] = Counter()
        self._backups = 0
        self._retries = 0

    def begin(self, at: float) -> None:
        self.began_at = at

    def first_row(self, at: float) -> None:
        if self._first_row_at is None:
            self._first_row_at = at

    def end(self, at: float) -> None:
        self._ended_at = at

    def sent(self, action: StartAttempt, at: float) -> None:
        self._workers[action.task, action.attempt] = action.worker
        self._clocks[action.task, action.attempt] = at
        self._backups += action.is_backup
        self._retries += action.attempt > 1 and not (action.is_backup or action.is_move)

    def waited(self, key: tuple[int, int], until: float) -> None:
        """The attempt has a slot. What it waited for one, behind others or for partitions, is no cost of dispatch."""
        self._clocks[key] = until

    def failed(self, key: tuple[int, int]) -> None:
        self._failures[self._workers[key]] += 1

    def admitted(self, key: tuple[int, int], stats: TaskStats, at: float) -> None:
        self.rows += stats.rows
        lasted_s = at - self._clocks[key]
        self.tasks.append(
            TaskReport(
                number=key[0],
                attempt=key[1],
                worker=self._workers[key],
                rows=stats.rows,
                result_bytes=stats.result_bytes,
                input_bytes=stats.input_bytes,
                elapsed_s=stats.elapsed_s,
                cpu_s=stats.cpu_s,
                is_spooled=bool(stats.spool),
                overhead_s=max(0.0, lasted_s - stats.elapsed_s),
            )
        )

    def report(self, lane: str) -> DispatchReport:
        """The figures up to now."""
        elapsed_s = (self._ended_at or self.began_at) - self.began_at
        return DispatchReport(
            query=self._query,
            lane=lane,
            task_count=self._task_count,
            attempts=len(self._workers),
            retries=self._retries,
            backups=self._backups,
            dropped=self.dropped,
            stopped=self.stopped,
            stale=self.stale,
            rows=self.rows,
            result_bytes=sum(task.result_bytes for task in self.tasks),
            input_bytes=sum(task.input_bytes for task in self.tasks),
            elapsed_s=elapsed_s,
            first_row_s=elapsed_s if self._first_row_at is None else self._first_row_at - self.began_at,
            is_limit_met=self.is_limit_met,
            tasks=tuple(self.tasks),
            began_at=self.began_at,
            workers=tuple(self._worker(worker) for worker in sorted(set(self._workers.values()))),
        )

    def _worker(self, worker: WorkerId) -> WorkerReport:
        tasks = [task for task in self.tasks if task.worker == worker]
        return WorkerReport(
            worker=worker,
            attempts=sum(other == worker for other in self._workers.values()),
            failures=self._failures[worker],
            admitted=len(tasks),
            rows=sum(task.rows for task in tasks),
            result_bytes=sum(task.result_bytes for task in tasks),
            input_bytes=sum(task.input_bytes for task in tasks),
            elapsed_s=sum(task.elapsed_s for task in tasks),
            cpu_s=sum(task.cpu_s for task in tasks),
        )
