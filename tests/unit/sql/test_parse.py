"""What the three profiles take and refuse before any catalogue is known."""

from __future__ import annotations

import sys

import pytest

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import BIGINT
from qengine.errors import QueryError, QuerySyntaxError
from qengine.sql.bind import bind
from qengine.sql.parse import parse, parse_adql

COLUMNS = tuple(Column(name=name, type=BIGINT) for name in "abx")
CATALOG = Catalog(tuple(
    TableSnapshot(
        table=Table(schema="s", name=name, kind=TableKind.REPLICATED, columns=COLUMNS), number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS
    )
    for name in "tuv"
))  # fmt: skip

ADQL = [
    "SELECT a FROM t",
    "select top 5 t.a, b as c, count(*) from s.t as t where a = 1 group by a, b having count(*) > 1 order by 1 desc, a asc offset 3",
    "SELECT ALL a FROM t", "SELECT DISTINCT a FROM t", "SELECT * FROM t", "SELECT t.*, u.a FROM t, u", "SELECT s.t.a FROM s.t;",
    "SELECT a x FROM t u", 'SELECT "date" FROM "S"."T"', "SELECT 'it''s' FROM t -- comment", "SELECT a -- c\nFROM t",
    "SELECT 1, 1.5, .5, 5., 1e5, 1.5E-3, -3, +2, 'x' || 'y', NULL FROM t", "SELECT a FROM t JOIN u ON t.a = u.a",
    "SELECT a FROM t INNER JOIN u USING (a, b)", "SELECT a FROM t NATURAL LEFT OUTER JOIN u", "SELECT a FROM t FULL JOIN u USING (a)",
    "SELECT a FROM (t JOIN u ON t.a = u.a) JOIN v USING (a)", "SELECT x.a FROM (SELECT a FROM t) AS x", "SELECT x.a FROM (SELECT a FROM t) x",
    "SELECT a FROM t WHERE a IN (1, 2) AND b NOT IN (SELECT b FROM u) OR NOT EXISTS (SELECT * FROM v)",
    "SELECT a FROM t WHERE a BETWEEN 1 AND 2 AND b NOT BETWEEN -1 AND +1 AND c LIKE 'x%' AND d NOT LIKE '_' AND e ILIKE 'z' AND f IS NOT NULL",
    "SELECT a FROM t WHERE a <> 1 AND b != 2 AND c <= 3 AND d >= 4 AND (e < 5 OR f > 6)",
    "SELECT COUNT(DISTINCT a), SUM(ALL b), AVG(c), MIN(d), MAX(e) FROM t",
    "SELECT ABS(a), CEILING(a), LOG(a), MOD(a, 2), PI(), RAND(), RAND(1), ROUND(a), ROUND(a, 2), TRUNCATE(a, 1), ATAN2(a, b) FROM t",
    "SELECT COALESCE(a, b, 1), UPPER(c), LOWER(c), IN_UNIT(a, 'deg'), CAST(a AS DOUBLE PRECISION), CAST(a AS VARCHAR(3)), CAST(a AS REAL) FROM t",
    "SELECT a FROM t WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 1, 2, 3)) AND DISTANCE(POINT(1, 2), POINT(3, 4)) < 5",
    "WITH x AS (SELECT a FROM t), y AS (SELECT a FROM x) SELECT a FROM y", "SELECT a FROM t UNION SELECT a FROM u INTERSECT SELECT a FROM v",
    "SELECT a FROM t UNION ALL (SELECT a FROM u ORDER BY a OFFSET 2) ORDER BY 1", "(SELECT a FROM t) EXCEPT SELECT b FROM u",
    "SELECT a FROM t WHERE a = (SELECT MAX(a) FROM t)", "SELECT a FROM t ORDER BY a + b", "SELECT a FROM t GROUP BY a + 1",
    "SELECT TOP 3 -1 FROM t", "SELECT TOP 3 * FROM t",
]  # fmt: skip

