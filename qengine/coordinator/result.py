"""The rows of a query as they come, and the end of the query, whichever it is.

Between two batches the reader has the word; while it waits for one, its wait can be cancelled by the query's id (`ActiveQuery`).
The times between are measured: what the merge took, and how fast the answer came out of the coordinator while somebody asked for
it.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import to_arrow
from qengine.coordinator.progress import QueryPhase, QueryProgress
from qengine.coordinator.queries import ActiveQuery
from qengine.errors import BugError, QEngineError, QueryCancelledError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTimes:
    """When the first rows were there (on the monotonic clock), and how long the reader waited for how many bytes after them."""

    began_at: float
    first_at: float
    ended_at: float
    waited_s: float
    bytes: int
    rows: int


class QueryResult:
    """Rows of a query as they come.

    `batches` yields record batches of `schema`. `is_overflow` is valid when it is exhausted: True if MAXREC cut the answer.
    Close it if it is not read to its end. `query` is the id under which the service knows it.
    """

    def __init__(
        self,
        active: ActiveQuery,
        batches: AsyncIterator[pa.RecordBatch],
        *,
        columns: tuple[OutputColumn, ...],
        warnings: tuple[str, ...],
        snapshots: Mapping[str, int],
        maxrec: int | None = None,
        on_end: Callable[[AnswerTimes], None] | None = None,
    ) -> None:
        self.query = active.id
        self.statement = active.statement
        self.columns = columns
        self.warnings = warnings
        self.snapshots = snapshots
        self.schema = arrow_schema(columns)
        self.is_overflow = False
        self._active = active
        self._source = batches
        self._maxrec = maxrec
        self._on_end = on_end
        self.batches: AsyncIterator[pa.RecordBatch] = self._deliver()
        # A result that nobody reads or closes must not stay in the book of queries.
        weakref.finalize(self, active.end, QueryPhase.CANCELLED, "nobody read it").atexit = False

    @property
    def progress(self) -> QueryProgress:
        """How far the query is."""
        return self._active.progress

    async def _deliver(self) -> AsyncIterator[pa.RecordBatch]:
        left = self._maxrec
        began_at = first_at = time.monotonic()
        waited_s, size, rows_seen = 0.0, 0, 0
        try:
            while True:
                asked_at = time.monotonic()
                batch = await self._next()
                now = time.monotonic()
                if rows_seen:
                    waited_s += now - asked_at
                else:
                    first_at = now
                if batch is None:
                    break
                rows = batch if batch.schema.equals(self.schema) else batch.cast(self.schema)
                if left is not None and rows.num_rows > left:
                    self.is_overflow = True
                    rows = rows.slice(0, left)
                if left is not None:
                    left -= rows.num_rows
                if rows.num_rows:
                    size += rows.nbytes if rows_seen else 0
                    rows_seen += rows.num_rows
                    self._active.rows = rows_seen
                    self._active.bytes += rows.nbytes
                    yield rows
                if self.is_overflow:
                    break
            ended = AnswerTimes(
                began_at=began_at, first_at=first_at, ended_at=time.monotonic(), waited_s=waited_s, bytes=size, rows=rows_seen
            )
            if self._on_end is not None and not self.is_overflow:
                self._on_end(ended)
            self._active.end(QueryPhase.FINISHED)
        except QueryCancelledError as error:
            self._active.end(QueryPhase.CANCELLED, str(error), error.code)
            raise
        except QEngineError as error:
            # What steps leave of a statement is planned while it runs, so its errors have a place in the text, too.
            self._active.end(QueryPhase.FAILED, str(error.located(self.statement)), error.code)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._active.end(QueryPhase.CANCELLED, "the reader left")
            raise
        except BaseException as error:
            self._active.end(QueryPhase.FAILED, repr(error), BugError.code)
            raise
        finally:
            await self.close()

    async def _next(self) -> pa.RecordBatch | None:
        self._active.check()
        self._active.enter_wait()
        try:
            return await anext(self._source, None)
        except asyncio.CancelledError:
            if self._active.is_our_cancellation():
                self._active.check()
            raise
        finally:
            self._active.leave_wait()

    async def close(self) -> None:
        """End the query on all workers if it still runs."""
        aclose: Callable[[], Any] | None = getattr(self._source, "aclose", None)
        if aclose is not None:
            await aclose()
        self._active.end(QueryPhase.CANCELLED, "closed before all rows were read")

    async def to_table(self) -> pa.Table:
        """Collect all rows."""
        return pa.Table.from_batches([batch async for batch in self.batches], schema=self.schema)


def arrow_schema(columns: tuple[OutputColumn, ...]) -> pa.Schema:
    """Return the Arrow schema of a result, with unit, UCD and description as field metadata."""
    fields = []
    for column in columns:
        known = {"unit": column.unit, "ucd": column.ucd, "description": column.description, "xtype": column.type.xtype}
        metadata = {name: value for name, value in known.items() if value}
        fields.append(pa.field(column.name, to_arrow(column.type), metadata=metadata or None))
    return pa.schema(fields)
