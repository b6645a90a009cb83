"""The last station before delivery: one DuckDB on the coordinator makes the answer of the rows that the leaves sent.

A merge gathers its inputs (all at once, each as fast as its reader can give), then runs the final SELECT over them and streams the
answer. Most merges are tiny: a row per task of partial sums. Their inputs stay in Arrow memory, and a *warm* engine reads them
there; nothing is copied. When the inputs of a merge together exceed `small_bytes` they go into tables of its engine instead, which
spill to disk beyond `memory_bytes`. At most `large_merges` of that kind run at once; the others wait, and while they wait their
runs feel the back-pressure and take no slots. Tiny merges never wait. Each merge has an engine of its own, so it can neither see
nor block another.

Everything that DuckDB does happens in threads of the merger's own pool. A reader that leaves, and a deadline, interrupt the engine;
an engine that does not stop is left to its thread and replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import pyarrow as pa

from qengine.coordinator.attempt import close_stream
from qengine.errors import BugError, ExecutionError, QEngineError, QueryTimeoutError, QueryTooLargeError
from qengine.execution.duck import EngineSettings
from qengine.execution.tables import TableEngine
from qengine.sql.macros import MACROS

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Inputs = Mapping[str, tuple[pa.Schema, AsyncIterator[pa.RecordBatch]]]

_HOP_BYTES = 1 << 20
"""How much of the answer is read in one visit to the engine's thread."""

