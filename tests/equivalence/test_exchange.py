"""Statements that are exchanged give the rows of one DuckDB: whatever the sizes, and whichever worker has which rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.worker.local import in_process_channel
from tests.support.cluster import NO_BROADCASTS, LocalCluster, grpc_cluster, service_settings
from tests.support.exchange_store import bare, load_tables, tables
from tests.support.harness import Harness
from tests.support.oracle import Oracle
from tests.support.sky_builder import Sky

ROWS = 3000
QUERIES = 120
MANY_QUERIES = 3000

STATEMENTS = {
    "groups": "SELECT k, COUNT(*) AS n, SUM(v) AS s, AVG(v) AS a, MIN(name) AS m FROM one.stars GROUP BY k",
    "groups having": "SELECT k, g, MAX(v) AS m FROM one.stars GROUP BY k, g HAVING COUNT(*) > 1",
    "groups by a float": "SELECT x, COUNT(*) AS n FROM one.stars GROUP BY x",
    "groups by text": "SELECT name, COUNT(*) AS n, STDDEV(v) AS d FROM one.stars GROUP BY name",
    "groups by an expression": "SELECT k + 1 AS k1, COUNT(*) AS n FROM one.stars GROUP BY k + 1",
    "groups, top": "SELECT TOP 20 k, COUNT(*) AS n FROM one.stars GROUP BY k ORDER BY n DESC, k",
    "groups, offset": "SELECT k, SUM(v) AS s FROM one.stars GROUP BY k ORDER BY SUM(v) + 1, k OFFSET 700",
    "groups of groups": "SELECT n, COUNT(*) AS c FROM (SELECT k, COUNT(*) AS n FROM one.stars GROUP BY k) AS q GROUP BY n",
    "distinct groups": "SELECT DISTINCT COUNT(*) AS n FROM one.stars GROUP BY k",
    "distinct": "SELECT DISTINCT k, x FROM one.stars",
    "distinct, top": "SELECT DISTINCT TOP 30 k, g FROM one.stars ORDER BY k DESC, g",
    "distinct expression": "SELECT DISTINCT k, v + 1 AS w FROM one.stars",
    "count distinct": "SELECT COUNT(DISTINCT k) AS n FROM one.stars",
    "count distinct and more": "SELECT COUNT(DISTINCT k) AS n, COUNT(*) AS c, SUM(v) AS s, AVG(v) AS a, MAX(x) AS m FROM one.stars",
    "count distinct text": "SELECT COUNT(DISTINCT name) AS n, COUNT(k) AS c FROM one.stars WHERE v > 0",
    "two counts distinct": "SELECT COUNT(DISTINCT k) AS n, COUNT(DISTINCT x) AS m FROM one.stars",
    "count distinct by group": "SELECT g, COUNT(DISTINCT k) AS n FROM one.stars GROUP BY g",
    "medians": "SELECT k, MEDIAN(v) AS m FROM one.stars GROUP BY k",
    "window": "SELECT id, SUM(v) OVER (PARTITION BY k) AS s, COUNT(*) OVER (PARTITION BY k, g) AS n FROM one.stars",
    "window, first rows": "SELECT id, k FROM one.stars QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY v, id) = 1",
    "window of everything": "SELECT id, COUNT(*) OVER () AS n FROM one.stars",
    "inner": "SELECT a.id, b.sid FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k",
    "inner, condition": "SELECT a.id, b.sid, b.w FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k AND a.v > b.w * 100 WHERE b.w < 0.5",
    "inner, comma": "SELECT a.id, b.sid FROM one.stars AS a, two.spots AS b WHERE a.k = b.k AND a.g > 3",
    "inner by text": "SELECT a.id, b.sid FROM one.stars AS a JOIN two.spots AS b ON a.name = b.name WHERE a.v > 500",
    "inner, integer and float": "SELECT a.id, b.sid FROM one.stars AS a JOIN two.spots AS b ON a.k = b.kf",
    "inner, double and float": "SELECT COUNT(*) AS n, SUM(a.v) AS s FROM one.stars AS a JOIN two.spots AS b ON a.x = b.x",
    "left": "SELECT a.id, b.sid FROM one.stars AS a LEFT JOIN two.spots AS b ON a.k = b.k AND b.w > 0.3",
    "right": "SELECT a.id, b.sid FROM one.stars AS a RIGHT JOIN two.spots AS b ON a.k = b.k AND a.v > 0",
    "full": "SELECT a.id, b.sid FROM one.stars AS a FULL JOIN two.spots AS b ON a.k = b.k",
    "full by float": "SELECT a.id, b.sid FROM one.stars AS a FULL JOIN two.spots AS b ON a.k = b.kf AND b.w > 0.9",
    "join and aggregate": "SELECT COUNT(*) AS n, AVG(b.w) AS w, COUNT(DISTINCT a.g) AS g FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k",
    "join and groups by key": "SELECT a.k, COUNT(*) AS n, MEDIAN(b.w) AS w FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k GROUP BY a.k",
    "left join, groups of the filled side": "SELECT b.k, COUNT(*) AS n FROM one.stars AS a LEFT JOIN two.spots AS b ON a.k = b.k GROUP BY b.k",
    "join and other groups": "SELECT a.g, COUNT(*) AS n, SUM(b.w) AS w FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k GROUP BY a.g",
    "join and window": "SELECT a.id, b.sid, RANK() OVER (PARTITION BY a.k ORDER BY b.w) AS r FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k",
    "join, top": "SELECT TOP 25 a.id, b.sid FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k ORDER BY b.w, a.id",
    "self join": "SELECT a.id, b.id AS other FROM one.stars AS a JOIN one.stars AS b ON a.k = b.v",
    "three": "SELECT a.id, b.sid, c.id AS other FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k LEFT JOIN one.stars AS c ON b.k = c.v",
    "three, full": "SELECT a.id, b.sid, c.id AS o FROM one.stars AS a FULL JOIN two.spots AS b ON a.k = b.k FULL JOIN one.stars AS c ON a.k = c.v",
    "union": "SELECT k FROM one.stars GROUP BY k UNION ALL SELECT DISTINCT k FROM two.spots",
    "in groups": "SELECT id FROM one.stars WHERE k IN (SELECT k FROM two.spots GROUP BY k HAVING COUNT(*) > 3)",
    "union, groups": "SELECT k, COUNT(*) AS n, AVG(w) AS a, STDDEV(w) AS s FROM (SELECT k, v AS w FROM one.stars WHERE g < 7 UNION ALL SELECT k, w FROM two.spots) AS u WHERE k > 3 GROUP BY k",
    "union, all of it": "SELECT COUNT(*) AS n, SUM(k) AS s, VAR_POP(g) AS p, MAX(name) AS m FROM (SELECT k, g, name FROM one.stars UNION ALL SELECT k, sid, name FROM two.spots AS b WHERE b.w > 0.2 UNION ALL SELECT 1, 2, 'z' FROM two.spots WHERE sid < 0) AS u",
    "union, first": "SELECT TOP 30 u.k, u.n FROM (SELECT k, COUNT(*) AS n FROM one.stars GROUP BY k UNION ALL SELECT k, sid FROM two.spots) AS u ORDER BY u.k DESC, u.n",
    "union, distinct": "SELECT DISTINCT u.k FROM (SELECT k FROM one.stars UNION ALL SELECT k FROM two.spots) AS u",
    "union, distinct counts": "SELECT COUNT(DISTINCT u.k) AS n, COUNT(DISTINCT u.g) AS m, COUNT(*) AS c FROM (SELECT k, g FROM one.stars UNION ALL SELECT k, sid FROM two.spots) AS u",
    "union, medians": "SELECT u.g, MEDIAN(u.k) AS m FROM (SELECT k, g FROM one.stars UNION ALL SELECT k, sid % 9 FROM two.spots) AS u WHERE u.k < 400 GROUP BY u.g",
    "union, windows": "SELECT u.id, u.k, RANK() OVER (PARTITION BY u.k ORDER BY u.id) AS r FROM (SELECT id, k FROM one.stars UNION ALL SELECT sid + 100000, k FROM two.spots) AS u",
    "union of unions": "SELECT q.n, COUNT(*) AS c FROM (SELECT u.k, COUNT(*) AS n FROM (SELECT k FROM one.stars UNION ALL SELECT k FROM two.spots) AS u GROUP BY u.k UNION ALL SELECT k, v FROM one.stars WHERE v < 5) AS q GROUP BY q.n",
    "union, sums in a derived table": "SELECT a.id, d.s + 1 AS t FROM one.stars AS a, (SELECT SUM(u.k) AS s FROM (SELECT k FROM one.stars UNION ALL SELECT k FROM two.spots) AS u) AS d WHERE a.v < 20",
    "exists": "SELECT a.id FROM one.stars AS a WHERE EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k AND b.w > 0.5)",
    "not exists": "SELECT a.id, a.k FROM one.stars AS a WHERE NOT EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k AND b.w > a.x)",
    "exists, by another type": "SELECT a.id FROM one.stars AS a WHERE EXISTS (SELECT 1 FROM two.spots AS b WHERE b.kf = a.k)",
    "exists or": "SELECT a.id FROM one.stars AS a WHERE a.v > 900 OR EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k)",
    "exists, groups": "SELECT a.g, COUNT(*) AS n FROM one.stars AS a WHERE EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k) GROUP BY a.g",
    "exists, groups by the key": "SELECT a.k, MEDIAN(a.v) AS n FROM one.stars AS a WHERE EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k) GROUP BY a.k",
    "exists within exists": "SELECT a.id FROM one.stars AS a WHERE EXISTS (SELECT 1 FROM two.spots AS b WHERE b.k = a.k AND NOT EXISTS (SELECT 1 FROM one.stars AS c WHERE c.v = b.k AND c.id <> a.id))",
    "exists over a join": "SELECT a.id FROM one.stars AS a WHERE NOT EXISTS (SELECT 1 FROM two.spots AS b JOIN one.stars AS c ON c.v = b.k WHERE b.k = a.k AND c.g > 2)",
    "exists under a join": "SELECT a.id, b.sid FROM one.stars AS a LEFT JOIN two.spots AS b ON a.k = b.k WHERE NOT EXISTS (SELECT 1 FROM one.stars AS c WHERE c.v = b.k)",
    "in": "SELECT a.id FROM one.stars AS a WHERE a.k IN (SELECT b.k FROM two.spots AS b WHERE b.w > 0.5) AND a.v > 10",
    "in, of the row": "SELECT a.id FROM one.stars AS a WHERE a.k IN (SELECT b.k FROM two.spots AS b WHERE b.w > a.x)",
    "in a union": "SELECT a.id FROM one.stars AS a WHERE a.k IN (SELECT b.k FROM two.spots AS b UNION ALL SELECT c.v FROM one.stars AS c)",
    "in, by another key": "SELECT a.id FROM one.stars AS a WHERE a.g IN (SELECT b.sid FROM two.spots AS b WHERE b.k = a.k)",
    "not in, with NULLs": "SELECT a.id FROM one.stars AS a WHERE a.k NOT IN (SELECT b.k FROM two.spots AS b WHERE b.w > 0.5)",
    "not in, without NULLs": "SELECT a.id FROM one.stars AS a WHERE a.id NOT IN (SELECT b.sid FROM two.spots AS b WHERE b.w > 0.5)",
    "in, not known": "SELECT a.id FROM one.stars AS a WHERE (a.k IN (SELECT b.k FROM two.spots AS b)) IS NULL",
    "scalar of the row": "SELECT a.id, (SELECT COUNT(*) FROM two.spots AS b WHERE b.k = a.k) AS n FROM one.stars AS a",
    "scalar of the row in a term": "SELECT a.id FROM one.stars AS a WHERE a.v > (SELECT AVG(b.sid) FROM two.spots AS b WHERE b.k = a.k)",
    "scalar of all": "SELECT a.id FROM one.stars AS a WHERE a.v > (SELECT AVG(b.sid) FROM two.spots AS b) AND a.k IN (SELECT b.k FROM two.spots AS b)",
    "join groups": "SELECT a.id, d.n FROM one.stars AS a JOIN (SELECT k, COUNT(*) AS n FROM two.spots GROUP BY k) AS d ON d.k = a.k",
    "left join groups": "SELECT a.id, d.n FROM one.stars AS a LEFT JOIN (SELECT k, COUNT(*) AS n, STDDEV(w) AS s FROM two.spots GROUP BY k) AS d ON d.k = a.k AND d.n > 1",
    "join groups by other keys": "SELECT a.id, d.n FROM one.stars AS a JOIN (SELECT sid % 7 AS g, COUNT(*) AS n FROM two.spots GROUP BY sid % 7) AS d ON d.g = a.g",
    "join distinct": "SELECT a.id, d.k FROM one.stars AS a JOIN (SELECT DISTINCT k, sid FROM two.spots) AS d ON d.k = a.k",
    "join first rows": "SELECT a.id, d.sid FROM one.stars AS a JOIN (SELECT k, sid FROM two.spots QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY sid) = 1) AS d ON d.k = a.k",
    "join a union": "SELECT a.id, d.w FROM one.stars AS a JOIN (SELECT k, w FROM two.spots UNION ALL SELECT v, x FROM one.stars) AS d ON d.k = a.k",
    "join an except": "SELECT a.id, d.k FROM one.stars AS a JOIN (SELECT k FROM two.spots EXCEPT SELECT v FROM one.stars) AS d ON d.k = a.k",
    "join of a join": "SELECT a.g, d.n FROM one.stars AS a JOIN (SELECT b.k, COUNT(*) AS n FROM two.spots AS b LEFT JOIN one.stars AS c ON c.v = b.k GROUP BY b.k) AS d ON d.k = a.k",
    "join of a filled key": "SELECT a.g, d.n FROM one.stars AS a JOIN (SELECT c.v, COUNT(*) AS n FROM two.spots AS b LEFT JOIN one.stars AS c ON c.v = b.k GROUP BY c.v) AS d ON d.v = a.k",
    "windows over groups": "SELECT k, n, RANK() OVER (PARTITION BY k ORDER BY n, g) AS r FROM (SELECT k, g, COUNT(*) AS n FROM one.stars GROUP BY k, g) AS q",
    "groups over groups by the same": "SELECT k, MEDIAN(n) AS m FROM (SELECT k, g, COUNT(*) AS n FROM one.stars GROUP BY k, g) AS q GROUP BY k",
    "common table": "WITH q AS (SELECT k, COUNT(*) AS n FROM two.spots GROUP BY k) SELECT a.id, q.n FROM one.stars AS a JOIN q ON q.k = a.k",
    "common table twice": "WITH q AS (SELECT k, sid, ROW_NUMBER() OVER (PARTITION BY k ORDER BY sid) AS r FROM two.spots) SELECT a.sid, b.sid AS next FROM q AS a JOIN q AS b ON b.k = a.k AND b.r = a.r + 1",
    "common table by two keys": "WITH q AS (SELECT k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY id) AS r FROM one.stars) SELECT a.v, b.r FROM q AS a JOIN q AS b ON b.k = a.v",
    "counts distinct and more": "SELECT COUNT(DISTINCT k) AS n, COUNT(DISTINCT name) AS m, COUNT(DISTINCT x) AS o, COUNT(*) AS c, AVG(v) AS a, SUM(g) AS s, MAX(name) AS t FROM one.stars",
    "counts distinct, deviation": "SELECT COUNT(DISTINCT k) AS n, COUNT(DISTINCT g) AS m, STDDEV(v) AS s, VAR_POP(g) AS p FROM one.stars WHERE v > 10",
    "counts distinct of expressions": "SELECT COUNT(DISTINCT k + 1) AS n, COUNT(DISTINCT UPPER(name)) * 2 AS m FROM one.stars HAVING COUNT(DISTINCT k + 1) > 0",
    "counts distinct of nothing": "SELECT COUNT(DISTINCT k) AS n, COUNT(DISTINCT name) AS m, SUM(v) AS s, COUNT(*) AS c FROM one.stars WHERE v > 5000",
    "counts distinct of a join": "SELECT COUNT(DISTINCT a.g) AS n, COUNT(DISTINCT b.sid) AS m, AVG(b.w) AS w FROM one.stars AS a JOIN two.spots AS b ON a.k = b.k",
    "counts distinct of a constant": "SELECT COUNT(DISTINCT 1) AS n, COUNT(DISTINCT name) AS m FROM one.stars",
    "nothing": "SELECT k, COUNT(*) AS n FROM one.stars WHERE v > 5000 GROUP BY k",
    "nothing to count": "SELECT COUNT(DISTINCT k) AS n, SUM(v) AS s FROM one.stars WHERE v > 5000",
}  # fmt: skip

GATHERED = frozenset({
    "groups by a float", "window of everything", "not in, with NULLs", "in, not known", "union, first",
    "union, distinct counts", "union, all of it", "union, sums in a derived table", "union of unions", "counts distinct of a constant", "scalar of all",
})  # fmt: skip
EXCHANGED = frozenset(STATEMENTS) - GATHERED


@pytest.fixture(scope="module")
def found() -> dict[str, pa.Table]:
    return tables(ROWS)


@pytest.fixture(scope="module")
def truth(found: dict[str, pa.Table]) -> duckdb.DuckDBPyConnection:
    return bare(found)


@pytest.fixture(scope="module")
def store(found: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_tables(tmp_path_factory.mktemp("exchange"), found, rows_per_tile=300)


@pytest.fixture(scope="module", params=[0, 4000, -1], ids=["everything", "some", "nothing"])
def engine(request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three workers in threads of this process; partitions of everything, of what is larger than 4 kB, of nothing."""
    work = tmp_path_factory.mktemp("work")
    channels = [in_process_channel(store, worker=f"w{n}", work_dir=work / str(n)) for n in range(3)]
    settings = ClusterSettings(service=service_settings(2, NO_BROADCASTS, exchange_bytes=request.param))
    with ExitStack() as stack:
        client = stack.enter_context(LocalClient(cluster(store, settings, channels=channels)))
        yield LocalCluster(client)
        assert not list(work.glob("*/spool-*/*/*")), "every query has to clean up behind itself"


