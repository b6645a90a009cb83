"""Leaf on any partition of the rows, then the final part, is the statement on all rows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.types import to_arrow
from qengine.plan.split import Split, split
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.support.imaginary import survey
from tests.unit.plan.world import sorted_rows

CATALOG = survey(0)
COLUMNS = ("objectId", "mag", "flags", "name")

Row = tuple[int, float | None, int | None, str | None]
ROWS = st.lists(
    st.tuples(
        st.integers(-3, 3) | st.sampled_from([2**31, -(2**40)]),
        st.none() | st.sampled_from([0.0, -1.5, 2.25, 1e6, 1e6 + 0.5]) | st.integers(-9, 9).map(float),
        st.none() | st.integers(-2, 2),
        st.none() | st.sampled_from(["a", "b", "B", "", "é"]),
    ),
    max_size=14,
)

# Answers that do not depend on which of several right ones is chosen.
STATEMENTS = (
    "SELECT COUNT(*) AS a, COUNT(mag) AS b, SUM(mag) AS c, AVG(mag) AS d, MIN(name) AS e, MAX(mag) AS f FROM dp.Object",
    "SELECT flags, COUNT(*) AS a, SUM(objectId) AS b, AVG(flags) AS c, MAX(name) AS d FROM dp.Object GROUP BY flags",
    "SELECT name, STDDEV(mag) AS a, STDDEV_POP(mag) AS b, VAR_SAMP(mag) AS c, VAR_POP(mag) AS d FROM dp.Object GROUP BY name",
    "SELECT VARIANCE(flags) AS a, STDDEV_SAMP(objectId) AS b FROM dp.Object",
    "SELECT flags + 1 AS f, COUNT(*) * 2 + flags + 1 AS n FROM dp.Object GROUP BY flags + 1, flags HAVING COUNT(*) > 1",
    "SELECT CASE WHEN COUNT(*) > 3 THEN MAX(mag) ELSE -SUM(mag) END AS x, name FROM dp.Object WHERE mag > 0 GROUP BY name, flags",
    "SELECT COUNT(DISTINCT name) AS a, COUNT(DISTINCT flags) AS b, MIN(mag) AS c FROM dp.Object",
    "SELECT COUNT(DISTINCT name) AS a, COUNT(DISTINCT flags + 1) AS b, AVG(mag) AS c, COUNT(*) AS d, STDDEV(mag) AS e FROM dp.Object",
    "SELECT COUNT(DISTINCT mag) * 2 AS a, SUM(flags) AS b FROM dp.Object WHERE mag > 0 HAVING COUNT(DISTINCT mag) > 1",
    "SELECT COUNT(DISTINCT 1) AS a, COUNT(DISTINCT name) AS b, MAX(flags) AS c FROM dp.Object",
    "SELECT name, COUNT(DISTINCT flags) AS a, COUNT(*) AS b, SUM(DISTINCT mag) AS c FROM dp.Object GROUP BY name",
    "SELECT MEDIAN(mag) AS a FROM dp.Object",
    "SELECT DISTINCT name, flags FROM dp.Object",
    "SELECT DISTINCT COUNT(*) AS n FROM dp.Object GROUP BY name",
    "SELECT COUNT(*) AS n FROM dp.Object HAVING COUNT(*) > 2",
    "SELECT 7 AS n FROM dp.Object HAVING 1 = 1",
    "SELECT MAX(3) AS n, 'x' AS t, COUNT(*) AS m FROM dp.Object",
    "SELECT objectId, mag * 2 AS m, UPPER(name) AS u FROM dp.Object WHERE flags IS NULL OR mag > 1",
    "SELECT name, SUM(flags) OVER (PARTITION BY name) AS s, RANK() OVER (ORDER BY mag, name) AS r FROM dp.Object",
    "SELECT COUNT(*) AS n FROM dp.Object GROUP BY 'a'",
    "SELECT name FROM dp.Object WHERE mag > 0 GROUP BY name",
)  # fmt: skip
ORDERED = (
    "SELECT TOP 3 name, flags, mag, objectId FROM dp.Object ORDER BY name DESC, flags, mag, objectId",
    "SELECT TOP 2 name, flags, mag, objectId FROM dp.Object ORDER BY mag + 1, name, flags, objectId OFFSET 1",
    "SELECT DISTINCT TOP 3 name, flags FROM dp.Object ORDER BY flags DESC, name OFFSET 1",
    "SELECT name, COUNT(*) AS n FROM dp.Object GROUP BY name ORDER BY COUNT(*) DESC, name",
    "SELECT TOP 1 name, SUM(mag) AS n FROM dp.Object GROUP BY name ORDER BY MAX(flags), name OFFSET 1",
    "SELECT TOP 0 name FROM dp.Object ORDER BY name",
    'SELECT flags AS "order 0" FROM dp.Object ORDER BY name, mag, flags',
)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("CREATE SCHEMA dp")
    connection.execute("CREATE TABLE dp.Object (objectId BIGINT, mag DOUBLE, flags INTEGER, name VARCHAR)")
    yield connection
    connection.close()


def parts_of(text: str) -> tuple[str, Split]:
    tree = bind(parse(text, "adql"), CATALOG).tree
    return render(tree), split(tree, "r0")  # type: ignore[arg-type]


def on(database: duckdb.DuckDBPyConnection, rows: list[Row], sql: str) -> pa.Table:
    database.execute("TRUNCATE dp.Object")
    if rows:
        database.executemany("INSERT INTO dp.Object VALUES (?, ?, ?, ?)", rows)
    return database.execute(sql).to_arrow_table()


def both(database: duckdb.DuckDBPyConnection, text: str, rows: list[Row], tasks: int, seed: int) -> tuple[list[str], list[str]]:
    """Return the answers over all rows and over `tasks` random shares of them, as rows in their order."""
    whole, halves = parts_of(text)
    schema = pa.schema([(name, to_arrow(found)) for name, found in halves.columns])
    shares: list[list[Row]] = [[] for _ in range(tasks)]
    rng = random.Random(seed)
    for row in rows if tasks else []:
        rng.choice(shares).append(row)
    tables = [on(database, share, render(halves.leaf)) for share in shares]
    for table in tables:
        assert table.schema.names == schema.names
        assert table.schema.types == schema.types
    database.register("r0", pa.concat_tables(tables) if tables else schema.empty_table())
    try:
        found = database.execute(render(halves.final)).to_arrow_table()
    finally:
        database.unregister("r0")
    truth = on(database, rows if tasks else [], whole)
    assert found.schema.names == truth.schema.names
    assert found.schema.types == truth.schema.types, "a split changes no type"
    return [_row(r) for r in truth.to_pylist()], [_row(r) for r in found.to_pylist()]


def _row(row: dict[str, object]) -> str:
    return sorted_rows(
        [tuple(f"{v:.9g}" if isinstance(v, float) and abs(v) > 1e-5 else 0.0 if isinstance(v, float) else v for v in row.values())]
    )[0]


@settings(max_examples=120, deadline=None)
@given(text=st.sampled_from(STATEMENTS), rows=ROWS, tasks=st.integers(0, 4), seed=st.integers(0, 9))
def test_split_is_the_statement(database: duckdb.DuckDBPyConnection, text: str, rows: list[Row], tasks: int, seed: int) -> None:
    truth, found = both(database, text, rows, tasks, seed)
    assert sorted(found) == sorted(truth)


@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(ORDERED), rows=ROWS, tasks=st.integers(0, 4), seed=st.integers(0, 9))
def test_order_and_cut_are_kept(database: duckdb.DuckDBPyConnection, text: str, rows: list[Row], tasks: int, seed: int) -> None:
    truth, found = both(database, text, rows, tasks, seed)
    assert found == truth


@pytest.mark.parametrize("text", [*STATEMENTS, *ORDERED])
def test_no_tasks_are_no_rows(database: duckdb.DuckDBPyConnection, text: str) -> None:
    truth, found = both(database, text, [], 0, 0)
    assert found == truth


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("SELECT mag FROM dp.Object", "rows", None),
        ("SELECT TOP 5 mag FROM dp.Object", "rows", 5),
        ("SELECT TOP 5 mag FROM dp.Object OFFSET 2", "rows", 7),
        ("SELECT TOP 5 mag FROM dp.Object ORDER BY mag", "rows", None),
        ("SELECT DISTINCT TOP 5 mag FROM dp.Object", "rows", None),
        ("SELECT SUM(mag) AS s FROM dp.Object", "partial", None),
        ("SELECT TOP 5 flags FROM dp.Object GROUP BY flags", "partial", None),
        ("SELECT COUNT(DISTINCT mag) AS s FROM dp.Object", "input", None),
        ("SELECT MEDIAN(mag) AS s FROM dp.Object", "input", None),
        ("SELECT ROW_NUMBER() OVER (ORDER BY mag) AS s FROM dp.Object", "input", None),
    ],
)
def test_kind_and_row_limit(text: str, kind: str, limit: int | None) -> None:
    _, halves = parts_of(text)
    assert (halves.kind, halves.row_limit) == (kind, limit)


def test_variances_keep_their_digits(database: duckdb.DuckDBPyConnection) -> None:
    """Squares of a thousand million would lose all of them."""
    rows: list[Row] = [(i, 1e9 + i % 5, 1, "a") for i in range(100)]
    truth, found = both(database, "SELECT VAR_POP(mag) AS v, STDDEV(mag) AS s FROM dp.Object", rows, 7, 1)
    assert found == truth
    assert "'2'" in found[0]


def test_distinct_aggregates_send_distinct_rows() -> None:
    for text, is_distinct in (
        ("SELECT COUNT(DISTINCT name) AS n, MAX(name) AS m FROM dp.Object", True),
        ("SELECT flags, COUNT(DISTINCT name) AS n, MAX(mag) AS m FROM dp.Object GROUP BY flags", True),
        ("SELECT COUNT(DISTINCT name) AS n, SUM(mag) AS m FROM dp.Object", False),
        ("SELECT COUNT(DISTINCT name) AS n, COUNT(*) OVER () AS m FROM dp.Object GROUP BY mag", False),
    ):
        assert (parts_of(text)[1].leaf.args.get("distinct") is not None) is is_distinct
