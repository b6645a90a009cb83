"""Runs the steps of a statement, one round after another, until the rest can be planned with everything known.

A round takes the outermost steps out of the statement (`plan.broadcast`), runs them side by side (each settled by the same rule
first), and puts their rows into the catalogue as replicated tables. A step whose rows outgrow the limit is stopped and forbidden,
and the round is planned again without it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_arrow
from qengine.coordinator.attempt import close_stream
from qengine.coordinator.execute import Execution, Executor
from qengine.coordinator.planning import Planner, columns_of
from qengine.errors import BugError
from qengine.plan.broadcast import Step, step_table, with_tables
from qengine.plan.dynamic import fold
from qengine.plan.fragment import PhysicalPlan
from qengine.plan.logical import Tree
from qengine.plan.physical import QueryId
from qengine.sql.deep import start_deep

log = logging.getLogger(__name__)

T = TypeVar("T")

_FRAGMENTS = 1000
"""Fragments of a query are numbered from here on for its first step, from twice that for the second, and so on."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step that has run: its plan with everything known, and what happened."""

    step: Step
    execution: Execution
    plan: PhysicalPlan
    rows: int


class StagedExecution:
    """A statement whose steps run first. `run` yields the rows of the answer; `plan` is known once the first has come. `check` is
    asked about every plan before it runs, and raises what forbids it."""

    def __init__(
        self, executor: Executor, planner: Planner, query: QueryId, *, check: Callable[[PhysicalPlan, Tree], None] | None = None
    ) -> None:
        self.steps: list[StepRun] = []
        self._executor = executor
        self._planner = planner
        self._query = query
        self._check = check or (lambda plan, tree: None)
        self._numbers = itertools.count(1)
        self._main: tuple[PhysicalPlan, Execution] | None = None
        self._started: list[Execution] = []

    @property
    def plan(self) -> PhysicalPlan:
        """The plan of the main statement."""
        if self._main is None:
            raise BugError("the statement has not been planned: its steps have not run")
        return self._main[0]

    @property
    def actual(self) -> tuple[Mapping[str, Any], ...]:
        """What happened in the main statement, one mapping of figures per leaf; complete when the rows have ended."""
        return self._main[1].actual if self._main is not None else ()

    @property
    def executions(self) -> tuple[Execution, ...]:
        """All that runs or has run so far, steps first."""
        return (*self._started, *(() if self._main is None else (self._main[1],)))

    @property
    def has_main(self) -> bool:
        """Whether the main statement is planned: until then how much there is to do is not known."""
        return self._main is not None

    @property
    def exchanged(self) -> Mapping[str, Any] | None:
        """What happened in the main statement's exchange, if it has one."""
        return self._main[1].exchanged if self._main is not None else None

    async def run(self, tree: Tree, catalog: Catalog, columns: tuple[OutputColumn, ...]) -> AsyncGenerator[pa.RecordBatch, None]:
        """Run the steps, then the statement; yield its rows."""
        tree, catalog = await self._settle(tree, catalog)
        plan = await _in_thread(partial(self._planner.plan, tree, catalog, columns))
        self._check(plan, tree)
        execution = self._executor.start(self._query, plan)
        self._main = plan, execution
        try:
            async for batch in execution.batches:
                yield batch
        finally:
            await close_stream(execution.batches, 5.0)

    async def _settle(self, tree: Tree, catalog: Catalog) -> tuple[Tree, Catalog]:
        """Return the statement without steps, and the catalogue with their rows."""
        forbidden: set[str] = set()
        done: dict[str, pa.Table] = {}
        while True:
            prefix = f"b{next(self._numbers)}_"
            staged = await _in_thread(partial(self._planner.stage, tree, catalog, forbidden=forbidden, prefix=prefix))
            if not staged.steps:
                return tree, catalog
            missing = list({step.signature: step for step in staged.steps if step.signature not in done}.values())
            results = await _all([self._rows(step, catalog) for step in missing])
            for step, rows in zip(missing, results, strict=True):
                if rows is None:
                    log.info("query %s: step %s is too large to broadcast", self._query, step.name)
                    forbidden.add(step.signature)
                else:
                    done[step.signature] = rows
            if any(rows is None for rows in results):
                continue
            catalog = with_tables(catalog, [step_table(step, done[step.signature]) for step in staged.steps])
            tree = await _in_thread(partial(fold, staged.tree, catalog))

    async def _rows(self, step: Step, catalog: Catalog) -> pa.Table | None:
        """Run a step; return its rows, or None when there are too many."""
        tree, catalog = await self._settle(step.tree, catalog)
        columns = columns_of(step)
        first = next(self._numbers) * _FRAGMENTS
        plan = await _in_thread(partial(self._planner.plan, tree, catalog, columns, first=first))
        self._check(plan, tree)
        execution = self._executor.start(self._query, plan)
        self._started.append(execution)
        schema = pa.schema([(column.name, to_arrow(column.type)) for column in columns])
        batches: list[pa.RecordBatch] = []
        size = 0
        try:
            async for batch in execution.batches:
                batches.append(batch if batch.schema.equals(schema) else batch.cast(schema))
                size += batch.nbytes
                if size > self._planner.limits.actual_bytes:
                    return None
        finally:
            await close_stream(execution.batches, 5.0)
        rows = pa.Table.from_batches(batches, schema=schema)
        self.steps.append(StepRun(step, execution, plan, rows.num_rows))
        return rows


async def _all(waiting: list[Any]) -> list[Any]:
    """Run coroutines side by side; when one fails, end the others before the error goes on."""
    tasks = [asyncio.create_task(one) for one in waiting]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _in_thread(function: Callable[[], T]) -> T:
    return await asyncio.wrap_future(start_deep(function))
