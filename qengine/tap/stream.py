"""From a checked request to the bytes of its result, for responses and for files.

`ask` is the one way in which /sync and jobs put a query to the service. `opened` awaits the first rows, so that what fails until
then fails before anything is written. `pieces` yields the rest as it comes: a little of it not alone, because each piece wakes up
the other side, but without keeping small answers waiting. What fails later is raised when all that could be written has been
yielded; the writer then knows how to end (`ResultWriter.fail`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.who import Identity, Origin
from qengine.errors import QueryTimeoutError
from qengine.tap.datalink import service_links
from qengine.tap.formats.writer import ResultHeader, ResultWriter
from qengine.tap.limits import check_bytes
from qengine.tap.parameters import SyncRequest
from qengine.tap.provenance import provenance
from qengine.tap.service import Answer, AnsweringService

_SLICE_ROWS = 65_536
"""Rows that are formatted at once; the event loop serves others in between."""

_THREAD_ROWS = 5_000
"""From here on formatting is left to a thread."""

_SENT_BYTES = 65_536
"""What is sent at once, at least, while rows come."""

_PATIENCE_S = 0.005
"""How long a smaller piece waits for what comes next: a small answer is sent whole, and others begin at once all the same."""

Batch: TypeAlias = pa.RecordBatch | None
First: TypeAlias = Callable[[Coroutine[Any, Any, Batch]], Awaitable[Batch]]
"""Awaits the first rows; may give up meanwhile."""


@dataclass(slots=True)
class Opened:
    """An answer with its first rows and the writer for them. `rows` and `bytes` count what was written, `allowed_bytes` may be; the
    answer has to be there `until` a time of the event loop. `is_whole` says that the last piece has been yielded, `is_failed` that
    it tells of an error."""

    answer: Answer
    writer: ResultWriter
    first: Batch
    batches: AsyncIterator[pa.RecordBatch]
    is_cut: bool
    rows: int = 0
    bytes: int = 0
    allowed_bytes: float | None = None
    until: float | None = None
    is_whole: bool = False
    is_failed: bool = False

    @property
    def status(self) -> str:
        """What QUERY_STATUS is; known at the end."""
        return "ERROR" if self.is_failed else "OVERFLOW" if self.is_overflow else "OK"

    @property
    def is_overflow(self) -> bool:
        """Whether MAXREC has cut the rows; known at the end."""
        return self.answer.is_overflow or self.is_cut


async def ask(
    service: AnsweringService, checked: SyncRequest, *, query_id: str | None, identity: Identity, origin: Origin
) -> Answer:
    """Start a query and return its answer, of which nothing has been read."""
    return await service.query(
        checked.text,
        language=checked.language,
        maxrec=checked.maxrec,
        snapshots=checked.snapshots or None,
        query_id=query_id,
        max_cost=checked.max_cost,
        identity=identity,
        origin=origin,
        uploads=checked.uploads or None,
    )


async def opened(
    answer: Answer, checked: SyncRequest, catalog: Callable[[], Catalog], *, wait: First | None = None, base_url: str = ""
) -> Opened:
    """Return the answer when its first rows are there; one that fails until then is closed. `base_url` is the address of the
    service that its links lead to; without one it has none."""
    try:
        batches = aiter(answer.batches)
        # MAXREC=0 asks for the columns only, and TAP wants it called an overflow.
        first = None
        if checked.maxrec:
            first = await (_next(batches) if wait is None else wait(_next(batches)))
        readable = catalog()
        header = ResultHeader(
            columns=answer.columns,
            schema=answer.schema,
            statement=answer.statement,
            warnings=answer.warnings,
            snapshots=answer.snapshots,
            provenance=provenance(readable, answer.snapshots),
            links=service_links(answer.columns, readable, base_url),
        )
        return Opened(answer, checked.format.writer(header), first, batches, is_cut=not checked.maxrec)
    except BaseException:
        await answer.close()
        raise


async def pieces(result: Opened) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a result. Close its writer and its answer afterwards."""
    writer = result.writer
    held, size = [writer.begin()], 0

    def weighed(piece: bytes) -> bytes:
        result.bytes += len(piece)
        check_bytes(result.bytes, result.allowed_bytes)
        return piece

    waiting: asyncio.Task[Batch] | None = None
    try:
        batch = result.first
        while batch is not None:
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                rows = batch.slice(start, _SLICE_ROWS)
                made = await asyncio.to_thread(writer.write, rows) if rows.num_rows > _THREAD_ROWS else writer.write(rows)
                held.append(weighed(made))
                result.rows += rows.num_rows
                size += len(held[-1])
                if size >= _SENT_BYTES:
                    yield b"".join(held)
                    held, size = [], 0
            waiting = asyncio.ensure_future(_next(result.batches))
            if held and not (await asyncio.wait({waiting}, timeout=_PATIENCE_S))[0]:
                yield b"".join(held)
                held, size = [], 0
            async with in_time(result.until):
                batch = await waiting
        for piece in writer.held():
            yield b"".join((*held, weighed(piece)))
            held = []
    except Exception:
        yield b"".join(held)
        raise
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    last = b"".join((*held, writer.finish(is_overflow=result.is_overflow)))
    result.is_whole = True
    yield last


@asynccontextmanager
async def in_time(until: float | None) -> AsyncIterator[None]:
    """Raise `QueryTimeoutError` if the block takes longer than `until`, a time of the event loop."""
    clock = asyncio.timeout_at(until)
    try:
        async with clock:
            yield
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise QueryTimeoutError(
            "the query takes longer than is allowed for those who wait for its answer", hint="use /async, or narrow the query"
        ) from error


async def _next(batches: AsyncIterator[pa.RecordBatch]) -> Batch:
    return await anext(batches, None)
