"""The life of a query, from text to rows.

1. parse: `qengine.sql.parse.parse` makes one checked SELECT tree of the text, in the language that the user named.
2. bind: `qengine.sql.bind.bind` resolves every name against the catalogue; from here on the tree is plain SQL in DuckDB's meaning.
3. optimize: `qengine.plan.optimize.optimize` rewrites it into plain SQL with the same rows that prunes better.
   What is small and independent of the rest is a step that runs first (`qengine.plan.broadcast.stage`,
   `qengine.coordinator.steps.StagedExecution`); its rows are a replicated table for the statement that is left.
4. cut: `qengine.plan.cut.cut` reads the facts of every block (`qengine.plan.lift.lift_block`), proves which blocks run tile by tile
   (`qengine.plan.locality.prove_locality`), and splits them (`qengine.plan.split.split`).
5. look up: `qengine.storage.keyindex.KeyReader` finds the cells of keys that the statement names.
6. fragment: `qengine.plan.fragment.fragment` prunes the line and cuts it into tasks.
7. dispatch: `qengine.coordinator.dispatch.Dispatcher` runs every task on a worker (`qengine.execution.runner.TaskRunner`),
again where it fails. 8. merge: `qengine.coordinator.merge.Merger` makes the answer of the rows of all leaves.
9. deliver: batches in the bound types go to the caller, who writes them as VOTable, Parquet or what was asked for.

Stations 1 to 4 and 6 are pure functions; `QueryService` is the one place that puts them in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_arrow
from qengine.coordinator.dispatch import Dispatcher
from qengine.coordinator.execute import Execution, Executor
from qengine.coordinator.merge import Merger
from qengine.coordinator.planning import PlannedStep, Planner
from qengine.coordinator.steps import StagedExecution
from qengine.plan.broadcast import BroadcastLimits
from qengine.plan.cost import CostModel
from qengine.plan.explain import ExplainedStep, Explanation
from qengine.plan.fragment import PhysicalPlan
from qengine.plan.logical import Tree
from qengine.plan.optimize import capped, optimize
from qengine.plan.physical import QueryId, TaskLimits
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.deep import run_deep
from qengine.sql.parse import parse
from qengine.storage.keyindex import KeyReader

log = logging.getLogger(__name__)


class CatalogSource(Protocol):
    """Who knows what is published: the registry."""

    def catalog(self, *, snapshots: Mapping[str, int] | None = None) -> Catalog: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """`deadline_s` bounds every query. `cost` is completed with the cluster's slots for each query."""

    deadline_s: float = 3600.0
    task_memory_bytes: int = 2 << 30
    cost: CostModel = field(default_factory=CostModel)
    broadcast: BroadcastLimits = field(default_factory=BroadcastLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedQuery:
    """A statement after station 6. While it has `steps`, `plan` is an outline: their rows are not known yet. `tree` and `catalog`
    are what it is planned from."""

    id: QueryId
    statement: str
    language: str
    bound: BoundQuery
    tree: Tree
    catalog: Catalog
    plan: PhysicalPlan
    steps: tuple[PlannedStep, ...]
    snapshots: Mapping[str, int]


class QueryResult:
    """Rows of a query as they come.

    `batches` yields record batches of `schema`. `is_overflow` is valid when it is exhausted: True if MAXREC cut the answer.
    Close it if it is not read to its end.
    """

    def __init__(self, planned: PlannedQuery, batches: AsyncIterator[pa.RecordBatch], maxrec: int | None) -> None:
        self.query = planned.id
        self.statement = planned.statement
        self.columns: tuple[OutputColumn, ...] = planned.plan.columns
        self.warnings = planned.bound.warnings
        self.snapshots = planned.snapshots
        self.schema = arrow_schema(planned.plan.columns)
        self.is_overflow = False
        self._source = batches
        self._maxrec = maxrec
        self.batches: AsyncIterator[pa.RecordBatch] = self._deliver()

    async def _deliver(self) -> AsyncIterator[pa.RecordBatch]:
        left = self._maxrec
        try:
            async for batch in self._source:
                rows = batch if batch.schema.equals(self.schema) else batch.cast(self.schema)
                if left is not None and rows.num_rows > left:
                    self.is_overflow = True
                    rows = rows.slice(0, left)
                if left is not None:
                    left -= rows.num_rows
                if rows.num_rows:
                    yield rows
                if self.is_overflow:
                    break
        finally:
            await self.close()

    async def close(self) -> None:
        """End the query on all workers if it still runs."""
        aclose: Callable[[], Any] | None = getattr(self._source, "aclose", None)
        if aclose is not None:
            await aclose()

    async def to_table(self) -> pa.Table:
        """Collect all rows."""
        return pa.Table.from_batches([batch async for batch in self.batches], schema=self.schema)


class QueryService:
    """Answers statements over one catalogue source with one set of workers."""

    def __init__(
        self,
        registry: CatalogSource,
        *,
        dispatcher: Dispatcher,
        merger: Merger,
        keys: KeyReader,
        settings: ServiceSettings | None = None,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._settings = settings or ServiceSettings()
        limits = TaskLimits(deadline_s=self._settings.deadline_s, memory_bytes=self._settings.task_memory_bytes)
        self._executor = Executor(dispatcher, merger, limits)
        self._planner = Planner(keys, self._cost, self._settings.broadcast)

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher, for the state of workers."""
        return self._dispatcher

    def catalog(self, *, snapshots: Mapping[str, int] | None = None) -> Catalog:
        """Return what can be queried: the latest snapshots, or those named."""
        return self._registry.catalog(snapshots=snapshots)

    async def query(
        self, text: str, *, language: str = "adql", maxrec: int | None = None, snapshots: Mapping[str, int] | None = None
    ) -> QueryResult:
        """Plan a statement and start it. Nothing runs on workers before the first batch is asked for."""
        planned = await asyncio.to_thread(self.plan, text, language=language, maxrec=maxrec, snapshots=snapshots)
        return QueryResult(planned, self._start(planned).batches, maxrec)

    async def explain(
        self, text: str, *, language: str = "adql", analyze: bool = False, snapshots: Mapping[str, int] | None = None
    ) -> Explanation:
        """Return the plan of a statement; with `analyze` run it, throw its rows away, and add what happened."""
        planned = await asyncio.to_thread(self.plan, text, language=language, snapshots=snapshots)
        started: _Started | None = None
        if analyze:
            started = self._start(planned)
            async for _ in QueryResult(planned, started.batches, None).batches:
                pass
        return Explanation(
            statement=text, language=language, snapshots=planned.snapshots, warnings=planned.bound.warnings,
            plan=planned.plan if started is None else started.plan,
            actual=() if started is None else started.actual,
            steps=_outlines(planned.steps) if started is None else started.steps,
            exchanged=None if started is None else started.exchanged,
        )  # fmt: skip

    async def cancel(self, query: QueryId) -> None:
        """End a query on all workers."""
        await self._dispatcher.cancel(query)

    # -- stations ---------------------------------------------------------------------------------------------------------------

    def plan(
        self, text: str, *, language: str = "adql", maxrec: int | None = None, snapshots: Mapping[str, int] | None = None
    ) -> PlannedQuery:
        """Stations 1 to 6. Runs no worker; reads the registry and, for keys, the index.

        All of it runs in one thread with room for deep trees: a thread for each station would wait for the others' turns.
        """
        return run_deep(lambda: self._plan(text, language, maxrec, snapshots))

    def _plan(self, text: str, language: str, maxrec: int | None, snapshots: Mapping[str, int] | None) -> PlannedQuery:
        began = time.perf_counter()
        query = QueryId(uuid.uuid4().hex)
        catalog = self._registry.catalog(snapshots=snapshots)
        bound = bind(parse(text, language), catalog)
        tree = optimize(capped(bound.tree, maxrec), catalog)
        plan, steps = self._planner.outline(tree, catalog, bound.columns)
        log.info("query %s planned: %d tasks in %.1f ms", query, plan.tasks, (time.perf_counter() - began) * 1000)
        return PlannedQuery(
            id=query, statement=text, language=language, bound=bound, tree=tree, catalog=catalog, plan=plan, steps=steps,
            snapshots=_snapshots(bound, catalog),
        )  # fmt: skip

    def _cost(self) -> CostModel:
        return replace(self._settings.cost, slots=max(self._dispatcher.slots, 1))

    def _start(self, planned: PlannedQuery) -> _Started:
        """Stations 7 and 8."""
        if not planned.steps:
            return _Started(planned.plan, self._executor.start(planned.id, planned.plan))
        staged = StagedExecution(self._executor, self._planner, planned.id)
        return _Started(planned.plan, staged, staged.run(planned.tree, planned.catalog, planned.bound.columns))


class _Started:
    """A query that runs, with or without steps."""

    def __init__(
        self,
        plan: PhysicalPlan,
        execution: Execution | StagedExecution,
        batches: AsyncIterator[pa.RecordBatch] | None = None,
    ) -> None:
        self._plan = plan
        self._execution = execution
        if isinstance(execution, Execution):
            self.batches = execution.batches
        else:
            assert batches is not None
            self.batches = batches

    @property
    def plan(self) -> PhysicalPlan:
        return self._plan if isinstance(self._execution, Execution) else self._execution.plan

    @property
    def actual(self) -> tuple[Mapping[str, Any], ...]:
        return self._execution.actual

    @property
    def exchanged(self) -> Mapping[str, Any] | None:
        return self._execution.exchanged

    @property
    def steps(self) -> tuple[ExplainedStep, ...]:
        if isinstance(self._execution, Execution):
            return ()
        return tuple(
            ExplainedStep(name=s.step.name, reason=s.step.reason, plan=s.plan, actual=s.execution.actual, rows=s.rows)
            for s in self._execution.steps
        )


def _outlines(steps: tuple[PlannedStep, ...]) -> tuple[ExplainedStep, ...]:
    found: list[ExplainedStep] = []
    for step in steps:
        found += [*_outlines(step.steps), ExplainedStep(name=step.step.name, reason=step.step.reason, plan=step.plan)]
    return tuple(found)


def arrow_schema(columns: tuple[OutputColumn, ...]) -> pa.Schema:
    """Return the Arrow schema of a result, with unit, UCD and description as field metadata."""
    fields = []
    for column in columns:
        known = {"unit": column.unit, "ucd": column.ucd, "description": column.description, "xtype": column.type.xtype}
        metadata = {name: value for name, value in known.items() if value}
        fields.append(pa.field(column.name, to_arrow(column.type), metadata=metadata or None))
    return pa.schema(fields)


def _snapshots(bound: BoundQuery, catalog: Catalog) -> Mapping[str, int]:
    found = {}
    for schema, name in bound.tables:
        table = catalog.find(schema, name)
        if table is not None and table.inline is None:
            found[table.table.schema] = table.number
    return found
