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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pyarrow as pa

from qengine.catalog import pairs
from qengine.catalog.model import Catalog
from qengine.catalog.query_log import QueryLog
from qengine.catalog.rights import Rights
from qengine.catalog.system_tables import with_rows
from qengine.catalog.uploads import with_uploads
from qengine.catalog.who import FROM_HERE, LOCAL, Identity, Origin
from qengine.coordinator.dispatch import Dispatcher
from qengine.coordinator.execute import Executor
from qengine.coordinator.merge import Merger
from qengine.coordinator.planning import PlannedStep, Planner
from qengine.coordinator.progress import Expected, QueryPhase, QueryProgress
from qengine.coordinator.queries import ActiveQuery, QueryBook
from qengine.coordinator.rates import RateKeeper, learn
from qengine.coordinator.result import AnswerTimes, QueryResult
from qengine.coordinator.started import StartedQuery
from qengine.coordinator.steps import StagedExecution
from qengine.coordinator.visibility import CatalogSource, Visibility
from qengine.coordinator.watch import WorkerState
from qengine.errors import BugError, QEngineError, QueryCancelledError
from qengine.plan.broadcast import BroadcastLimits
from qengine.plan.cost import CostModel
from qengine.plan.explain import ExplainedStep, Explanation
from qengine.plan.forecast import forecast
from qengine.plan.fragment import PhysicalPlan
from qengine.plan.limits import CostLimit, CostMeter
from qengine.plan.logical import Tree
from qengine.plan.optimize import capped, optimize
from qengine.plan.physical import QueryId, TaskLimits
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.deep import run_deep, start_deep
from qengine.sql.own import own_snapshots, with_own
from qengine.sql.parse import parse, table_names
from qengine.sql.versions import at_versions
from qengine.storage.keyindex import KeyReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """`deadline_s` bounds every query. `cost` is completed with the cluster's slots and the measured rates for each query.
    `max_cost` refuses queries that are estimated above it (`plan.limits`): "1TB,30min"; empty: none. `unstated` is the state of
    catalogues that were never promoted (`catalog.releases`): with "staged", what is loaded is nobody's before somebody says so."""

    deadline_s: float = 3600.0
    task_memory_bytes: int = 2 << 30
    cost: CostModel = field(default_factory=CostModel)
    broadcast: BroadcastLimits = field(default_factory=BroadcastLimits)
    max_cost: str = ""
    unstated: str = "released"


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
    planning_s: float


