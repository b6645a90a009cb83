"""The queries of a coordinator by their ids: those that run, and for a while those that have ended.

An `ActiveQuery` follows one query from planning to its end. Its progress is made when somebody asks; nothing is computed for
queries that nobody watches. Cancelling reaches a query wherever it is: in its runs (by the dispatcher), and while its reader waits
for a merge, by cancelling that wait.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from qengine.catalog.query_log import LoggedQuery
from qengine.catalog.who import FROM_HERE, LOCAL, Identity, Origin
from qengine.coordinator.progress import Expected, ProgressEstimator, QueryPhase, QueryProgress, Work
from qengine.errors import QueryCancelledError, QueryError, UnknownNameError
from qengine.plan.physical import QueryId

_KEPT = 256
_SHOWN = 2000
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class ActiveQuery:
    """One query: whose it is, what it is doing, how far it is."""

    def __init__(
        self, query: QueryId, statement: str, language: str, identity: Identity = LOCAL, origin: Origin = FROM_HERE
    ) -> None:
        self.id = query
        self.identity = identity
        self.origin = origin
        self.statement = statement
        self.language = language
        self.phase = QueryPhase.PLANNING
        self.rows = 0
        self.bytes = 0
        self.error_code = ""
        self.reads: Mapping[str, int] = {}
        self.is_cancelled = False
        self._began = datetime.now(UTC)
        self._began_at = time.monotonic()
        self._ended_at: float | None = None
        self._error = ""
        self._work: Callable[[], Work] = Work
        self._expected: Callable[[], Expected] = Expected
        self._planned_at: float | None = None
        self._estimator: ProgressEstimator | None = None
        self._last: tuple[Work, float] = (Work(), 0.0)
        self._waiting: asyncio.Task[object] | None = None
        self._forget: Callable[[], None] = lambda: None

    def is_of(self, identity: Identity) -> bool:
        """Say whether somebody may watch the query and end it."""
        return identity.is_admin or identity.user == self.identity.user

    def begin(self, work: Callable[[], Work], expected: Callable[[], Expected]) -> None:
        """The query has been planned: `work` says at any time how far it is; `expected` is asked when somebody wants to know."""
        self._work = work
        self._expected = expected
        self._planned_at = time.monotonic()
        if not self.phase.is_end:
            self.phase = QueryPhase.WAITING
        self.check()

    def end(self, phase: QueryPhase, error: str = "", code: str = "") -> None:
        """The query is over, by an error of this code. Only the first end counts."""
        if self.phase.is_end:
            return
        work = self._work()
        fraction = 1.0
        if phase is not QueryPhase.FINISHED:
            fraction = self._estimator.observe(work, time.monotonic())[0] if self._estimator is not None else 0.0
        self._last = work, fraction
        self.phase = phase
        self._ended_at = time.monotonic()
        self._error = error
        self.error_code = code
        # What they refer to may be large.
        self._work, self._expected, self._estimator = Work, Expected, None
        self._forget()

    def check(self) -> None:
        """Raise `QueryCancelledError` if the query has been cancelled."""
        if self.is_cancelled:
            raise QueryCancelledError(f"query {self.id} was cancelled")

    def cancel(self) -> None:
        """Have the reader fail with `QueryCancelledError`, now if it waits, otherwise at its next step."""
        self.is_cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def enter_wait(self) -> None:
        """The current asyncio task waits for rows from here on, and may be cancelled by `cancel`."""
        self._waiting = asyncio.current_task()
        if self.phase is QueryPhase.WAITING:
            self.phase = QueryPhase.RUNNING

    def leave_wait(self) -> None:
        self._waiting = None

    def is_our_cancellation(self) -> bool:
        """Say, after `CancelledError`, whether it came from `cancel`; it is then taken back from the task."""
        task = self._waiting
        return self.is_cancelled and task is not None and task.uncancel() <= 0

    def to_log(self) -> LoggedQuery:
        """Return the entry in the log of a query that is over."""
        ended_at = self._ended_at if self._ended_at is not None else time.monotonic()
        return LoggedQuery(
            id=self.id, user=self.identity.user, method=self.origin.method, client=self.origin.client, language=self.language,
            statement=self.statement, started=self._began, duration_s=ended_at - self._began_at, rows=self.rows, bytes=self.bytes,
            outcome=self.phase.value, error_code=self.error_code, error=self._error, snapshots=self.reads,
        )  # fmt: skip

    @property
    def progress(self) -> QueryProgress:
        """How far it is now."""
        now = time.monotonic()
        eta: float | None = None
        work, fraction = self._last
        phase = self.phase
        if not phase.is_end and self._planned_at is not None:
            if self._estimator is None:
                self._estimator = ProgressEstimator(self._expected(), began_at=self._planned_at)
            work = self._work()
            fraction, eta = self._estimator.observe(work, now)
            if phase is QueryPhase.RUNNING and not work.has_all:
                phase = QueryPhase.STEPS
            elif phase is QueryPhase.RUNNING and work.is_gathered and self._estimator.has_merge:
                phase = QueryPhase.MERGING
        return QueryProgress(
            query=self.id,
            statement=self.statement if len(self.statement) <= _SHOWN else self.statement[:_SHOWN] + " ...",
            language=self.language,
            phase=phase,
            began=self._began,
            elapsed_s=(self._ended_at or now) - self._began_at,
            fraction=fraction,
            eta_s=eta,
            bytes_done=int(work.done),
            bytes_total=int(work.total),
            tasks_done=work.tasks_done,
            tasks=work.tasks,
            tasks_running=work.tasks_running,
            rows=self.rows,
            error=self._error,
        )


OnEnd = Callable[[ActiveQuery], None]


class QueryBook:
    """All queries of a service. Used on one event loop. `on_end` is told of each that is over."""

    def __init__(self, on_end: OnEnd | None = None) -> None:
        self._on_end = on_end
        self._active: dict[QueryId, ActiveQuery] = {}
        self._ended: OrderedDict[QueryId, ActiveQuery] = OrderedDict()

    def open(
        self,
        statement: str,
        language: str,
        wanted: str | None = None,
        identity: Identity = LOCAL,
        origin: Origin = FROM_HERE,
    ) -> ActiveQuery:
        """Enter a new query under the caller's id, or one of ours. Raise `QueryError` if the id cannot be used."""
        if wanted is not None:
            if not _ID.fullmatch(wanted):
                raise QueryError(f"{wanted!r} cannot be the id of a query", hint="use 8 to 64 letters, digits, - and _")
            if QueryId(wanted) in self._active or QueryId(wanted) in self._ended:
                raise QueryError(f"there is a query {wanted} already", hint="choose another id")
        query = ActiveQuery(QueryId(wanted or uuid.uuid4().hex), statement, language, identity, origin)
        query._forget = lambda: self._end(query)
        self._active[query.id] = query
        return query

    def find(self, query: str, identity: Identity = LOCAL) -> ActiveQuery:
        """Return a query that runs or ended not long ago. Raise `UnknownNameError`, also for what is nobody else's business."""
        known = self._active.get(QueryId(query)) or self._ended.get(QueryId(query))
        if known is None or not known.is_of(identity):
            raise UnknownNameError(f"there is no query {query}", hint="it never was, or ended long ago")
        return known

    @property
    def running(self) -> tuple[ActiveQuery, ...]:
        """Queries that have not ended, the oldest first."""
        return tuple(self._active.values())

    def _end(self, query: ActiveQuery) -> None:
        self._active.pop(query.id, None)
        self._ended[query.id] = query
        while len(self._ended) > _KEPT:
            self._ended.popitem(last=False)
        if self._on_end is not None:
            self._on_end(query)
