"""The log of queries: who asked what, when, how long it took, what came of it.

A query must not wait for its entry, nor fail with it. So `QueryLog.add` only puts it into a queue; a thread writes what is there
twice a second, in one transaction. When the database cannot be written, entries wait for the next time, and when more of them wait
than there is room for, the oldest are lost and counted. Entries that are older than the retention, or more than there is room for
in the table, are removed from time to time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from qengine.catalog.database import Database, now
from qengine.catalog.migrations.tables import QUERIES
from qengine.errors import QEngineError

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_WAITING = 20_000
_BATCH = 1000
_SWEEP_S = 3600.0
_STATEMENT_LETTERS = 100_000
_WORDS_LETTERS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLogSettings:
    """Entries are kept for `retention_days`, and of these the newest `retention_rows`. `is_on` is whether queries are logged."""

    is_on: bool = True
    retention_days: float = 365.0
    retention_rows: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedQuery:
    """One query that is over. `started` is in UTC; `bytes` are those of the rows before they were written in any format. `outcome`
    is finished, failed or cancelled, `method` how it was asked (sync, async), `client` by what."""

    id: str
    user: str
    method: str
    client: str
    language: str
    statement: str
    started: datetime
    duration_s: float
    rows: int
    bytes: int
    outcome: str
    error_code: str = ""
    error: str = ""
    snapshots: Mapping[str, int] = field(default_factory=dict)


class QueryLog:
    """Writes the log of one registry. Use it as a context manager: it writes what is left at its end."""

    def __init__(self, database: Database, settings: QueryLogSettings | None = None) -> None:
        self._database = database
        self._settings = settings or QueryLogSettings()
        self._waiting: deque[LoggedQuery] = deque(maxlen=_WAITING)
        self._lost = 0
        self._woken, self._ending = threading.Event(), threading.Event()
        self._swept_at = float("-inf")
        self._thread = threading.Thread(target=self._work, name="query-log", daemon=True)

    def __enter__(self) -> Self:
        if self._settings.is_on:
            self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ending.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, query: LoggedQuery) -> None:
        """Have a query written soon. Never waits and never fails; may be called by any thread."""
        if not self._settings.is_on:
            return
        if len(self._waiting) == _WAITING:
            self._lost += 1
        self._waiting.append(query)
        self._woken.set()

    def _work(self) -> None:
        while not self._ending.is_set():
            self._woken.wait()
            self._ending.wait(_EVERY_S)  # for others to come along
            self._woken.clear()
            self._write_all()
            if time.monotonic() - self._swept_at > _SWEEP_S:
                self._sweep()
        self._write_all()

    def _write_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                with self._database.writing() as connection:
                    connection.execute(sa.insert(QUERIES), [_row(query) for query in batch])
            except QEngineError as error:
                log.warning("%d entries of the log of queries cannot be written now: %s", len(batch), error)
                room = _WAITING - len(self._waiting)
                self._lost += max(len(batch) - room, 0)
                self._waiting.extendleft(reversed(batch[-room:] if room else []))
                if not self._ending.is_set():
                    self._woken.set()
                return
        if self._lost:
            log.error("%d queries are missing in the log: it could not be written for too long", self._lost)
            self._lost = 0

    def _sweep(self) -> None:
        self._swept_at = time.monotonic()
        try:
            forget(self._database, self._settings)
        except QEngineError as error:
            log.warning("old entries of the log of queries stay for now: %s", error)


def forget(database: Database, settings: QueryLogSettings) -> int:
    """Remove the entries that are not kept any longer, and return how many."""
    oldest = now() - timedelta(days=settings.retention_days)
    with database.writing() as connection:
        newest = connection.execute(sa.select(sa.func.max(QUERIES.c.number))).scalar_one_or_none() or 0
        where = sa.or_(QUERIES.c.started < oldest, QUERIES.c.number <= newest - settings.retention_rows)
        return connection.execute(sa.delete(QUERIES).where(where)).rowcount


def read_queries(connection: sa.Connection, user: str | None) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a user (None: of all) as rows of the system table `queries`, the oldest first."""
    query = sa.select(QUERIES).order_by(QUERIES.c.number)
    rows = connection.execute(query if user is None else query.where(QUERIES.c.user_name == user))
    return [
        {
            "query_id": row.id, "user_name": row.user_name, "method": row.method, "client": row.client, "language": row.language,
            "statement": row.statement, "started": row.started, "duration_s": row.duration_s, "row_count": row.row_count,
            "byte_count": row.byte_count, "outcome": row.outcome, "error_code": row.error_code, "error": row.error,
            "snapshots": row.snapshots,
        }
        for row in rows
    ]  # fmt: skip


def _row(query: LoggedQuery) -> dict[str, Any]:
    return {
        "id": query.id[:64], "user_name": query.user[:128], "method": query.method[:32],
        "client": _kept(query.client, _WORDS_LETTERS), "language": query.language[:32],
        "statement": _kept(query.statement, _STATEMENT_LETTERS),
        "started": query.started.replace(tzinfo=None), "duration_s": query.duration_s, "row_count": query.rows,
        "byte_count": query.bytes, "outcome": query.outcome, "error_code": query.error_code[:64],
        "error": _kept(query.error, _WORDS_LETTERS), "snapshots": json.dumps(dict(query.snapshots), sort_keys=True),
    }  # fmt: skip


def _kept(text: str, letters: int) -> str:
    """Return a text as a database takes it: PostgreSQL has no NUL, none has half a surrogate pair."""
    whole = text if len(text) <= letters else text[: letters - 4] + " ..."
    return whole.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
