"""A client over a query service in this process: the loop runs in a thread, the caller just calls.

The service comes as an asynchronous context (it opens the store and starts workers when entered), and it lives as long as the
client. Ctrl-C while waiting for rows cancels the query on all workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.catalog.summary import TableSummary, summarise
from qengine.client.loop import LoopThread
from qengine.client.result import Result
from qengine.client.watching import ProgressWatcher, Tell
from qengine.coordinator.progress import QueryProgress
from qengine.errors import ConfigError, QueryError


class Answer(Protocol):
    """The rows of a query as the service yields them."""

    @property
    def columns(self) -> tuple[OutputColumn, ...]: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def batches(self) -> AsyncIterator[pa.RecordBatch]: ...
    @property
    def is_overflow(self) -> bool: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def snapshots(self) -> Mapping[str, int]: ...
    @property
    def statement(self) -> str: ...
    @property
    def query(self) -> str: ...
    async def close(self) -> None: ...


class Plan(Protocol):
    """A plan in words and as values."""

    def to_text(self) -> str: ...
    def to_json(self) -> Mapping[str, Any]: ...


class Service(Protocol):
    """What the client needs of a query service."""

    async def query(
        self,
        text: str,
        *,
        language: str = "adql",
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        query_id: str | None = None,
        max_cost: str = "",
    ) -> Answer: ...
    async def explain(
        self,
        text: str,
        *,
        language: str = "adql",
        analyze: bool = False,
        snapshots: Mapping[str, int | str] | None = None,
        max_cost: str = "",
    ) -> Plan: ...
    def catalog(self) -> Catalog: ...
    def progress(self, query: str) -> QueryProgress: ...
    def running(self) -> tuple[QueryProgress, ...]: ...
    async def cancel(self, query: str) -> None: ...


class LocalClient:
    """Queries a store through a service of this process. Use it as a context manager; `close` ends the workers."""

    def __init__(self, context: AbstractAsyncContextManager[Service]) -> None:
        self._loop = LoopThread()
        self._keeper: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        try:
            self._service = self._loop.run(self._enter(context))
        except BaseException:
            self._loop.close()
            raise

    async def _enter(self, context: AbstractAsyncContextManager[Service]) -> Service:
        # One task enters and leaves the context: cancel scopes and task groups inside it insist on that.
        entered: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(context, entered))
        return await entered

    async def _keep(self, context: AbstractAsyncContextManager[Service], entered: asyncio.Future[Service]) -> None:
        try:
            async with context as service:
                entered.set_result(service)
                await self._leaving.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    def query(
        self,
        text: str,
        lang: str = "adql",
        *,
        maxrec: int | None = None,
        snapshots: Mapping[str, int | str] | None = None,
        max_cost: str = "",
        on_progress: Tell | None = None,
    ) -> Result:
        """Run a statement. Errors in it are raised here; rows are fetched as the result is read.

        `lang` is adql, adql-strict or sql; `maxrec` cuts the rows; `snapshots` maps catalogues to numbers, tags or times of
        snapshots; what is estimated above `max_cost`, such as "10GB,60s", is refused; `on_progress` is called twice a second, from
        another thread.
        """
        self._check_open()
        if maxrec is not None and maxrec < 0:
            raise ConfigError(f"maxrec={maxrec} is not a number of rows", hint="give a whole number, 0 or larger")
        answer = self._loop.run(self._service.query(text, language=lang, maxrec=maxrec, snapshots=snapshots, max_cost=max_cost))
        return Result(_LocalRows(self._loop, answer, lambda: self.progress(answer.query), on_progress))

    def explain(self, text: str, lang: str = "adql", *, analyze: bool = False, max_cost: str = "") -> Plan:
        """Return the plan of a statement: `to_text()`, `to_json()`. With `analyze` it is run and measured, unless it is estimated
        above `max_cost`."""
        self._check_open()
        return self._loop.run(self._service.explain(text, language=lang, analyze=analyze, max_cost=max_cost))

    def progress(self, query: str) -> QueryProgress:
        """Return how far a query is that runs or ended not long ago."""
        self._check_open()

        async def ask() -> QueryProgress:
            return self._service.progress(query)

        return self._loop.run(ask())

    def running(self) -> tuple[QueryProgress, ...]:
        """Return all queries of this client that run."""
        self._check_open()

        async def ask() -> tuple[QueryProgress, ...]:
            return self._service.running()

        return self._loop.run(ask())

    def cancel(self, query: str) -> None:
        """End a query; reading its result fails with `QueryCancelledError`."""
        self._check_open()
        self._loop.run(self._service.cancel(query))

    def tables(self) -> tuple[TableSummary, ...]:
        """Return what can be queried."""
        self._check_open()
        return summarise(self._service.catalog())

    def close(self) -> None:
        """End running queries and the workers that this client started. May be called twice."""
        if self._loop.is_closed:
            return
        try:
            self._loop.run(self._leave())
        finally:
            self._loop.close()

    async def _leave(self) -> None:
        self._leaving.set()
        if self._keeper is not None:
            await self._keeper

    def _check_open(self) -> None:
        if self._loop.is_closed:
            raise QueryError("the client is closed", hint="connect again")

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _LocalRows:
    """Rows of a service's answer, awaited on the loop."""

    def __init__(
        self, loop: LoopThread, answer: Answer, fetch: Callable[[], QueryProgress], on_progress: Tell | None = None
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._fetch = fetch
        self._watcher = ProgressWatcher(fetch, on_progress) if on_progress is not None else None
        self.query = answer.query
        self._batches = aiter(answer.batches)
        self._is_over = False
        self.columns = answer.columns
        self.schema = answer.schema
        self.statement = answer.statement
        self.warnings = tuple(answer.warnings)
        self.snapshots = answer.snapshots

    @property
    def is_overflow(self) -> bool:
        return self._answer.is_overflow

    def read(self) -> pa.RecordBatch | None:
        return self._loop.run(self._next())

    def read_all(self) -> list[pa.RecordBatch]:
        # One wait for the loop, not one for each batch: they are what a small answer takes longest for.
        return self._loop.run(self._all())

    async def _next(self) -> pa.RecordBatch | None:
        try:
            batch = await anext(self._batches, None)
        except asyncio.CancelledError:
            await self._answer.close()
            raise
        self._is_over = batch is None
        return batch

    async def _all(self) -> list[pa.RecordBatch]:
        found = []
        while (batch := await self._next()) is not None:
            found.append(batch)
        return found

    def progress(self) -> QueryProgress:
        return self._fetch()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        # The end of the rows was the end of the query.
        if not self._is_over and not self._loop.is_closed:
            self._loop.run(self._answer.close())