EXTENDED = [
    ("SELECT a FROM t LIMIT 5", "LIMIT"), ("SELECT CASE WHEN a = 1 THEN 2 ELSE 3 END FROM t", "CASE"), ("SELECT CASE a WHEN 1 THEN 2 END FROM t", "CASE"),
    ("SELECT ROW_NUMBER() OVER (ORDER BY a) FROM t", "window"), ("SELECT a FROM t QUALIFY RANK() OVER (ORDER BY a) = 1", "QUALIFY"),
    ("SELECT a FROM t CROSS JOIN u", "CROSS JOIN"), ("SELECT a % 2 FROM t", "%"), ("SELECT a DIV 2 FROM t", "DIV"), ("SELECT a FROM t ORDER BY a NULLS FIRST", "NULLS"),
    ("SELECT COUNT(*) FILTER (WHERE a = 1) FROM t", "FILTER"), ("SELECT a FROM t WHERE a LIKE 'x!%' ESCAPE '!'", "ESCAPE"),
    ("SELECT a FROM t WHERE a <=> b", "<=>"), ("SELECT a FROM t WHERE a IS DISTINCT FROM b", "DISTINCT"), ("SELECT TRUE FROM t", "TRUE"),
    ("SELECT a & 1 FROM t", "&"), ("SELECT a | 1 FROM t", "|"), ("SELECT a ^ 2 FROM t", "^"), ("SELECT ~a FROM t", "~"), ("SELECT a << 2 FROM t", "<<"),
    ("SELECT 0x1F FROM t", "hexa"), ("SELECT [a] FROM t", "lists"), ("SELECT [a][1] FROM t", "members"), ("SELECT a FROM (VALUES (1)) v(a)", "VALUES"),
    ("SELECT a FROM t WHERE (a, b) IN ((1, 2))", "rows in IN"), ("SELECT a FROM t GROUP BY ROLLUP (a)", "ROLLUP"), ("SELECT a FROM t GROUP BY CUBE (a, b)", "CUBE"),
    ("SELECT a FROM t GROUP BY GROUPING SETS ((a))", "GROUPING SETS"), ("SELECT a FROM t FETCH FIRST 5 ROWS ONLY", "LIMIT"),
    ("SELECT t.a FROM t, LATERAL (SELECT u.b FROM u WHERE u.a = t.a) x", "LATERAL"), ("SELECT a FROM t, UNNEST([1, 2]) AS z(y)", "UNNEST"),
    ("SELECT DISTINCT ON (a) a FROM t", "DISTINCT ON"), ("SELECT a FROM t SEMI JOIN u USING (a)", "SEMI"), ("SELECT a FROM t ANTI JOIN u USING (a)", "ANTI"),
    ("SELECT t.a FROM t ASOF JOIN u ON t.a = u.a AND t.b >= u.b", "ASOF"), ("SELECT SUM(a) OVER w FROM t WINDOW w AS (ORDER BY a)", "window"),
    ("SELECT a FROM t WHERE a = 1 XOR b = 1", "XOR"), ("SELECT a FROM t WHERE a BETWEEN SYMMETRIC 2 AND 1", "SYMMETRIC"), ("SELECT a FROM t WHERE a = 1 && b = 1", "&&"),
    ("SELECT date FROM t", "date"), ("SELECT _x FROM t", "_x"), ("SELECT size FROM t", "size"), ("SELECT a AS point FROM t", "point"),
]  # fmt: skip