_APPEND_BYTES = 8 << 20
"""How much of an input is copied into its table at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSettings:
    """`memory_bytes`, `threads` and `temp_bytes` are for each merge, `max_rows` and `max_bytes` bound what one gathers in all."""

    memory_bytes: int = 2 << 30
    threads: int = 2
    temp_dir: Path | None = None
    temp_bytes: int = 64 << 30
    small_bytes: int = 16 << 20
    large_merges: int = 2
    warm_engines: int = 2
    max_rows: int = 500_000_000
    max_bytes: int = 64 << 30
    stop_s: float = 2.0
    macros: tuple[str, ...] = MACROS


class Merger:
    """Runs final fragments. Use it as an async context manager, or `start` and `close` it."""

    def __init__(self, settings: MergeSettings | None = None) -> None:
        self._settings = settings or MergeSettings()
        self._threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="qengine-merge")
        self._large = asyncio.Semaphore(self._settings.large_merges)
        self._warm: list[TableEngine] = []
        self._chores: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def __aenter__(self) -> Merger:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the warm engines. Without it the first merges open their own."""
        while len(self._warm) < self._settings.warm_engines:
            self._warm.append(await self._in_thread(self._open))

    async def close(self) -> None:
        """Close all engines that are not in use; those that are close at the end of their merge."""
        self._is_closed = True
        if self._chores:
            await asyncio.wait(self._chores, timeout=self._settings.stop_s)
        for engine in self._warm:
            engine.close()
        self._warm.clear()
        self._threads.shutdown(wait=False)

    @property
    def idle_engines(self) -> int:
        """How many engines are warm and free."""
        return len(self._warm)

    async def run(
        self,
        sql: str,
        inputs: Inputs,
        *,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Yield the rows of `sql`, one SELECT over the named inputs.

        Each input has the given schema even when it has no rows. Inputs are closed when the merge ends, however it ends.

        Raises
        ------
        QueryTooLargeError
            The inputs exceed `max_rows` or `max_bytes`, or the SELECT exceeds memory and temporary space.
        QueryTimeoutError
            `deadline_s` passed.
        """
        merge = _Merge(
            self,
            max_rows=self._settings.max_rows if max_rows is None else max_rows,
            max_bytes=self._settings.max_bytes if max_bytes is None else max_bytes,
            ends_at=None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s,
        )
        try:
            await merge.gather(inputs)
            batches, is_last = await merge.in_engine(merge.begin, sql)
            while True:
                for batch in batches:
                    yield batch
                if is_last:
                    return
                batches, is_last = await merge.in_engine(merge.read)
        finally:
            merge.end()
            for _, rows in inputs.values():
                await close_stream(rows, self._settings.stop_s)

    # -- engines ----------------------------------------------------------------------------------------------------------

    def _open(self) -> TableEngine:
        settings = self._settings
        return TableEngine(
            EngineSettings(
                threads=settings.threads,
                memory_bytes=settings.memory_bytes,
                temp_dir=settings.temp_dir,
                temp_bytes=settings.temp_bytes,
                macros=settings.macros,
            )
        )

    async def _lease(self) -> TableEngine:
        if self._warm:
            return self._warm.pop()
        return await self._in_thread(self._open)

    def _give_back(self, engine: TableEngine, busy: asyncio.Future[object] | None) -> None:
        chore = asyncio.create_task(self._clean(engine, busy))
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _clean(self, engine: TableEngine, busy: asyncio.Future[object] | None) -> None:
        """Make an engine ready for the next merge, or replace it."""
        waited_s = 0.0
        while busy is not None and not busy.done() and waited_s < self._settings.stop_s:
            # Again and again: an interrupt between two statements is lost.
            engine.interrupt()
            await asyncio.wait([busy], timeout=0.02)
            waited_s += 0.02
        if busy is not None and busy.done() and not busy.cancelled():
            busy.exception()  # what it ended with no longer matters
        if busy is not None and not busy.done():
            log.warning("a merge does not stop and is left to its thread")
            busy.add_done_callback(lambda _: engine.close())
        else:
            try:
                await self._in_thread(engine.reset)
            except QEngineError as error:
                log.warning("an engine cannot be used again: %s", error)
                engine.is_broken = True
            if not engine.is_broken and not self._is_closed and len(self._warm) < self._settings.warm_engines:
                self._warm.append(engine)
                return
            engine.close()
        if not self._is_closed and len(self._warm) < self._settings.warm_engines:
            self._warm.append(await self._in_thread(self._open))

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))


@dataclass(slots=True)
class _Input:
    """Rows of one input that are still in Arrow memory; `is_table` when the earlier ones are in a table."""

    schema: pa.Schema
    held: list[pa.RecordBatch] = field(default_factory=list)
    held_bytes: int = 0
    is_table: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Merge:
    """One merge: its inputs, its engine, its answer."""

    def __init__(self, merger: Merger, *, max_rows: int, max_bytes: int, ends_at: float | None) -> None:
        self._merger = merger
        self._settings = merger._settings
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._ends_at = ends_at
        self._inputs: dict[str, _Input] = {}
        self._rows = 0
        self._bytes = 0
        self._is_large = False
        self._growing = asyncio.Lock()
        self._engine: TableEngine | None = None
        self._using = asyncio.Lock()
        self._busy: asyncio.Future[object] | None = None
        self._answer: pa.RecordBatchReader | None = None

    # -- gathering --------------------------------------------------------------------------------------------------------

    async def gather(self, inputs: Inputs) -> None:
        """Read all inputs to their ends."""
        readers = []
        for name, (schema, batches) in inputs.items():
            self._inputs[name] = _Input(schema.remove_metadata())
            readers.append(asyncio.create_task(self._read_input(name, batches)))
        try:
            async with asyncio.timeout_at(self._ends_at):
                for reader in asyncio.as_completed(readers):
                    await reader
        except TimeoutError:
            raise self._too_late() from None
        finally:
            for task in readers:
                task.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _read_input(self, name: str, batches: AsyncIterator[pa.RecordBatch]) -> None:
        found = self._inputs[name]
        async for batch in batches:
            batch = _conform(name, batch, found.schema)
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            if self._rows > self._max_rows or self._bytes > self._max_bytes:
                raise QueryTooLargeError(
                    f"to answer this, more than {self._rows:,} rows ({self._bytes / 1e6:,.1f} MB) would have to be gathered on the "
                    f"coordinator; the limit is {self._max_rows:,} rows or {self._max_bytes / 1e6:,.1f} MB",
                    hint="restrict the statement to a smaller region or fewer columns, or aggregate first",
                    details={"input": name, "rows": self._rows, "bytes": self._bytes},
                )
            found.held.append(batch)
            found.held_bytes += batch.nbytes
            if self._bytes > self._settings.small_bytes and not self._is_large:
                await self._grow()
            if self._is_large and found.held_bytes > _APPEND_BYTES:
                await self._flush(name)
        if found.is_table:
            await self._flush(name)

    async def _grow(self) -> None:
        """Wait for the turn of a large merge."""
        async with self._growing:
            if not self._is_large:
                await self._merger._large.acquire()
                self._is_large = True

    async def _flush(self, name: str) -> None:
        found = self._inputs[name]
        rows = pa.Table.from_batches(found.held, schema=found.schema)
        found.held, found.held_bytes = [], 0
        await self.in_engine(self._append, name, found, rows)

    def _append(self, engine: TableEngine, name: str, found: _Input, rows: pa.Table) -> None:
        if not found.is_table:
            engine.create(name, found.schema)
            found.is_table = True
        engine.append(name, rows)

    # -- answering: `begin` and `read` run in the engine's thread ------------------------------------------------------------

    def begin(self, engine: TableEngine, sql: str) -> tuple[list[pa.RecordBatch], bool]:
        """Start the SELECT; return the first batches, and whether they are all."""
        for name, found in self._inputs.items():
            if not found.is_table:
                engine.show(name, pa.Table.from_batches(found.held, schema=found.schema))
        self._answer = engine.stream(sql)
        return self.read(engine)

    def read(self, engine: TableEngine) -> tuple[list[pa.RecordBatch], bool]:
        """Return the next batches, and whether they are the last."""
        assert self._answer is not None
        batches: list[pa.RecordBatch] = []
        size = 0
        while size < _HOP_BYTES:
            try:
                batch = self._answer.read_next_batch()
            except StopIteration:
                return batches, True
            if batch.num_rows:
                batches.append(batch)
                size += batch.nbytes
        return batches, False

    async def in_engine(self, function: Callable[..., T], *args: object) -> T:
        """Run `function(engine, *args)` in a thread, by the deadline. One at a time."""
        async with self._using:
            if self._engine is None:
                self._engine = await self._merger._lease()
            engine = self._engine
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._merger._threads, lambda: function(engine, *args))
            self._busy = future  # type: ignore[assignment]
            try:
                async with asyncio.timeout_at(self._ends_at):
                    result = await asyncio.shield(future)
            except TimeoutError:
                raise self._too_late() from None
            self._busy = None
            return result

    def end(self) -> None:
        """Give the engine back, whatever it is doing."""
        if self._is_large:
            self._merger._large.release()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            answer, self._answer = self._answer, None
            if answer is not None and (self._busy is None or self._busy.done()):
                answer.close()
            self._merger._give_back(engine, self._busy)

    def _too_late(self) -> QueryTimeoutError:
        return QueryTimeoutError("the deadline of the query passed while its answer was being put together")


def _conform(name: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows of a worker exactly the planned types: DuckDB may say BIGINT where INTEGER was planned, or large strings."""
    if batch.schema.equals(schema):
        return batch
    if batch.num_columns != len(schema):
        raise BugError(f"input {name} has {batch.num_columns} columns and should have {len(schema)}: {batch.schema.names}")
    try:
        return pa.RecordBatch.from_arrays(batch.columns, names=schema.names).cast(schema)
    except pa.ArrowInvalid as error:
        raise ExecutionError(f"rows of {name} do not fit the types of the answer: {error}") from error