class QueryService:
    """Answers statements over one catalogue source with one set of workers.

    Everybody sees what `rights` let them read, and their own queries; without rights there is nothing that may not be read.
    """

    def __init__(
        self,
        registry: CatalogSource,
        *,
        dispatcher: Dispatcher,
        merger: Merger,
        keys: KeyReader,
        settings: ServiceSettings | None = None,
        rates: RateKeeper | None = None,
        rights: Callable[[], Rights] | None = None,
        query_log: QueryLog | None = None,
    ) -> None:
        self._visibility = Visibility(registry, rights)
        self._dispatcher = dispatcher
        self._settings = settings or ServiceSettings()
        limits = TaskLimits(deadline_s=self._settings.deadline_s, memory_bytes=self._settings.task_memory_bytes)
        self._executor = Executor(dispatcher, merger, limits)
        self._limit = CostLimit.parse(self._settings.max_cost)
        self._rates = rates
        self._book = QueryBook(None if query_log is None else lambda ended: query_log.add(ended.to_log()))
        self._planner = Planner(keys, self._cost, self._settings.broadcast)

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher, for the state of workers."""
        return self._dispatcher

    def catalog(self, *, snapshots: Mapping[str, int | str] | None = None, identity: Identity = LOCAL) -> Catalog:
        """Return what `identity` can query: the latest snapshots, or those named."""
        return self._visibility.catalog(identity, snapshots)

    async def query(
        self,
        text: str,
        *,
        language: str = "adql",
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        query_id: str | None = None,
        max_cost: str = "",
        identity: Identity = LOCAL,
        origin: Origin = FROM_HERE,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> QueryResult:
        """Plan a statement and start it. Nothing runs on workers before the first batch is asked for.

        `uploads` are tables that only this statement can name, as TAP_UPLOAD.<name>.
        `query_id` is the caller's choice of the id under which `progress` and `cancel` know the query. A query that is estimated
        above `max_cost` ("10GB,60s") or the service's own limit is refused with `QueryTooExpensiveError`.
        """
        limit = self._limit & CostLimit.parse(max_cost)
        active = self._book.open(text, language, query_id, identity, origin)
        planned, started = await self._begin(active, limit, maxrec=maxrec, snapshots=snapshots, uploads=uploads)

        def ended(times: AnswerTimes) -> None:
            if self._rates is not None:
                learn(self._rates, started, times)

        return QueryResult(
            active, started.batches, columns=planned.plan.columns, warnings=planned.bound.warnings, snapshots=planned.snapshots,
            maxrec=maxrec, on_end=ended,
        )  # fmt: skip

    async def explain(
        self,
        text: str,
        *,
        language: str = "adql",
        analyze: bool = False,
        snapshots: Mapping[str, int | str] | None = None,
        max_cost: str = "",
        identity: Identity = LOCAL,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> Explanation:
        """Return the plan of a statement; with `analyze` run it, throw its rows away, and add what happened."""
        if not analyze:
            planned = await asyncio.to_thread(
                self.plan, text, language=language, snapshots=snapshots, identity=identity, uploads=uploads
            )
            return _explanation(planned, planned.plan, _outlines(planned.steps))
        limit = self._limit & CostLimit.parse(max_cost)
        active = self._book.open(text, language, None, identity, Origin("explain"))
        planned, started = await self._begin(active, limit, maxrec=None, snapshots=snapshots, uploads=uploads)
        seen: list[AnswerTimes] = []
        result = QueryResult(
            active, started.batches, columns=planned.plan.columns, warnings=planned.bound.warnings, snapshots=planned.snapshots,
            on_end=seen.append,
        )  # fmt: skip
        async for _ in result.batches:
            pass
        (times,) = seen
        if self._rates is not None:
            learn(self._rates, started, times)
        return replace(
            _explanation(planned, started.plan, started.steps),
            actual=started.actual,
            exchanged=started.exchanged,
            times=started.times(times, planned.planning_s),
            answer_rows=times.rows,
        )

    async def cancel(self, query: str, *, identity: Identity = LOCAL) -> None:
        """End a query on all workers, and have its reader fail with `QueryCancelledError`. Raise `UnknownNameError`."""
        active = self._book.find(query, identity)
        active.cancel()
        await self._dispatcher.cancel(active.id)

    def progress(self, query: str, *, identity: Identity = LOCAL) -> QueryProgress:
        """Return how far a query is that runs or ended not long ago. Raise `UnknownNameError`, also for somebody else's."""
        return self._book.find(query, identity).progress

    def reading(self) -> frozenset[tuple[str, int]]:
        """Return catalogue and number of the snapshots that running queries read."""
        # a schema such as dp1@12 is catalogue dp1 at snapshot 12
        return frozenset((name.split("@")[0], number) for active in self._book.running for name, number in active.reads.items())

    def running(self, *, identity: Identity = LOCAL) -> tuple[QueryProgress, ...]:
        """Return the queries of `identity` that run, of an administrator those of all, the oldest first."""
        return tuple(active.progress for active in self._book.running if active.is_of(identity))

    def workers(self) -> tuple[WorkerState, ...]:
        """Return the state of every worker."""
        return self._dispatcher.workers

    async def _begin(
        self,
        active: ActiveQuery,
        limit: CostLimit,
        *,
        maxrec: int | None,
        snapshots: Mapping[str, int | str] | None,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> tuple[PlannedQuery, StartedQuery]:
        """Plan a query and make it ready to run; one that cannot be is over."""
        try:
            planned = await asyncio.wrap_future(
                start_deep(
                    lambda: self._plan(
                        active.id, active.statement, active.language, maxrec, snapshots, active.identity, uploads or {}
                    )
                )
            )
            active.reads = planned.snapshots
            if not planned.steps:
                limit.check(planned.plan, planned.tree)
            started = self._start(planned, limit)
            active.begin(lambda: started.work, lambda: _expected(planned.plan))
        except QueryCancelledError as error:
            active.end(QueryPhase.CANCELLED, str(error), error.code)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            active.end(QueryPhase.CANCELLED, "the reader left")
            raise
        except BaseException as error:
            active.end(QueryPhase.FAILED, str(error), error.code if isinstance(error, QEngineError) else BugError.code)
            raise
        return planned, started

    # -- stations ---------------------------------------------------------------------------------------------------------------

    def plan(
        self,
        text: str,
        *,
        language: str = "adql",
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        query: QueryId | None = None,
        identity: Identity = LOCAL,
        uploads: Mapping[str, pa.Table] | None = None,
    ) -> PlannedQuery:
        """Stations 1 to 6. Runs no worker; reads the registry and, for keys, the index.

        All of it runs in one thread with room for deep trees: a thread for each station would wait for the others' turns.
        """
        query = query or QueryId(uuid.uuid4().hex)
        return run_deep(lambda: self._plan(query, text, language, maxrec, snapshots, identity, uploads or {}))

    def _plan(
        self,
        query: QueryId,
        text: str,
        language: str,
        maxrec: int | None,
        snapshots: Mapping[str, int | str] | None,
        identity: Identity,
        uploads: Mapping[str, pa.Table] = MappingProxyType({}),
    ) -> PlannedQuery:
        began = time.perf_counter()

        def older(name: str, version: int | str) -> Catalog:
            return self._visibility.catalog(identity, {name: version})

        try:
            parsed = with_own(parse(text, language), identity)
            catalog = at_versions(parsed, self._visibility.catalog(identity, own_snapshots(snapshots, identity)), older)
            catalog = with_uploads(with_rows(pairs.trusted(catalog), table_names(parsed), identity), uploads)
            bound = bind(parsed, catalog)
            tree = optimize(capped(bound.tree, maxrec), catalog)
            plan, steps = self._planner.outline(tree, catalog, bound.columns)
        except QEngineError as error:
            raise error.located(text) from error.__cause__
        log.info("query %s planned: %d tasks in %.1f ms", query, plan.tasks, (time.perf_counter() - began) * 1000)
        return PlannedQuery(
            id=query, statement=text, language=language, bound=bound, tree=tree, catalog=catalog, plan=plan, steps=steps,
            snapshots=_snapshots(bound, catalog), planning_s=time.perf_counter() - began,
        )  # fmt: skip

    def _cost(self) -> CostModel:
        cost = replace(self._settings.cost, slots=max(self._dispatcher.slots, 1))
        return cost if self._rates is None else cost.with_rates(self._rates.rates)

    def _start(self, planned: PlannedQuery, limit: CostLimit) -> StartedQuery:
        """Stations 7 and 8."""
        if not planned.steps:
            execution = self._executor.start(planned.id, planned.plan)
            return StartedQuery(planned.plan, execution, execution.batches)
        # What steps leave to be read is known when they have run, so the limit is asked about each of them and what was before it.
        staged = StagedExecution(self._executor, self._planner, planned.id, check=CostMeter(limit).check)
        rows = staged.run(planned.tree, planned.catalog, planned.bound.columns)
        return StartedQuery(planned.plan, staged, rows, steps=planned.steps)


def _explanation(planned: PlannedQuery, plan: PhysicalPlan, steps: tuple[ExplainedStep, ...]) -> Explanation:
    notes = (*planned.bound.warnings, *pairs.warnings(planned.bound.tables, planned.catalog))
    return Explanation(
        statement=planned.statement, language=planned.language, snapshots=planned.snapshots, warnings=notes, plan=plan, steps=steps,
        tree=planned.tree,
    )  # fmt: skip


def _expected(plan: PhysicalPlan) -> Expected:
    cost = forecast(plan)
    return Expected(merge_s=None if plan.final_sql is None else cost.merge_s, leaf_s=cost.leaf_s)


def _outlines(steps: tuple[PlannedStep, ...]) -> tuple[ExplainedStep, ...]:
    found: list[ExplainedStep] = []
    for step in steps:
        found += [*_outlines(step.steps), ExplainedStep(name=step.step.name, reason=step.step.reason, plan=step.plan)]
    return tuple(found)


def _snapshots(bound: BoundQuery, catalog: Catalog) -> Mapping[str, int]:
    found = {}
    for schema, name in bound.tables:
        table = catalog.find(schema, name)
        if table is not None and table.inline is None:
            found[table.table.schema] = table.number
    return found