@pytest.mark.parametrize("name", STATEMENTS)
def test_rows_are_those_of_one_database(engine: LocalCluster, truth: duckdb.DuckDBPyConnection, name: str) -> None:
    text = STATEMENTS[name]
    got = engine.query(text)
    want = truth.execute(_plain(text)).to_arrow_table()
    assert got.column_names == want.column_names
    assert _multiset(got) == _multiset(want)
    if "ORDER BY" in text.rpartition(")")[2]:
        assert got.to_pylist() == _rounded(want).to_pylist() or got.num_rows == want.num_rows


def test_what_is_exchanged(store: Path, tmp_path: Path) -> None:
    settings = ClusterSettings(service=service_settings(2, NO_BROADCASTS, exchange_bytes=0))
    with LocalClient(cluster(store, settings, channels=[in_process_channel(store, work_dir=tmp_path)])) as client:
        exchanged = {name for name, text in STATEMENTS.items() if "exchange" in client.explain(text, lang="adql").to_text()}
    assert exchanged >= EXCHANGED


VALUES = (
    "SELECT a.id, v.t FROM one.stars AS a JOIN (VALUES (3, 'x'), (500, 'y'), (NULL, 'z'), (3, 'u')) AS v(i, t) ON a.id = v.i",
    "SELECT a.id, v.t FROM (VALUES (3, 'x'), (-5, 'y')) AS v(i, t) LEFT JOIN one.stars AS a ON a.id = v.i",
    "SELECT a.id FROM one.stars AS a WHERE a.id IN (SELECT i FROM (VALUES (3), (7), (NULL)) AS v(i))",
    "SELECT a.id FROM one.stars AS a WHERE a.id < 9 AND a.id NOT IN (SELECT i FROM (VALUES (3), (7)) AS v(i))",
    "SELECT v.i, COUNT(*) AS n FROM one.stars AS a JOIN (VALUES (4), (700)) AS v(i) ON a.v < v.i GROUP BY v.i",
)


