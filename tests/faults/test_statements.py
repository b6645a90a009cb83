"""Statements that want out: to files, to settings, to functions without bounds. They end at parse or bind, with their place.

Nothing of them reaches DuckDB: the service raises before a run exists, the only channel to workers counts what it is given, and
afterwards every file of the store and of the working directory is what it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.catalog.registry import Registry
from qengine.coordinator.service import QueryService
from qengine.errors import LimitError, QueryError, Span
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.plan.physical import Task, TaskEvent
from qengine.transport.channel import WorkerChannel
from qengine.transport.grpc_channel import GrpcChannel
from qengine.worker.local import in_process_channel
from qengine.worker.supervise import start_worker
from tests.support.cluster import service_settings
from tests.support.wrapped_channel import WrappedChannel

ROWS = 2000
LANGUAGES = ("adql-strict", "adql", "sql")

SOURCES = (
    "'/etc/passwd'", "'stars.parquet'", "'*.parquet'", "'https://example.org/x.csv'", "'s3://bucket/x.parquet'", "'store/registry.sqlite'",
    '"/etc/passwd"', '"stars.parquet"', "read_csv('/etc/passwd')", "read_parquet('stars.parquet')", "read_parquet(['stars.parquet'])",
    "read_text('/etc/passwd')", "read_blob('/etc/passwd')", "read_json_auto('x.json')", "parquet_scan('stars.parquet')",
    "parquet_metadata('stars.parquet')", "sniff_csv('/etc/passwd')", "sqlite_scan('store/registry.sqlite', 'loads')", "glob('/etc/*')",
    "duckdb_settings()", "duckdb_secrets()", "pragma_table_info('stars')", "range(1000000000)", "generate_series(1, 1000000000)",
    "repeat_row(1, num_rows=2)", "query('SELECT 1')", "query_table('stars')", "information_schema.tables",
    "pg_catalog.pg_class", "main.sqlite_master", "sqlite_master", "duckdb_tables", "system.main.duckdb_settings", "t0", "qe_grid",
)  # fmt: skip

PLACES = (
    "SELECT * FROM {}",
    "SELECT s.id FROM sky.stars AS s JOIN {} AS x ON 1 = 1",
    "SELECT s.id FROM sky.stars AS s WHERE s.id IN (SELECT id FROM {})",
    "WITH w AS (SELECT * FROM {}) SELECT * FROM w",
    "SELECT id FROM sky.stars UNION ALL SELECT id FROM {}",
)

COMMANDS = (
    "COPY sky.stars TO 'out.csv'", "COPY (SELECT 1) TO 'out.parquet'", "COPY sky.stars FROM 'stars.parquet'", "ATTACH 'other.db' AS o",
    "ATTACH ':memory:'", "DETACH memory", "PRAGMA database_list", "PRAGMA threads=64", "SET threads TO 64", "SET enable_external_access = true",
    "RESET lock_configuration", "INSTALL httpfs", "LOAD 'evil.so'", "CALL pragma_version()", "EXPORT DATABASE 'out'", "IMPORT DATABASE 'out'",
    "CREATE TABLE x AS SELECT 1", "CREATE MACRO f(x) AS x", "CREATE OR REPLACE VIEW sky.stars AS SELECT 1", "CREATE SECRET s (TYPE s3)",
    "DROP TABLE sky.stars", "DROP SCHEMA sky CASCADE", "ALTER TABLE sky.stars DROP COLUMN id", "INSERT INTO sky.stars VALUES (1)",
    "UPDATE sky.stars SET id = 1", "DELETE FROM sky.stars", "TRUNCATE sky.stars", "VACUUM", "CHECKPOINT", "FORCE CHECKPOINT", "ANALYZE",
    "BEGIN", "COMMIT", "USE sky", "EXPLAIN ANALYZE SELECT id FROM sky.stars", "DESCRIBE sky.stars", "SUMMARIZE sky.stars", "SHOW ALL TABLES",
    "PREPARE p AS SELECT 1", "EXECUTE p", "VALUES (1)", "FROM sky.stars", "PIVOT sky.stars ON id", "SELECT id FROM sky.stars", ";",
)  # fmt: skip

CALLS = (
    "repeat('x', 2000000000)", "repeat('x', 2e9)", "REPEAT('x', 2000000000)", "Repeat ( 'x' , 2000000000 )", "repeat\n('x', 2000000000)",
    "repeat -- why\n('x', 2000000000)", '"repeat"(\'x\', 2000000000)', "main.repeat('x', 2000000000)", "system.main.repeat('x', 2000000000)",
    "pg_catalog.repeat('x', 2000000000)", '"main"."repeat"(\'x\', 2000000000)', "'x'.repeat(2000000000)", "name.repeat(2000000000)",
    "\uff52epeat('x', 2000000000)", "rep\u00adeat('x', 2000000000)", "LENGTH(repeat('x', 2000000000))", "COALESCE(repeat(name, 2000000000), 'x')",
    "CAST(repeat('1', 2000000000) AS INTEGER)", "MAX(repeat('x', 2000000000))", "repeat('x', 2000000000) || 'y'",
    "lpad('x', 2000000000, 'y')", "rpad('x', 2000000000, 'y')", "space(2000000000)", "bar(1, 0, 1, 2000000000)", "printf('%2000000000d', 1)",
    "format('{:2000000000}', 1)", "range(2000000000)",
    "generate_series(1, 2000000000)", "list_transform([1], x -> x)", "[x for x in [1]]", "levenshtein(name, name)",
    "getenv('HOME')", "current_setting('temp_directory')", "version()", "current_database()", "nextval('s')", "txid_current()", "uuid()",
    "read_text('/etc/passwd')", "qe_in_circle(ra, dec, 1, 2, 3)", "qe_distance(1, 2, 3, 4)", "error('x')", "write_log('x')", "query('SELECT 1')",
    "set_config('threads', '64')", "sleep_ms(1000000)", "pg_sleep(1000)", "random_bytes(2000000000)", "unnest([1, 2])", "struct_pack(a := 1)",
)  # fmt: skip


def hostile() -> Iterator[str]:
    for source in SOURCES:
        yield from (place.format(source) for place in PLACES)
    for command in COMMANDS:
        if not command.startswith(("SELECT", ";")):
            yield command
            yield f"/* x */ {command}"
            yield f"SELECT id FROM ({command}) AS x"
        yield f"SELECT id FROM sky.stars; {command}"
        yield f"SELECT id FROM sky.stars -- ;\n;{command}"
        yield f"SELECT id FROM sky.stars WHERE name = '';{command} --'"
    for call in CALLS:
        yield f"SELECT {call} AS x FROM sky.stars"
        yield f"SELECT id FROM sky.stars WHERE {call} = 'x'"
        yield f"SELECT id FROM sky.stars ORDER BY {call}"


class Counting(WrappedChannel):
    """Counts the tasks."""

    def __init__(self, inner: WorkerChannel) -> None:
        super().__init__(inner)
        self.tasks = 0

    def run(self, task: Task) -> AsyncIterator[TaskEvent]:
        self.tasks += 1
        return super().run(task)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, made the working directory, with stars.parquet and the store that was loaded from it."""
    rng = np.random.default_rng(3)
    columns = {"id": np.arange(ROWS), "ra": rng.uniform(0, 360, ROWS), "dec": rng.uniform(-80, 80, ROWS)}
    names = [f"star {number}" for number in range(ROWS)]
    pq.write_table(pa.table({**columns, "name": names}), tmp_path / "stars.parquet")
    store, registry = open_store(tmp_path / "store", create=True)
    with registry:
        request = LoadRequest(inputs=(tmp_path / "stars.parquet",), catalog="sky", table="stars", key="id", rows_per_tile=100)
        load(request, registry, store)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digests(root: Path) -> dict[str, str]:
    """Return what every file holds, and what is published; the registry also keeps measured rates, which every query changes."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("registry.sqlite"))
    found = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    with Registry.open(root / "store") as registry:
        found["published"] = repr([(t.table, t.number, t.rows) for t in registry.catalog()])
    return found


def check_place(text: str, span: Span | None) -> None:
    """A place is inside the text, and line and column are those of its beginning."""
    assert span is not None, text
    assert 0 <= span.start <= span.end <= len(text), text
    before = text[: span.start]
    assert (span.line, span.column) == (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1), text


def test_hostile_statements_end_before_they_run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    statements = list(dict.fromkeys(hostile()))
    assert len(statements) >= 200
    before = digests(site)

    async def check() -> None:
        channel = Counting(in_process_channel(site / "store", work_dir=tmp_path_factory.mktemp("work")))
        async with cluster("store", ClusterSettings(service=service_settings(4)), channels=[channel]) as service:
            for text in statements:
                for language in LANGUAGES:
                    with pytest.raises(QueryError) as raised:
                        await service.query(text, language=language)
                    check_place(text, raised.value.span)
                with pytest.raises(QueryError):
                    await service.explain(text, analyze=True)
            assert channel.tasks == 0
            assert await values(service, "SELECT COUNT(*) AS n FROM sky.stars WHERE dec < 90") == [ROWS]
            assert channel.tasks > 0, "the count counts"

    asyncio.run(check())
    assert digests(site) == before


async def values(service: QueryService, text: str) -> list[object]:
    table = await (await service.query(text)).to_table()
    found: list[object] = table.column(0).to_pylist()
    return found


NASTY = (
    "x'; DROP TABLE stars; --",
    "x'') FROM read_csv('/etc/passwd') --",
    'a"b',
    "a\\'b",
    "/* ",
    "$$",
    "%s %d {0} {{",
    "é 🜨",
    "x\ny",
)


def test_hostile_text_is_only_text(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In literals, aliases and quoted names anything may stand: it comes back as it went in, or the name is unknown."""
    before = digests(site)

    async def check() -> None:
        channel = in_process_channel(site / "store", work_dir=tmp_path_factory.mktemp("work"))
        async with cluster("store", ClusterSettings(service=service_settings(4)), channels=[channel]) as service:
            for nasty in NASTY:
                literal, name = nasty.replace("'", "''"), nasty.replace('"', '""')
                assert await values(service, f"SELECT TOP 1 '{literal}' AS x FROM sky.stars") == [nasty]
                assert await values(service, f"SELECT id FROM sky.stars WHERE name = '{literal}'") == []
                found = await (await service.query(f'SELECT TOP 1 id AS "{name}" FROM sky.stars')).to_table()
                assert found.column_names == [nasty]
                assert await values(service, f'SELECT COUNT(*) AS n FROM sky.stars AS "{name}" WHERE "{name}".id >= 0') == [ROWS]
                for text in (f'SELECT "{name}" FROM sky.stars', f'SELECT id FROM "{name}"', f'SELECT "{name}"(id) FROM sky.stars'):
                    with pytest.raises(QueryError):
                        await service.query(text)

    asyncio.run(check())
    assert digests(site) == before


