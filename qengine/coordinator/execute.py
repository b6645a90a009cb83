"""Stations 7 and 8: run a physical plan on the workers and make the answer of what they send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from qengine.catalog.model import TableSnapshot
from qengine.catalog.types import to_arrow
from qengine.coordinator.attempt import close_stream
from qengine.coordinator.dispatch import Dispatcher, part_of
from qengine.coordinator.exchange import ExchangeRun, can_exchange, figures, partitioned
from qengine.coordinator.merge import Merger
from qengine.coordinator.report import RunProgress, to_actual
from qengine.coordinator.run import Run
from qengine.coordinator.shared import SharedRelations
from qengine.coordinator.source import TaskSource
from qengine.coordinator.top import TopWatch
from qengine.errors import BugError
from qengine.plan.fragment import LeafFragment, PhysicalPlan, task_sql
from qengine.plan.physical import QueryId, Task, TaskId, TaskLimits, WorkerId
from qengine.plan.reading import task_inputs

_CLOSE_S = 5.0
"""How long the end of a plan waits for its streams to close."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A plan that runs. `batches` are the rows of the answer; close it when it is not read to its end."""

    batches: AsyncIterator[pa.RecordBatch]
    runs: tuple[Run, ...]
    exchange: ExchangeRun | None = None

    @property
    def actual(self) -> tuple[Mapping[str, Any], ...]:
        """What happened, one mapping of figures per leaf; complete when `batches` has ended."""
        return tuple(to_actual(run.report) for run in self.runs)

    @property
    def exchanged(self) -> Mapping[str, Any] | None:
        """What happened in the exchange, if the plan has one."""
        return None if self.exchange is None else figures(self.exchange)

    @property
    def progress(self) -> tuple[RunProgress, ...]:
        """How far it is, one entry per run; may be asked at any time."""
        return tuple(run.progress for run in (self.runs if self.exchange is None else self.exchange.runs))


class Executor:
    """Runs plans; nothing starts before the first batch is asked for."""

    def __init__(self, dispatcher: Dispatcher, merger: Merger, limits: TaskLimits) -> None:
        self._dispatcher = dispatcher
        self._merger = merger
        self._limits = limits
        self._releasing: set[asyncio.Task[None]] = set()

    def start(self, query: QueryId, plan: PhysicalPlan) -> Execution:
        """Return the rows of the answer, and the runs of the leaves."""
        part = part_of(query, plan.leaves[0].number if plan.leaves else 0)
        shared = SharedRelations(part, _shared_tables(plan))
        exchange = plan.exchange if plan.exchange is not None and can_exchange(self._dispatcher) else None
        partitioning = {} if exchange is None else exchange.partitioning
        sources = tuple(
            partitioned(_source(part, leaf), partitioning[n]) if n in partitioning else _source(part, leaf)
            for n, leaf in enumerate(plan.leaves)
        )
        runs = tuple(
            self._dispatcher.run(
                source,
                query=part,
                limits=self._limits,
                row_limit=leaf.row_limit,
                shared=shared,
                is_ordered=leaf.top is not None,
                early=TopWatch(leaf.top) if leaf.top is not None and exchange is None else None,
            )
            for source, leaf in zip(sources, plan.leaves, strict=True)
        )
        if exchange is not None:
            run = ExchangeRun(
                self._dispatcher, part, plan, exchange, leaves=runs, sources=sources, shared=shared, limits=self._limits,
                merge=lambda sql, inputs: self._merge(plan, sql, inputs),
            )  # fmt: skip
            return Execution(self._until_released(run.rows(), part, shared, lambda: _touched(run.runs)), runs, run)
        answer = aiter(runs[0]) if plan.final_sql is None else self._merged(plan, plan.final_sql, runs)
        return Execution(self._until_released(answer, part, shared, lambda: _leftovers(runs)), runs)

    def _merged(self, plan: PhysicalPlan, final_sql: str, runs: tuple[Run, ...]) -> AsyncIterator[pa.RecordBatch]:
        inputs: dict[str, tuple[pa.Schema, AsyncIterator[pa.RecordBatch]]] = {}
        for leaf, run in zip(plan.leaves, runs, strict=True):
            schema = pa.schema([(name, to_arrow(found)) for name, found in leaf.columns])
            inputs[leaf.relation] = (schema, aiter(run))
        return self._merge(plan, final_sql, inputs)

    def _merge(
        self, plan: PhysicalPlan, final_sql: str, inputs: dict[str, tuple[pa.Schema, AsyncIterator[pa.RecordBatch]]]
    ) -> AsyncIterator[pa.RecordBatch]:
        for name, table in plan.inline:
            data = _inline(table)
            inputs[name] = (data.schema, _batches(data))
        return self._merger.run(final_sql, inputs, deadline_s=self._limits.deadline_s)

    async def _until_released(
        self,
        answer: AsyncIterator[pa.RecordBatch],
        query: QueryId,
        shared: SharedRelations,
        keepers: Callable[[], frozenset[WorkerId]],
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Pass the rows on; in the end, whatever it is, leave nothing behind on workers."""
        try:
            async for batch in answer:
                yield batch
        finally:
            # Not to be cut short by a second cancellation of the reader: files would stay.
            releasing = asyncio.create_task(self._release(answer, query, shared, keepers))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)
            await asyncio.shield(releasing)

    async def _release(
        self,
        answer: AsyncIterator[pa.RecordBatch],
        query: QueryId,
        shared: SharedRelations,
        keepers: Callable[[], frozenset[WorkerId]],
    ) -> None:
        await close_stream(answer, _CLOSE_S)
        await shared.close()
        await self._dispatcher.release(query, shared.workers | keepers())


def _leftovers(runs: tuple[Run, ...]) -> frozenset[WorkerId]:
    return frozenset[WorkerId]().union(*(run.leftovers for run in runs))


def _touched(runs: tuple[Run, ...]) -> frozenset[WorkerId]:
    return frozenset[WorkerId]().union(*(run.touched for run in runs))


def _source(query: QueryId, leaf: LeafFragment) -> TaskSource:
    # Tasks of TOP n are numbered in the order in which they should run.
    order = np.arange(leaf.task_count) if leaf.top is None else leaf.top.tasks

    def make(number: int) -> Task:
        return Task(
            id=TaskId(query, leaf.number, number), attempt=1, epoch=0, sql=task_sql(leaf, int(order[number])),
            inputs=task_inputs(leaf, int(order[number])),
            sky_joins=leaf.sky_joins,
        )  # fmt: skip

    def describe(number: int) -> str:
        names = ", ".join(i.table.table.full_name for i in leaf.inputs)
        return f"{names} on cells {int(leaf.bounds[order[number]])} to {int(leaf.bounds[order[number] + 1])}"

    return TaskSource(costs=leaf.costs[order].astype(np.float64), cells=leaf.bounds[:-1][order], make=make, describe=describe)


def _shared_tables(plan: PhysicalPlan) -> Mapping[str, pa.Table]:
    """Return the relations that the coordinator has and tasks read."""
    inputs = [i for leaf in plan.leaves for i in leaf.inputs if i.table.inline is not None]
    whole = {i.table.table.full_name: _inline(i.table) for i in inputs if i.near is None}
    return whole | {name: rows for i in inputs if i.near is not None for name, rows in i.near.pieces.items()}


def _inline(table: TableSnapshot) -> pa.Table:
    if table.inline is None:
        raise BugError(f"{table.table.full_name} has no data on the coordinator")
    return table.inline


async def _batches(data: pa.Table) -> AsyncIterator[pa.RecordBatch]:
    for batch in data.to_batches():
        yield batch