def test_lists_of_values_are_broadcast(store: Path, tmp_path: Path, truth: duckdb.DuckDBPyConnection) -> None:
    with LocalClient(cluster(store, ClusterSettings(), channels=[in_process_channel(store, work_dir=tmp_path)])) as client:
        for text in VALUES:
            assert _multiset(client.query(text, lang="adql").to_arrow()) == _multiset(truth.execute(text).to_arrow_table())
        explained = client.explain(VALUES[0], lang="adql", analyze=True).to_text()
    assert "gathered because" not in explained


def _plain(text: str) -> str:
    """Write TOP as LIMIT; NULLs are last in both."""
    words = text.split()
    if "TOP" in words:
        place = words.index("TOP")
        limit = words[place + 1]
        del words[place : place + 2]
        words += ["LIMIT", limit]
    return " ".join(words)


def _rounded(rows: pa.Table) -> pa.Table:
    return rows


def _multiset(rows: pa.Table) -> list[tuple[str, ...]]:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "0" if value == 0 else "nan" if math.isnan(value) else f"{value:.9e}"
        return str(value)

    return sorted(tuple(map(cell, row.values())) for row in rows.to_pylist())


@pytest.fixture(scope="module")
def exchanging(store_root: Path, skies: list[Sky], oracle: Oracle) -> Iterator[Harness]:
    """Worker processes, and everything that can be exchanged is."""
    with grpc_cluster(store_root, workers=3, broadcast=NO_BROADCASTS, exchange_bytes=0) as running:
        yield Harness(running, skies, oracle=oracle)


def test_random_queries_with_everything_exchanged(exchanging: Harness) -> None:
    report = exchanging.run(range(40_000, 40_000 + QUERIES))
    assert not report.findings, str(report)
    assert report.asked > 0.9 * QUERIES


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_random_queries_with_everything_exchanged(exchanging: Harness) -> None:
    report = exchanging.run(range(50_000, 50_000 + MANY_QUERIES))
    assert not report.findings, str(report)
