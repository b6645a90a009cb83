"""Views and virtual columns: every statement gives the rows of the same statement with the definitions written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import duckdb
import pytest

from qengine.catalog.model import NO_PARTS, Catalog, Column, Release, Table, TableKind, TableSnapshot
from qengine.catalog.sidecar import View
from qengine.catalog.types import BIGINT, DOUBLE, FLOAT, NULL
from qengine.errors import QueryError, SchemaError
from qengine.plan.optimize import optimize
from qengine.sql.bind import bind
from qengine.sql.computed import view_tables, with_types
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render

MAG = "CASE WHEN flux > 0 THEN -2.5 * LOG10(flux) + 31.4 END"


def virtual(name: str, expression: str, unit: str = "") -> Column:
    return Column(name=name, type=NULL, unit=unit, expression=expression)


THINGS = Table(
    schema="demo", name="Things", kind=TableKind.DIRECTOR, family="demo.Things", key="id", ra="ra", dec="dec",
    columns=(
        Column(name="id", type=BIGINT), Column(name="ra", type=DOUBLE, unit="deg"), Column(name="dec", type=DOUBLE, unit="deg"),
        Column(name="flux", type=FLOAT, unit="nJy"), Column(name="n", type=BIGINT), Column(name="_load", type=BIGINT, hidden=True),
    ),
    virtual=(virtual("Mag", MAG, "mag"), virtual("faint", "Mag > 25 OR Mag IS NULL"), virtual("half", "n / 2"), virtual("sum1", "n + 1 -- one")),
)  # fmt: skip
VIEWS = (
    View(name="Bright", sql="SELECT id, ra, dec, Mag AS m FROM Things WHERE Mag < 22"),
    View(name="Brightest", sql="SELECT * FROM Bright WHERE m < 20"),
    View(name="Counts", sql="SELECT n, COUNT(*) AS many FROM demo.Things GROUP BY n"),
)


def published(*tables: Table) -> Catalog:
    return Catalog(tuple(TableSnapshot(table=t, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS) for t in tables))


def made(views: Sequence[View], things: Table = THINGS) -> tuple[Table, ...]:
    base = published(with_types(things, "x.toml"))
    return view_tables(views, (), base, schema="demo", release=Release(), where="x.toml")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return published(with_types(THINGS, "x.toml"), *made(VIEWS))


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for macro in MACROS:
        connection.execute(macro)
    connection.execute("CREATE SCHEMA demo")
    connection.execute(
        "CREATE TABLE demo.Things AS SELECT i AS id, 10.0 + i AS ra, 0.5 * i AS dec, "
        "CAST(CASE i % 5 WHEN 0 THEN -3.0 WHEN 1 THEN NULL ELSE pow(7.0, i % 9) END AS FLOAT) AS flux, i % 7 AS n, 1 AS _load FROM range(90) t(i)"
    )
    connection.execute(
        f'CREATE VIEW demo.Wide AS SELECT id, ra, "dec", flux, n, {MAG} AS Mag, '
        f"({MAG}) > 25 OR ({MAG}) IS NULL AS faint, n // 2 AS half, n + 1 AS sum1, _load FROM demo.Things"
    )
    connection.execute('CREATE VIEW demo.Bright AS SELECT id, ra, "dec", Mag AS m FROM demo.Wide WHERE Mag < 22')
    connection.execute("CREATE VIEW demo.Brightest AS SELECT * FROM demo.Bright WHERE m < 20")
    connection.execute("CREATE VIEW demo.Counts AS SELECT n, count(*) AS many FROM demo.Things GROUP BY n")
    return connection


STATEMENTS = (
    "SELECT * FROM demo.{t}",
    "SELECT id, mag FROM demo.{t} WHERE MAG BETWEEN 18 AND 23",
    "SELECT t.*, t.Mag * 2 - 1 AS x FROM demo.{t} t WHERE NOT (t.half * 2 = t.n)",
    "SELECT half, sum1 * 3 AS s, COUNT(Mag) AS c, MIN(Mag) AS lo FROM demo.{t} GROUP BY half, sum1 * 3",
    "SELECT a.id, b.id AS other FROM demo.{t} a JOIN demo.{t} b ON a.half = b.sum1 AND a.Mag < b.Mag",
    "SELECT half, x.id, y.id AS o FROM demo.{t} x JOIN demo.{t} y USING (half) WHERE x.id < 20 AND y.id < 20",
    "SELECT a.id FROM demo.{t} a WHERE EXISTS (SELECT 1 FROM demo.{t} b WHERE b.half = a.sum1 AND b.Mag > a.Mag)",
    "SELECT z.k, z.Mag FROM (SELECT id AS k, Mag FROM demo.{t}) z WHERE z.Mag IS NOT NULL",
    "SELECT q.id, q.Mag FROM demo.{t} p JOIN (demo.{t} q JOIN demo.{t} r ON q.id = r.id) ON p.id = q.id WHERE r.faint = FALSE",
    "SELECT half FROM demo.{t} UNION SELECT sum1 FROM demo.{t}",
    "SELECT id, RANK() OVER (PARTITION BY half ORDER BY Mag, id) AS r FROM demo.{t}",
)
VIEW_STATEMENTS = (
    "SELECT * FROM demo.Bright",
    "SELECT COUNT(*) AS c, MAX(m) AS x FROM demo.Brightest WHERE ra > 30",
    "SELECT b.id, c.many FROM demo.bright b JOIN demo.Counts c ON c.n = MOD(b.id, 7) WHERE b.m < 21",
    "SELECT Bright.id FROM demo.Bright JOIN demo.Brightest ON Bright.id = Brightest.id",
    "SELECT id FROM demo.Bright WHERE id IN (SELECT id FROM demo.Brightest)",
    "WITH Bright AS (SELECT id FROM demo.Brightest) SELECT COUNT(*) AS c FROM Bright",
)


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[str]]:
    result = connection.execute(sql)
    names = [d[0] for d in result.description or ()]
    return names, sorted(repr([round(v, 6) if isinstance(v, float) else v for v in row]) for row in result.fetchall())


@pytest.mark.parametrize("statement", STATEMENTS)
def test_virtual_columns_are_their_expressions(catalog: Catalog, duck: duckdb.DuckDBPyConnection, statement: str) -> None:
    bound = bind(parse(statement.format(t="Things"), "adql"), catalog)
    expected = bind(parse(statement.format(t="Wide"), "adql"), _wide(catalog))
    names, found = rows(duck, render(bound.tree))
    assert (names, found) == rows(duck, render(expected.tree))
    assert [c.type for c in bound.columns] == [c.type for c in expected.columns]
    assert found
    assert rows(duck, render(optimize(bound.tree, catalog)))[1] == found


@pytest.mark.parametrize("statement", VIEW_STATEMENTS)
def test_views_are_their_selects(catalog: Catalog, duck: duckdb.DuckDBPyConnection, statement: str) -> None:
    bound = bind(parse(statement, "adql"), catalog)
    names, found = rows(duck, render(bound.tree))
    assert (names, found) == rows(duck, statement)
    assert found
    assert bound.tables == (("demo", "Things"),)
    assert rows(duck, render(optimize(bound.tree, catalog)))[1] == found


def _wide(catalog: Catalog) -> Catalog:
    """The same table with all columns stored."""
    table = catalog.tables[0].table
    stored = tuple(replace(c, expression="") for c in table.shown)
    return published(replace(table, name="Wide", columns=stored, virtual=()))


def test_types_units_and_names_of_virtual_columns(catalog: Catalog) -> None:
    bound = bind(parse("SELECT MAG, half, ra FROM demo.Things", "adql"), catalog)
    assert [(c.name, c.type.name, c.unit) for c in bound.columns] == [
        ("Mag", "DOUBLE", "mag"),
        ("half", "BIGINT", ""),
        ("ra", "DOUBLE", "deg"),
    ]
    strict = bind(parse("SELECT Mag FROM demo.Things WHERE Mag < 20", "adql-strict"), catalog)
    assert strict.warnings == ()
    # integer division is that of ADQL, whoever asks
    halves = bind(parse("SELECT half FROM demo.Things", "sql"), catalog)
    assert [c.type.name for c in halves.columns] == ["BIGINT"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (virtual("m", "flux2 * 2"), "there is no column flux2"),
        (virtual("m", "m + 1"), "defined by itself: demo.Things.m -> demo.Things.m"),
        (virtual("m", "COUNT(*)"), "COUNT cannot stand in a virtual column"),
        (virtual("m", "RAND()"), "one value per row"),
        (virtual("m", "(SELECT 1 FROM demo.Things)"), "without sub-queries"),
        (virtual("m", "1), (2"), "one expression"),
        (virtual("m", "1) AS a FROM demo.Things --"), ""),
        (virtual("m", "flux +"), ""),
        (virtual("m", "ROW_NUMBER() OVER (ORDER BY id)"), "window"),
    ],
)
def test_mistakes_in_virtual_columns_are_named(column: Column, words: str) -> None:
    with pytest.raises(SchemaError, match=r"x\.toml: tables.Things.virtual.m.expression: ") as caught:
        with_types(replace(THINGS, virtual=(column,)), "x.toml")
    assert words in caught.value.message


def test_virtual_columns_by_each_other() -> None:
    pair = (virtual("a", "b + 1"), virtual("b", "a + 1"))
    with pytest.raises(SchemaError, match=r"demo.Things.a -> demo.Things.b -> demo.Things.a"):
        with_types(replace(THINGS, virtual=pair), "x.toml")


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ((View(name="v", sql="SELECT no FROM Things"),), "views.v.sql: .*there is no column no"),
        ((View(name="v", sql="SELECT * FROM Thing"),), "views.v.sql: .*there is no table Thing"),
        ((View(name="v", sql="SELECT * FROM v"),), "defined by itself: demo.v -> demo.v"),
        ((View(name="v", sql="SELECT * FROM w"), View(name="w", sql="SELECT * FROM v")), "demo.v -> demo.w -> demo.v"),
        ((View(name="things", sql="SELECT 1 AS a"),), "a table has this name"),
        ((View(name="a b", sql="SELECT 1 AS a"),), "no name for a table"),
        ((View(name="v", sql="DROP TABLE x"),), "views.v.sql: "),
    ],
)
def test_mistakes_in_views_are_named(views: tuple[View, ...], words: str) -> None:
    with pytest.raises(SchemaError, match=words) as caught:
        made(views)
    assert caught.value.message.startswith("x.toml: views.")


def test_a_view_waits_for_its_tables() -> None:
    other = replace(THINGS, schema="felis", name="Later", virtual=())
    view = View(name="Both", sql="SELECT t.id FROM Things t JOIN Later l ON t.id = l.id")
    base = published(THINGS)
    assert view_tables([view], [other], base, schema="demo", release=Release(), where="x") == ()
    ready = published(THINGS, replace(other, schema="demo"))
    [found] = view_tables([view], [other], ready, schema="demo", release=Release(), where="x")
    assert (found.full_name, [c.name for c in found.columns]) == ("demo.Both", ["id"])


def test_a_view_that_broke_says_so_without_a_place() -> None:
    broken = published(Table(schema="demo", name="v", kind=TableKind.REPLICATED, columns=(), view="SELECT x FROM gone"))
    with pytest.raises(QueryError, match=r"the view demo\.v: there is no table gone") as caught:
        bind(parse("SELECT * FROM demo.v", "adql"), broken)
    assert caught.value.span is None
