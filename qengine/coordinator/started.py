"""A planned query that runs, with or without steps: its rows, how far it is, and afterwards what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pyarrow as pa

from qengine.coordinator.execute import Execution
from qengine.coordinator.planning import PlannedStep
from qengine.coordinator.progress import Work
from qengine.coordinator.report import DispatchReport
from qengine.coordinator.result import AnswerTimes
from qengine.coordinator.steps import StagedExecution
from qengine.plan.explain import ExplainedStep
from qengine.plan.fragment import PhysicalPlan


class StartedQuery:
    """`batches` are the rows of the answer. `plan` is the main statement's, only outlined while there are steps to run."""

    def __init__(
        self,
        plan: PhysicalPlan,
        execution: Execution | StagedExecution,
        batches: AsyncIterator[pa.RecordBatch],
        *,
        steps: tuple[PlannedStep, ...] = (),
    ) -> None:
        self.batches = batches
        self._outline = plan
        self._execution = execution
        self._outlined = _bytes(plan) + sum(map(_step_bytes, steps))

    @property
    def plan(self) -> PhysicalPlan:
        if isinstance(self._execution, StagedExecution) and self._execution.has_main:
            return self._execution.plan
        return self._outline

    @property
    def is_planned(self) -> bool:
        """Whether `plan` is what runs, and not an outline."""
        return isinstance(self._execution, Execution) or self._execution.has_main

    @property
    def actual(self) -> tuple[Mapping[str, Any], ...]:
        """What happened in the main statement, one mapping of figures per leaf; complete when the rows have ended."""
        return self._execution.actual

    @property
    def exchanged(self) -> Mapping[str, Any] | None:
        """What happened in its exchange, if it has one."""
        return self._execution.exchanged

    @property
    def steps(self) -> tuple[ExplainedStep, ...]:
        """The steps that have run."""
        if isinstance(self._execution, Execution):
            return ()
        return tuple(
            ExplainedStep(name=s.step.name, reason=s.step.reason, plan=s.plan, actual=s.execution.actual, rows=s.rows)
            for s in self._execution.steps
        )

    @property
    def work(self) -> Work:
        """How far it is."""
        if isinstance(self._execution, Execution):
            return Work.of(self._execution.progress)
        runs = [run for execution in self._execution.executions for run in execution.progress]
        if self._execution.has_main:
            return Work.of(runs)
        return Work.of(runs, pending=max(0.0, self._outlined - sum(run.total_cost for run in runs)), has_all=False)

    @property
    def reports(self) -> tuple[DispatchReport, ...]:
        """What happened in the leaves of the main statement."""
        if isinstance(self._execution, Execution):
            return tuple(run.report for run in self._execution.runs)
        return tuple(run.report for run in self._execution.executions[-1].runs) if self._execution.has_main else ()

    def times(self, answer: AnswerTimes, planning_s: float) -> Mapping[str, float]:
        """Return how long each station took, in seconds: planning, steps, leaves, merge and delivery follow each other (an answer
        that needs no merge is delivered while leaves run)."""
        reports = [report for report in self.reports if report.began_at]
        leaves_from = min((report.began_at for report in reports), default=answer.began_at)
        leaves_to = max((report.began_at + report.elapsed_s for report in reports), default=answer.began_at)
        has_merge = self.plan.final_sql is not None
        found = {
            "planning": planning_s,
            "steps": max(0.0, leaves_from - answer.began_at) if isinstance(self._execution, StagedExecution) else 0.0,
            "leaves": leaves_to - leaves_from,
            "merge": max(0.0, answer.first_at - leaves_to) if has_merge else 0.0,
            "delivery": max(0.0, answer.ended_at - max(answer.first_at, leaves_to)),
            "total": planning_s + answer.ended_at - answer.began_at,
        }
        return {name: round(seconds, 4) for name, seconds in found.items()}


def _bytes(plan: PhysicalPlan) -> float:
    return sum(float(leaf.costs.sum()) for leaf in plan.leaves)


def _step_bytes(step: PlannedStep) -> float:
    return _bytes(step.plan) + sum(map(_step_bytes, step.steps))
