"""The figures of a run."""

from __future__ import annotations

from qengine.coordinator.moves import StartAttempt
from qengine.coordinator.report import to_actual
from qengine.coordinator.tally import Tally
from qengine.plan.physical import QueryId, TaskStats, WorkerId

STATS = TaskStats(rows=1, result_bytes=8, input_bytes=100, elapsed_s=2.0, cpu_s=1.0)


def test_dispatch_is_what_an_attempt_takes_beside_its_work_and_its_wait() -> None:
    tally = Tally(QueryId("q"), 2)
    tally.begin(0.0)
    for task in (0, 1):
        tally.sent(StartAttempt(task, 1, WorkerId("a")), at=10.0)
    tally.admitted((0, 1), STATS, at=12.25)
    tally.waited((1, 1), until=12.75)
    tally.admitted((1, 1), STATS, at=15.0)
    tally.end(20.0)
    report = tally.report("scan")
    assert [task.overhead_s for task in report.tasks] == [0.25, 0.25]
    assert to_actual(report)["dispatch_ms_per_task"] == 250.0