NEVER = [
    "", ";", "   ", "-- only a comment", "SELECT", "SELECT a", "SELECT FROM t", "SELECT 1", "FROM t", "FROM t SELECT a", "SELECT a FROM t WHERE x IN (FROM u)",
    "SELECT a FROM t; SELECT b FROM u", "SELECT a FROM t; DROP TABLE t", "SELECT a FROM t;;", "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t",
    "DROP TABLE t", "CREATE TABLE x AS SELECT 1", "COPY t TO 'x'", "COPY (SELECT a FROM t) TO 'x'", "ATTACH 'x.db'", "PRAGMA database_list", "SET threads = 1",
    "RESET ALL", "INSTALL httpfs", "LOAD httpfs", "CALL pragma_version()", "EXPLAIN SELECT a FROM t", "DESCRIBE t", "SHOW TABLES", "VALUES (1)", "CHECKPOINT", "EXPORT DATABASE 'x'",
    "SELECT a FROM '/etc/passwd'", "SELECT a FROM 'x.parquet' AS t", "SELECT a FROM read_parquet('x')", "SELECT a FROM read_csv('/etc/passwd') t", "SELECT a FROM range(10)",
    "SELECT a FROM t, generate_series(1, 10) g", "SELECT a FROM TABLE(x)", "SELECT a FROM UNNEST([1]) u",
    "SELECT a FROM glob('*')", "SELECT a FROM duckdb_settings()", "SELECT * EXCLUDE (a) FROM t", "SELECT * REPLACE (1 AS a) FROM t", "SELECT COLUMNS('x') : 1 FROM t",
    "SELECT a, FROM t", "SELECT , a FROM t", "SELECT a,, b FROM t", "SELECT f(a,) FROM t", "SELECT a FROM t,", "SELECT a FROM t ORDER BY a,", "SELECT a FROM t GROUP BY a, HAVING a = 1",
    "SELECT a FROM t WHERE a == 1", "SELECT a FROM t WHERE a IN 1", "SELECT a FROM t WHERE a IN ()", "SELECT a::INTEGER FROM t", "SELECT a FROM t WHERE a = ?",
    "SELECT a FROM t WHERE a = :p", "SELECT a FROM t WHERE a = $1", "SELECT @a FROM t", "SELECT {'a': 1} FROM t",
    "SELECT `a` FROM t", "SELECT 1_000 FROM t", "SELECT 1e FROM t", "SELECT 12abc FROM t", "SELECT 'a FROM t", 'SELECT "a FROM t', "SELECT (a FROM t", "SELECT a) FROM t",
    "SELECT a FROM t JOIN u", "SELECT a FROM t NATURAL JOIN u ON t.a = u.a", "SELECT a FROM t JOIN u USING ()", "SELECT a FROM t ASOF JOIN u ON 1 = 1", "SELECT a FROM t CROSS JOIN u ON 1 = 1",
    "SELECT a FROM (SELECT a FROM t)", "SELECT TOP a FROM t", "SELECT TOP -5 a FROM t", "SELECT TOP 1.5 a FROM t", "SELECT TOP (5) a FROM t", "SELECT a FROM t OFFSET -1", "SELECT a FROM t LIMIT a", "SELECT a FROM t LIMIT 5, 3",
    "SELECT TOP 1 a FROM t LIMIT 5", "SELECT a FROM t GROUP BY ALL", "SELECT a FROM t FOR UPDATE",
    "SELECT a FROM t TABLESAMPLE (5)", "SELECT a FROM t USING SAMPLE 5", "WITH RECURSIVE x AS (SELECT a FROM t) SELECT a FROM x", "SELECT TIMESTAMP '2020-01-01' FROM t", "SELECT DATE '2020-01-01' FROM t", "SELECT INTERVAL '1' DAY FROM t",
    "SELECT a FROM t WHERE a IS 5", "SELECT a FROM t WHERE a IS b", "SELECT a 'x' FROM t", "SELECT a AS 'x' FROM t", "SELECT x -> x FROM t", "SELECT f(x -> x + 1) FROM t", "SELECT f(x := 1) FROM t", "SELECT f(x => 1) FROM t",
    "SELECT a FROM t WHERE a", "SELECT a FROM t PIVOT (SUM(a) FOR b IN (1))", "SELECT a FROM a.b.c.d", "SELECT a\0 FROM t", "SELECT a\x07 FROM t", "SELECT \u202ea FROM t", "SELECT '\ud800' FROM t",
    "SELECT a.b.c.d.e FROM t", "SELECT SUM(a ORDER BY b) FROM t", "SELECT CAST(a, INTEGER) FROM t", "SELECT CAST(a AS) FROM t", "SELECT CAST(a AS VARCHAR(x)) FROM t", "SELECT a FROM t UNION BY NAME SELECT a FROM u", "SELECT a FROM t AS OF 5",
    "SELECT a FROM t UNION", "SELECT a FROM t WHERE", "SELECT a FROM t ORDER BY", "SELECT a FROM t WHERE a =", "SELECT a FROM t WHERE a LIKE ANY (1)", "SELECT a INTO x FROM t", "SELECT a FROM t WHERE CASE WHEN a = 1 THEN 2",
]  # fmt: skip

