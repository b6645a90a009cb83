"""The life of a query, from text to rows.

1. parse: `qengine.sql.parse.parse` makes one checked SELECT tree of the text, in the language that the user named.
2. bind: `qengine.sql.bind.bind` resolves every name against the catalogue; from here on the tree is plain SQL in DuckDB's meaning.
3. optimize: `qengine.plan.optimize.optimize` rewrites it into plain SQL with the same rows that prunes better.
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
from qengine.coordinator.execute import Executor
from qengine.coordinator.merge import Merger
from qengine.plan.cost import CostModel
from qengine.plan.cut import CutQuery, cut
from qengine.plan.explain import Explanation
from qengine.plan.fragment import PhysicalPlan, fragment
from qengine.plan.optimize import capped, optimize
from qengine.plan.physical import QueryId, TaskLimits
from qengine.plan.prune import Resolved, lookups
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedQuery:
    """A statement after station 6."""

    id: QueryId
    statement: str
    language: str
    bound: BoundQuery
    plan: PhysicalPlan
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
        self._keys = keys
        self._settings = settings or ServiceSettings()
        limits = TaskLimits(deadline_s=self._settings.deadline_s, memory_bytes=self._settings.task_memory_bytes)
        self._executor = Executor(dispatcher, merger, limits)

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
        batches = self._executor.start(planned.id, planned.plan).batches
        return QueryResult(planned, batches, maxrec)

    async def explain(
        self, text: str, *, language: str = "adql", analyze: bool = False, snapshots: Mapping[str, int] | None = None
    ) -> Explanation:
        """Return the plan of a statement; with `analyze` run it, throw its rows away, and add what happened."""
        planned = await asyncio.to_thread(self.plan, text, language=language, snapshots=snapshots)
        actual: tuple[Mapping[str, Any], ...] = ()
        if analyze:
            execution = self._executor.start(planned.id, planned.plan)
            result = QueryResult(planned, execution.batches, None)
            async for _ in result.batches:
                pass
            actual = execution.actual
        return Explanation(
            statement=text, language=language, snapshots=planned.snapshots, warnings=planned.bound.warnings,
            plan=planned.plan, actual=actual,
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
        pieces = cut(tree, catalog)
        resolved = self._resolve(pieces, catalog)
        cost = replace(self._settings.cost, slots=max(self._dispatcher.slots, 1))
        plan = fragment(pieces, resolved, bound.columns, cost)
        log.info("query %s planned: %d tasks in %.1f ms", query, plan.tasks, (time.perf_counter() - began) * 1000)
        return PlannedQuery(
            id=query, statement=text, language=language, bound=bound, plan=plan, snapshots=_snapshots(bound, catalog)
        )

    def _resolve(self, pieces: CutQuery, catalog: Catalog) -> Resolved:
        wanted = {lookup for leaf in pieces.leaves for lookup in lookups(leaf)}
        resolved = {}
        for lookup in wanted:
            director = catalog.find(lookup.schema, lookup.table)
            if director is not None and director.key_index is not None:
                resolved[lookup] = self._keys.cells(director.key_index, lookup.values)
        return resolved


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