def test_long_statements_are_refused_at_once(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    texts = {
        "bytes": "SELECT id FROM sky.stars WHERE name = '" + "x" * 5_000_000 + "'",
        "tokens": "SELECT id FROM sky.stars WHERE id IN (" + ", ".join(map(str, range(100_000))) + ")",
        "brackets": "SELECT id FROM sky.stars WHERE " + "(" * 50_000 + "id = 1" + ")" * 50_000,
        "minus": "SELECT " + "- " * 50_000 + "id FROM sky.stars",
        "not": "SELECT id FROM sky.stars WHERE " + "NOT " * 20_000 + "id = 1",
        "calls": "SELECT " + "ABS(" * 20_000 + "id" + ")" * 20_000 + " FROM sky.stars",
        "queries": "SELECT id FROM " + "(SELECT id FROM " * 5_000 + "sky.stars" + ") AS x" * 5_000,
        "open": "(" * 200_000,
        "comment": "SELECT id FROM sky.stars /*" + "x" * 5_000_000,
    }

    async def check() -> None:
        channel = Counting(in_process_channel(site / "store", work_dir=tmp_path_factory.mktemp("work")))
        async with cluster("store", ClusterSettings(service=service_settings(4)), channels=[channel]) as service:
            for kind, text in texts.items():
                with pytest.raises((QueryError, LimitError)):
                    await service.query(text)
                assert channel.tasks == 0, kind

    asyncio.run(check())


def doubled(levels: int) -> str:
    """A statement whose text doubles `levels` times, on the coordinator: the aggregate of a derived table."""
    source = "SELECT name AS a FROM sky.stars"
    for level in range(levels):
        source = f"SELECT a || a AS a FROM ({source}) AS x{level}"
    return f"SELECT MAX(CHAR_LENGTH(a)) AS n FROM ({source}) AS z"


@pytest.mark.slow
@pytest.mark.parametrize("text", [doubled(26), doubled(31)], ids=["half a gigabyte", "beyond 2 GB"])
def test_growing_text_ends_at_a_limit_and_all_goes_on(site: Path, text: str) -> None:
    async def check(address: str) -> None:
        settings = ClusterSettings(addresses=(address,), service=replace(service_settings(1), deadline_s=3.0))
        async with cluster("store", settings) as service:
            began = time.monotonic()
            with pytest.raises(LimitError):
                await values(service, text)
            assert time.monotonic() - began < 12
            assert await values(service, "SELECT COUNT(*) AS n FROM sky.stars WHERE dec < 90") == [ROWS]
        channel = GrpcChannel(address)
        try:
            assert (await channel.status()).running == ()
        finally:
            await channel.close()

    with start_worker(site / "store") as worker:
        asyncio.run(check(worker.address))
        assert worker.process.poll() is None