STRICT_ONLY = [
    "SELECT a FROM t WHERE CONTAINS(POINT(1, 2), CIRCLE(1, 2, 3))", "SELECT a FROM t WHERE a + 1", "SELECT a FROM t WHERE a AND b = 1", "SELECT a = 1 FROM t", "SELECT a FROM t HAVING COUNT(*)",
    "SELECT a FROM t JOIN u ON a", "SELECT a FROM t WHERE (a = 1) = 1", "SELECT foo(a) FROM t", 'SELECT "abs"(a) FROM t', "SELECT ABS(a, b) FROM t", "SELECT ATAN2(a) FROM t", "SELECT PI(1) FROM t", "SELECT repeat('x', 2e9) FROM t",
    "SELECT STDDEV(a) FROM t", "SELECT NULLIF(a, b) FROM t", "SELECT a FROM t /* comment */", "SELECT a FROM (WITH x AS (SELECT a FROM t) SELECT a FROM x) y", "WITH x(b) AS (SELECT a FROM t) SELECT b FROM x",
    "SELECT a FROM (SELECT a FROM t) AS x(b)", "SELECT CURRENT_DATE FROM t", "SELECT user FROM t", "SELECT a FROM t date", "SELECT a FROM t WHERE a IS TRUE",
]  # fmt: skip


@pytest.mark.parametrize("text", ADQL)
def test_adql_is_taken_by_every_profile_without_extensions(text: str) -> None:
    assert parse_adql(text).extensions == ()
    for language in ("adql", "sql"):
        assert parse(text, language).extensions == ()


@pytest.mark.parametrize(("text", "name"), EXTENDED)
def test_extensions_are_named_and_refused_when_strict(text: str, name: str) -> None:
    assert any(name in found for found in parse(text, "adql").extensions)
    with pytest.raises(QuerySyntaxError) as caught:
        parse_adql(text)
    assert caught.value.span is not None


@pytest.mark.parametrize("language", ["adql-strict", "adql", "sql"])
@pytest.mark.parametrize("text", NEVER)
def test_other_statements_are_refused(text: str, language: str) -> None:
    with pytest.raises(QueryError):
        bind(parse(text, language), CATALOG)


def test_the_catalogue_of_the_refusals_is_usable() -> None:
    for name in "tuv":
        assert bind(parse(f"SELECT a, b, x FROM {name} WHERE a = 1", "adql-strict"), CATALOG).columns


@pytest.mark.parametrize("text", STRICT_ONLY)
def test_strict_refuses(text: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse_adql(text)
    assert caught.value.span is not None


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("SELECT a FROM t; SELECT b FROM u", 1, 16, "nothing may follow"),
        ("SELECT a\nFROM t\nWHERE  repeet(a) = 1", 3, 8, "repeet"),
        ("SELECT a\nFROM '/etc/passwd'", 2, 6, "string"),
        ("SELECT a,\n FROM t", 1, 9, "comma"),
        ("SELECT 'ä', b FROM t WHERE b == 1", 1, 30, "=="),
        ("SELECT a FROM t\n  JOIN u", 2, 8, "JOIN"),
        ("SELECT TOP x a FROM t", 1, 8, "TOP"),
        ("SELECT repeat('x', 2000000000) FROM t", 1, 8, "repeat"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, word: str) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse_adql(text)
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column) == (line, column)
    assert word in str(caught.value)


def test_caps() -> None:
    parse_adql("SELECT a FROM t WHERE " + "(" * 99 + "a = 1" + ")" * 99)
    for text in (
        "SELECT a FROM t WHERE " + "(" * 101 + "a = 1" + ")" * 101, "SELECT " + "(" * 100_000, "SELECT a FROM t WHERE " + "NOT " * 5000 + "a = 1",
        "SELECT " + "- " * 5000 + "1 FROM t", "SELECT a FROM t WHERE b IN (" + ", ".join(["1"] * 40_000) + ")", "SELECT '" + "x" * 300_000 + "' FROM t",
        "SELECT " + " + ".join(["a"] * 20_000) + " FROM t", " UNION ".join(["SELECT a FROM t"] * 8_000),
        "SELECT " + "CASE WHEN a = 1 THEN " * 200 + "1" + " END" * 200 + " FROM t",
    ):  # fmt: skip
        with pytest.raises(QuerySyntaxError):
            parse(text, "adql")


def test_the_recursion_limit_is_restored() -> None:
    before = sys.getrecursionlimit()
    parse_adql("SELECT a FROM t WHERE " + "(" * 90 + "a = 1" + ")" * 90)
    assert sys.getrecursionlimit() == before


def test_unknown_language() -> None:
    with pytest.raises(QuerySyntaxError, match="adql-strict"):
        parse("SELECT a FROM t", "tsql")
