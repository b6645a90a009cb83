"""SELECT .. INTO mydb.<name>, for /sync and for jobs alike.

`KeepingService` stands before the service of the engine. A statement without INTO goes through untouched. Of one with INTO, the
answer is one row that tells of the table: its name, rows and bytes. The table is made when that row is asked for. The rows of the
query go to a file first, then they are loaded (`mydb_keep`), so that whatever fails until then leaves nothing; and nobody sees
a table before it is whole. MAXREC is about the answer, so it does not cut the table; an answer that a limit of the user cuts is
no table. With MAXREC=0, which asks what columns there would be, nothing is made.

A job whose process has died after the table was published runs again and finds it there: the load knows for whom it worked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn, to_arrow_schema
from qengine.catalog.types import BIGINT, VARCHAR
from qengine.catalog.user_tables import ALIAS, UserTable
from qengine.catalog.who import FROM_HERE, LOCAL, Identity, Origin
from qengine.coordinator.progress import QueryProgress
from qengine.coordinator.watch import WorkerState
from qengine.errors import ConflictError, LimitError, QueryError, QueryTooLargeError
from qengine.sql.into import Into, take_into
from qengine.tap.limits import Gate
from qengine.tap.mydb_keep import Keeper, Spooled, Spooler
from qengine.tap.service import Answer, AnsweringService, Explained

_COLUMNS = (
    OutputColumn(name="table_name", type=VARCHAR, ucd="meta.id;meta.table", description="the table that was made"),
    OutputColumn(name="row_count", type=BIGINT, ucd="meta.number", description="its rows"),
    OutputColumn(name="size", type=BIGINT, unit="byte", ucd="phys.size;meta.file", description="what it takes of your storage"),
)
_SCHEMA = to_arrow_schema(_COLUMNS)
_LARGER = 4
"""Rows on their way may take so many times of what is free: parts are smaller."""


class KeepingService:
    """A service whose statements may have INTO."""

    def __init__(self, service: AnsweringService, keeper: Keeper, gate: Gate) -> None:
        self._service = service
        self._keeper = keeper
        self._gate = gate

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
    ) -> Answer:
        """Start a query; see `QueryService.query`."""
        into = take_into(text, language)
        if into is not None:
            maker = origin.client if origin.method == "async" else ""
            done = await self._checked(identity, into, maker)
            maxrec = self._gate.settings_for(identity).maxrec_limit
        answer = await self._service.query(
            text if into is None else into.text,
            language=language,
            maxrec=maxrec,
            snapshots=snapshots,
            query_id=query_id,
            max_cost=max_cost,
            identity=identity,
            origin=origin,
            uploads=uploads,
        )
        return answer if into is None else _KeptAnswer(answer, text, into, identity, maker, self._keeper, done)

    async def _checked(self, identity: Identity, into: Into, maker: str) -> UserTable | None:
        """Return the table if it was made for the same before. Raise an error if it cannot be made."""
        if identity.user and maker:
            done = await asyncio.to_thread(self._keeper.made_by, identity, into.table, maker)
            if done is not None:
                return done
        try:
            await self._keeper.check_new(identity, into.table)
        except ConflictError as error:  # something that the one who asks can change
            raise QueryError(error.message, hint=error.hint) from error
        return None

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
    ) -> Explained:
        """Return the plan of a statement; INTO makes nothing."""
        into = take_into(text, language)
        return await self._service.explain(
            text if into is None else into.text, language=language, analyze=analyze, snapshots=snapshots, max_cost=max_cost,
            identity=identity, uploads=uploads,
        )  # fmt: skip

    def catalog(self, *, identity: Identity = LOCAL) -> Catalog:
        """Return what `identity` may read."""
        return self._service.catalog(identity=identity)

    def progress(self, query: str, **words: Any) -> QueryProgress:
        """Return how far a query is."""
        return self._service.progress(query, **words)

    def running(self, **words: Any) -> tuple[QueryProgress, ...]:
        """Return the queries that run."""
        return self._service.running(**words)

    def workers(self) -> tuple[WorkerState, ...]:
        """Return the state of every worker."""
        return self._service.workers()

    async def cancel(self, query: str, **words: Any) -> None:
        """End a query."""
        await self._service.cancel(query, **words)


@dataclass(frozen=True, slots=True)
class _KeptAnswer:
    """One row about the table, which is made when the row is asked for."""

    rows: Answer
    statement: str
    into: Into
    identity: Identity
    maker: str
    keeper: Keeper
    done: UserTable | None

    @property
    def columns(self) -> tuple[OutputColumn, ...]:
        return _COLUMNS

    @property
    def schema(self) -> pa.Schema:
        return _SCHEMA

    @property
    def is_overflow(self) -> bool:
        return False

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.rows.warnings

    @property
    def snapshots(self) -> Mapping[str, int]:
        return self.rows.snapshots

    @property
    def query(self) -> str:
        return self.rows.query

    @property
    def batches(self) -> AsyncIterator[pa.RecordBatch]:
        return self._batches()

    async def close(self) -> None:
        await self.rows.close()

    async def _batches(self) -> AsyncIterator[pa.RecordBatch]:
        made = self.done if self.done is not None else await self._made()
        values = {"table_name": [f"{ALIAS}.{made.name}"], "row_count": [made.rows], "size": [made.bytes]}
        yield pa.record_batch(values, schema=_SCHEMA)

    async def _made(self) -> UserTable:
        async with self.keeper.folder() as folder:
            rows = await self._spooled(folder / "rows.arrow")
            try:
                return await self.keeper.keep(self.identity, self.into.table, rows, maker=self.maker)
            except ConflictError as error:
                raise QueryError(error.message, hint=error.hint) from error

    async def _spooled(self, path: Path) -> Spooled:
        """Write the rows of the query to a file, all or too many."""
        room = await asyncio.to_thread(self.keeper.room, self.identity)
        schema = to_arrow_schema(self.rows.columns, self.rows.schema)
        with Spooler(path, schema) as sink:
            async with aclosing(self.rows.batches) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    await asyncio.to_thread(sink.write, batch)
                    if room is not None and sink.bytes > _LARGER * room:
                        raise LimitError(
                            f"{ALIAS}.{self.into.table} would be larger than the {room / 1e9:.3f} GB that you may still keep",
                            hint="drop tables or delete jobs first, or name fewer columns",
                        )
        if self.rows.is_overflow:
            raise QueryTooLargeError(
                f"{ALIAS}.{self.into.table} would have more rows than you may ask for", hint="narrow the query"
            )
        return Spooled(path, self.into.text, dict(self.rows.snapshots))
