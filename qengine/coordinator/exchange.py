"""Runs a plan whose leaves may write partitions: producers, then either a gather or middles on the workers, then the final part.

1. *Producers.* The leaves that feed middles run first. A task with a small result sends its rows, with the number of each row's
   partition; one with a large result keeps them on its worker, a file per partition, and says which.
2. *Decision.* If no task kept rows, everything is small and is here: the plan's ordinary final part runs over it, and nothing was
   lost but a hash per row. Otherwise each middle runs once per partition, on workers.
3. *Consumers.* The task of a partition reads its files wherever they are (workers fetch them from each other), and what small tasks
   sent of it, which is put on the worker. So the coordinator never sees the rows of large results.
4. *Final part*, over the rows of the middles and of leaves that feed none.

*Lost partitions.* An attempt that cannot read a partition names it, and says so if a whole worker is gone. Exactly the producer
tasks that made what is lost run again; meanwhile no consumer starts, and those that fail are tried again afterwards with the new
files. Consumers that have ended do not care: a producer puts the same rows into the same partitions each time (`plan.middle`), so
each partition has been read from one or the other of its runs, as a whole. Tasks that run again write files whatever their size.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.types import to_arrow
from qengine.coordinator.attempt import close_stream
from qengine.coordinator.dispatch import Dispatcher
from qengine.coordinator.run import Run
from qengine.coordinator.shared import SharedRelations
from qengine.coordinator.source import TaskSource
from qengine.errors import BugError, PartitionLostError, QEngineError, QueryTimeoutError
from qengine.plan.exchange import MiddleFragment, MiddleInput, PlannedExchange
from qengine.plan.fragment import LeafFragment, PhysicalPlan
from qengine.plan.physical import (
    PARTITION,
    Partition,
    Partitioning,
    PartRef,
    QueryId,
    Task,
    TaskId,
    TaskInput,
    TaskLimits,
    TaskStats,
    WorkerId,
    shared_part,
)
from qengine.sky.cells import LINE_END
from qengine.transport.channel import LOCAL, WorkerChannel

log = logging.getLogger(__name__)

_CLOSE_S = 5.0

Batches = AsyncIterator[pa.RecordBatch]
Inputs = dict[str, tuple[pa.Schema, Batches]]
Merge = Callable[[str, Inputs], Batches]
"""Runs a final SELECT over named relations."""


def can_exchange(dispatcher: Dispatcher) -> bool:
    """Say whether all workers find each other: all are threads of this process, or all are reached over the network."""
    return len({dispatcher.address(state.worker).startswith(LOCAL) for state in dispatcher.workers}) <= 1


class ExchangeRun:
    """One plan with an exchange. `leaves` are the runs of its leaves; those that write partitions are made by `producer_source`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        query: QueryId,
        plan: PhysicalPlan,
        exchange: PlannedExchange,
        *,
        leaves: tuple[Run, ...],
        sources: tuple[TaskSource, ...],
        shared: SharedRelations,
        limits: TaskLimits,
        merge: Merge,
    ) -> None:
        self._dispatcher = dispatcher
        self._query = query
        self._plan = plan
        self._exchange = exchange
        self._leaves = leaves
        self._sources = sources
        self._shared = shared
        self._limits = limits
        self._merge = merge
        self._inline: dict[int, pa.Table] = {}
        self._outcomes: dict[int, dict[int, tuple[WorkerId, TaskStats]]] = {}
        self._consumers: dict[str, Run] = {}
        self._repairs: list[Run] = []
        self._lost: dict[int, set[int]] = {}
        self._repairing: asyncio.Task[None] | None = None
        self._ends_at = 0.0
        self.is_gathered = False

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs so far."""
        return (*self._leaves, *self._consumers.values(), *self._repairs)

    @property
    def middles(self) -> tuple[tuple[MiddleFragment, Run], ...]:
        """The middles that run or have run on workers."""
        return tuple((m, self._consumers[m.relation]) for m in self._exchange.middles if m.relation in self._consumers)

    @property
    def remade(self) -> int:
        """How many producer tasks ran again because their partitions were lost."""
        return sum(len(run.outcomes) for run in self._repairs)

    async def rows(self) -> AsyncGenerator[pa.RecordBatch, None]:
        """Yield the rows of the answer."""
        self._ends_at = asyncio.get_running_loop().time() + self._limits.deadline_s
        try:
            await self._produce()
            answer = self._gathered() if not self._has_files() else await self._consumed()
            try:
                async for batch in answer:
                    yield batch
            finally:
                await close_stream(answer, _CLOSE_S)
        finally:
            if self._repairing is not None:
                self._repairing.cancel()
                await asyncio.gather(self._repairing, return_exceptions=True)
            await asyncio.gather(*(run.aclose() for run in self.runs))

    # -- producers --------------------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        await _all(self._collect(leaf) for leaf in self._exchange.partitioning)

    async def _collect(self, leaf: int) -> None:
        """Run a leaf and keep what its tasks sent."""
        run = self._leaves[leaf]
        batches = [batch async for batch in run]
        self._outcomes[leaf] = dict(run.outcomes)
        if batches:
            self._inline[leaf] = pa.Table.from_batches(batches)

    def _has_files(self) -> bool:
        return any(stats.partitions for tasks in self._outcomes.values() for _, stats in tasks.values())

    # -- everything is small ------------------------------------------------------------------------------------------------

    def _gathered(self) -> Batches:
        self.is_gathered = True
        if self._plan.final_sql is None:
            raise BugError("a plan without a final part has an exchange")
        inputs = self._plain_inputs()
        for leaf in self._exchange.partitioning:
            schema = _schema(self._plan.leaves[leaf])
            rows = self._inline.get(leaf)
            inputs[self._plan.leaves[leaf].relation] = schema, _stream([] if rows is None else _plain(rows).to_batches())
        return self._merge(self._plan.final_sql, inputs)

    def _plain_inputs(self) -> Inputs:
        """Return the relations of leaves that feed no middle."""
        return {
            leaf.relation: (_schema(leaf), aiter(self._leaves[number]))
            for number, leaf in enumerate(self._plan.leaves)
            if number not in self._exchange.partitioning
        }

    # -- consumers --------------------------------------------------------------------------------------------------------

    async def _consumed(self) -> Batches:
        for middle in self._exchange.middles:
            source = self._source(middle)
            self._consumers[middle.relation] = self._dispatcher.run(
                source, query=self._query, limits=self._left(), shared=_ConsumerSupplies(self._shared, self._on_failure)
            )
        if self._exchange.final_sql is None:
            (run,) = self._consumers.values()
            return aiter(run)
        first: dict[str, pa.RecordBatch | None] = {}

        async def peek(relation: str, run: Run) -> None:
            first[relation] = await anext(run, None)

        await _all(peek(relation, run) for relation, run in self._consumers.items())
        inputs = self._plain_inputs()
        for relation, run in self._consumers.items():
            if run.schema is None:
                raise BugError(f"no task of {relation} said what its rows are")
            inputs[relation] = run.schema, _after(first[relation], run)
        return self._merge(self._exchange.final_sql, inputs)

    def _source(self, middle: MiddleFragment) -> TaskSource:
        """Return the tasks of a middle: one per partition in which there are rows, at least one, which says what its rows are."""
        for i in middle.inputs:
            self._share(i)
        sizes = {number: self._size(middle, number) for number in range(self._exchange.count)}
        numbers = [number for number, size in sizes.items() if size] or [0]

        def make(place: int) -> Task:
            number = numbers[place]
            inputs = tuple(self._input(i, number) for i in middle.inputs)
            return Task(id=TaskId(self._query, middle.number, place), attempt=1, epoch=0, sql=middle.sql, inputs=inputs)

        step = LINE_END // self._exchange.count
        return TaskSource(
            costs=np.array([sizes[number] for number in numbers], np.float64),
            cells=np.array([number * step for number in numbers], np.int64),
            make=make,
            describe=lambda place: f"partition {numbers[place]} of {middle.relation}",
        )

    def _share(self, i: MiddleInput) -> None:
        """Have what small tasks sent ready for the workers, one relation per partition."""
        if (rows := self._inline.get(i.leaf)) is None:
            return
        for number in pc.unique(rows.column(PARTITION)).to_pylist():
            found = rows.filter(pc.equal(rows.column(PARTITION), pa.scalar(number, rows.schema.field(PARTITION).type)))
            self._shared.add(f"{i.relation}#{number}", _plain(found))

    def _input(self, i: MiddleInput, number: int) -> TaskInput:
        columns = self._plan.leaves[i.leaf].columns
        return TaskInput(
            name=i.relation, parts=tuple(self._parts(i, number)), columns=tuple(name for name, _ in columns),
            types=tuple(found.name for _, found in columns), line_column="",
        )  # fmt: skip

    def _parts(self, i: MiddleInput, number: int) -> list[PartRef]:
        parts = [part.at(self._dispatcher.address(worker)) for _, worker, part in self._files(i.leaf) if part.number == number]
        name = f"{i.relation}#{number}"
        if (rows := self._shared.find(name)) is not None:
            parts.append(shared_part(name, rows))
        return parts

    def _size(self, middle: MiddleFragment, number: int) -> int:
        return sum(part.bytes for i in middle.inputs for part in self._parts(i, number))

    def _files(self, leaf: int) -> list[tuple[int, WorkerId, Partition]]:
        tasks = self._outcomes[leaf]
        return [(task, worker, part) for task, (worker, stats) in sorted(tasks.items()) for part in stats.partitions]

    # -- lost partitions --------------------------------------------------------------------------------------------------

    def _on_failure(self, error: QEngineError) -> None:
        if not isinstance(error, PartitionLostError):
            return
        names = set(error.details.get("partitions", ()))
        addresses = set(error.details.get("addresses", ()))
        for leaf in self._exchange.partitioning:
            for task, worker, part in self._files(leaf):
                if part.name in names or self._dispatcher.address(worker) in addresses:
                    self._lost.setdefault(leaf, set()).add(task)
        if self._lost and self._repairing is None:
            for run in self._consumers.values():
                run.pause()
            self._repairing = asyncio.create_task(self._repair())

    async def _repair(self) -> None:
        """Run the producers of what was lost again; then let consumers go on."""
        try:
            while self._lost:
                lost, self._lost = self._lost, {}
                log.info("query %s: partitions of %d tasks were lost and are made again", self._query, sum(map(len, lost.values())))
                await _all(self._remake(leaf, sorted(tasks)) for leaf, tasks in lost.items())
        except QEngineError as error:
            for run in self._consumers.values():
                run.fail(error)
        except Exception as error:  # a bug of ours must end the query, not hang it
            log.exception("query %s: making partitions again broke", self._query)
            for run in self._consumers.values():
                run.fail(BugError(f"making partitions again raised {error!r}"))
        finally:
            self._repairing = None
            for run in self._consumers.values():
                run.resume()

    async def _remake(self, leaf: int, tasks: list[int]) -> None:
        source = self._sources[leaf]

        def make(place: int) -> Task:
            task = source.make(tasks[place])
            assert task.partition is not None
            return replace(task, partition=replace(task.partition, threshold_bytes=0))

        chosen = TaskSource(
            costs=source.costs[tasks], cells=source.cells[tasks], make=make, describe=lambda place: source.describe(tasks[place])
        )
        run = self._dispatcher.run(chosen, query=self._query, limits=self._left(), shared=self._shared)
        self._repairs.append(run)
        async for _ in run:
            raise BugError("a task that writes partitions sent rows")
        for place, outcome in run.outcomes.items():
            self._outcomes[leaf][tasks[place]] = outcome

    def _left(self) -> TaskLimits:
        """The limits, with the time that is left."""
        left_s = self._ends_at - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise QueryTimeoutError("the deadline of the query passed")
        return replace(self._limits, deadline_s=left_s)


class _ConsumerSupplies:
    """What consumers need: shared relations, and somebody who hears of lost partitions."""

    def __init__(self, shared: SharedRelations, on_failure: Callable[[QEngineError], None]) -> None:
        self._shared = shared
        self._on_failure = on_failure

    async def prepare(self, channel: WorkerChannel, task: Task) -> None:
        await self._shared.prepare(channel, task)

    def failed(self, worker: WorkerId, error: QEngineError) -> None:
        self._shared.failed(worker, error)
        self._on_failure(error)


def partitioned(source: TaskSource, partition: Partitioning) -> TaskSource:
    """Return the tasks of a leaf that write partitions."""
    return replace(source, make=lambda number: replace(source.make(number), partition=partition))


def _plain(rows: pa.Table) -> pa.Table:
    return rows.drop_columns([PARTITION])


def _schema(leaf: LeafFragment) -> pa.Schema:
    return pa.schema([(name, to_arrow(found)) for name, found in leaf.columns])


async def _stream(batches: list[pa.RecordBatch]) -> Batches:
    for batch in batches:
        yield batch


async def _after(first: pa.RecordBatch | None, run: Run) -> Batches:
    try:
        if first is not None:
            yield first
        async for batch in run:
            yield batch
    finally:
        await run.aclose()


async def _all(waiting: Any) -> None:
    """Run coroutines side by side; when one fails, end the others before the error goes on."""
    tasks = [asyncio.create_task(one) for one in waiting]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def figures(exchange: ExchangeRun) -> Mapping[str, Any]:
    """Return what EXPLAIN ANALYZE says about the exchange."""
    if exchange.is_gathered:
        return {"exchanged": False}
    return {
        "exchanged": True,
        "remade_tasks": exchange.remade,
        "middles": {
            m.relation: {
                "tasks": len(run.report.tasks),
                "rows": run.report.rows,
                "seconds": round(run.report.elapsed_s, 4),
                "cpu_seconds": round(sum(w.cpu_s for w in run.report.workers), 4),
            }
            for m, run in exchange.middles
        },
    }
