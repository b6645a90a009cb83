"""A query service of one process for tests of what stands in front of it: DuckDB over Arrow tables, no distribution.

It understands `SELECT TOP n`, cuts at MAXREC, and can be told to misbehave by a comment in the statement:
`/* fail after N rows */`, `/* hang after N rows */`, `/* crash */` (an error that nobody foresaw).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from qengine.catalog.model import NO_PARTS, Catalog, Column, ForeignKey, Table, TableKind, TableSnapshot
from qengine.catalog.output import OutputColumn
from qengine.catalog.tap_schema import tap_schema
from qengine.catalog.types import from_arrow
from qengine.catalog.who import FROM_HERE, LOCAL, Identity, Origin
from qengine.coordinator.progress import QueryProgress
from qengine.coordinator.watch import Health, WorkerState
from qengine.errors import QuerySyntaxError, QueryTimeoutError, Span, UnknownNameError
from qengine.plan.physical import WorkerId


def demo_snapshot(rows: int = 1000) -> TableSnapshot:
    """A table `demo.stars` with metadata; row i has source_id i."""
    index = range(rows)
    data = pa.table(
        {
            "source_id": pa.array(index, pa.int64()),
            "ra": pa.array([(i * 137.508) % 360 for i in index], pa.float64()),
            "dec": pa.array([(i * 0.17) % 180 - 90 for i in index], pa.float64()),
            "mag": pa.array([None if i % 10 == 3 else i % 17 + 0.5 for i in index], pa.float32()),
            "name": pa.array([None if i % 7 == 5 else f"star <{i}> é" for i in index], pa.string()),
        }
    )
    described = {
        "source_id": Column(name="source_id", type=from_arrow(pa.int64()), ucd="meta.id;meta.main", principal=True, indexed=True),
        "ra": Column(
            name="ra", type=from_arrow(pa.float64()), unit="deg", ucd="pos.eq.ra;meta.main", description="Right ascension"
        ),
        "dec": Column(name="dec", type=from_arrow(pa.float64()), unit="deg", ucd="pos.eq.dec;meta.main"),
        "mag": Column(name="mag", type=from_arrow(pa.float32()), unit="mag", ucd="phot.mag", description="A < magnitude & more"),
        "name": Column(name="name", type=from_arrow(pa.string())),
    }
    table = Table(
        schema="demo",
        name="stars",
        kind=TableKind.REPLICATED,
        columns=tuple(described.values()),
        description="Stars of a test",
        key="source_id",
        ra="ra",
        dec="dec",
    )
    return _inline(table, data)


def demo_names(rows: int = 10) -> TableSnapshot:
    """A table `demo.names` that refers to `demo.stars`."""
    data = pa.table({"star": pa.array(range(rows), pa.int64()), "alias": [f"alias {i}" for i in range(rows)]})
    columns = (Column(name="star", type=from_arrow(pa.int64())), Column(name="alias", type=from_arrow(pa.string())))
    key = ForeignKey(columns=("star",), target="stars", target_columns=("source_id",))
    return _inline(Table(schema="demo", name="names", kind=TableKind.REPLICATED, columns=columns, foreign_keys=(key,)), data)


def _inline(table: Table, data: pa.Table) -> TableSnapshot:
    return TableSnapshot(table=table, number=3, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=data)


def demo_catalog(rows: int = 1000) -> Catalog:
    tables = (demo_snapshot(rows), demo_names())
    return Catalog((*tables, *tap_schema(tables)))


@dataclass
class FakeAnswer:
    columns: tuple[OutputColumn, ...]
    schema: pa.Schema
    statement: str
    batches: AsyncIterator[pa.RecordBatch]
    warnings: tuple[str, ...] = ()
    snapshots: Mapping[str, int] = field(default_factory=lambda: {"demo": 3})
    is_overflow: bool = False
    is_closed: bool = False
    query: str = "fake-query-0"

    async def close(self) -> None:
        self.is_closed = True


@dataclass(frozen=True)
class FakePlan:
    text: str

    def to_text(self) -> str:
        return self.text

    def to_json(self) -> dict[str, str]:
        return {"plan": self.text}


class FakeService:
    """Answers from the inline tables of a catalogue."""

    def __init__(self, catalog: Catalog | None = None, *, batch_rows: int = 100) -> None:
        self._catalog = catalog or demo_catalog()
        self._batch_rows = batch_rows
        self._connection = duckdb.connect()
        for snapshot in self._catalog:
            table = snapshot.table
            self._connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.schema}"')
            self._connection.register("incoming", snapshot.inline)
            self._connection.execute(f'CREATE TABLE "{table.schema}"."{table.name}" AS FROM incoming')
        self.answers: list[FakeAnswer] = []
        self.asked: list[tuple[str, str, int | None, Mapping[str, int | str] | None]] = []

    def catalog(self, *, identity: Identity = LOCAL) -> Catalog:
        return self._catalog

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
    ) -> FakeAnswer:
        self.asked.append((text, language, maxrec, snapshots))
        if "/* crash */" in text:
            raise ZeroDivisionError("a secret of the inside")
        data = self._run(text, uploads or {})
        columns = tuple(self._column(name, data.schema.field(name).type) for name in data.schema.names)
        fails = re.search(r"/\* fail after (\d+) rows \*/", text)
        kept = data if maxrec is None else data.slice(0, maxrec)
        answer = FakeAnswer(
            columns=columns, schema=data.schema, statement=text, batches=_nothing(), query=query_id or "fake-query-0"
        )
        hangs = re.search(r"/\* hang after (\d+) rows \*/", text)
        trouble = {kind: int(found[1]) for kind, found in (("fail", fails), ("hang", hangs)) if found}
        answer.batches = _batches(answer, kept, data.num_rows, self._batch_rows, trouble)
        if "CASE" in text:
            answer.warnings = ("CASE is an extension of ADQL",)
        self.answers.append(answer)
        return answer

    def progress(self, query: str, *, identity: Identity = LOCAL) -> QueryProgress:
        raise UnknownNameError(f"there is no query {query}")

    def running(self, *, identity: Identity = LOCAL) -> tuple[QueryProgress, ...]:
        return ()

    def workers(self) -> tuple[WorkerState, ...]:
        return (WorkerState(worker=WorkerId("w0"), health=Health.ALIVE, status=None, error=None),)

    async def cancel(self, query: str, *, identity: Identity = LOCAL) -> None:
        raise UnknownNameError(f"there is no query {query}")

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
    ) -> FakePlan:
        self._run(text)
        return FakePlan(f"plan of {text}" + (", measured" if analyze else ""))

    def _run(self, text: str, uploads: Mapping[str, pa.Table] | None = None) -> pa.Table:
        top = re.search(r"\bTOP\s+(\d+)", text, re.IGNORECASE)
        sql = re.sub(r"\bTOP\s+\d+", "", text, count=1, flags=re.IGNORECASE) + (f" LIMIT {top[1]}" if top else "")
        try:
            cursor = self._connection.cursor()
            for name, rows in (uploads or {}).items():
                cursor.register(f"upload_{name}", rows)
                sql = re.sub(rf"\bTAP_UPLOAD\.{name}\b", f"upload_{name}", sql, flags=re.IGNORECASE)
            return cursor.execute(sql).to_arrow_table()
        except duckdb.Error as error:
            word = re.search(r'"(\w+)"', str(error))
            start = max(text.find(word[1]), 0) if word else 0
            before = text[:start]
            span = Span(before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1, start, start + (len(word[1]) if word else 1))
            raise QuerySyntaxError(str(error).splitlines()[0], span=span, hint="look again") from error

    def _column(self, name: str, arrow: pa.DataType) -> OutputColumn:
        declared: Sequence[Column] = [c for s in self._catalog for c in s.table.columns if c.name == name]
        if not declared:
            return OutputColumn(name=name, type=from_arrow(arrow))
        found = declared[0]
        return OutputColumn(name=name, type=from_arrow(arrow), unit=found.unit, ucd=found.ucd, description=found.description)


async def _batches(
    answer: FakeAnswer, data: pa.Table, total: int, batch_rows: int, trouble: Mapping[str, int]
) -> AsyncIterator[pa.RecordBatch]:
    sent = 0
    for batch in data.combine_chunks().to_batches(max_chunksize=batch_rows):
        if sent >= trouble.get("fail", total + 1):
            raise QueryTimeoutError("the query passed its deadline", hint="narrow it")
        await asyncio.sleep(3600 if sent >= trouble.get("hang", total + 1) else 0)
        sent += batch.num_rows
        yield batch
    answer.is_overflow = total > data.num_rows


async def _nothing() -> AsyncIterator[pa.RecordBatch]:
    return
    yield
