"""The bound tree: errors with places and suggestions, metadata, and the invariants that planning rests on."""

from __future__ import annotations

import pytest
from sqlglot import exp

from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, FLOAT, INTEGER, POINT, VARCHAR, SqlType
from qengine.errors import QueryError, QueryTypeError, Span, UnknownNameError, UnsupportedQueryError
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.sql.world import CATALOG


def bound(text: str, language: str = "adql") -> BoundQuery:
    return bind(parse(text, language), CATALOG)


ERRORS: list[tuple[str, type[QueryError], tuple[int, int], str]] = [
    ("SELECT ids FROM star", UnknownNameError, (1, 8), "did you mean id"),
    ("SELECT id FROM demo.stars", UnknownNameError, (1, 16), "demo.Star"),
    ("SELECT id FROM stra", UnknownNameError, (1, 16), "Star"),
    ("SELECT x FROM epoch", UnknownNameError, (1, 15), "demo.Epoch or obs.Epoch"),
    ('SELECT "ID" FROM star', UnknownNameError, (1, 8), "there is no column ID"),
    ('SELECT id FROM demo."star"', UnknownNameError, (1, 16), "demo.Star"),
    ('SELECT * FROM "/etc/x.parquet"', UnknownNameError, (1, 15), "/etc/x.parquet"),
    ("SELECT t.id FROM star s", UnknownNameError, (1, 8), "no table t"),
    ("SELECT star.id FROM star s", UnknownNameError, (1, 8), "no table star"),
    ("SELECT s.idd FROM star s", UnknownNameError, (1, 8), "s has no column idd"),
    ("SELECT id FROM star a, star b", UnknownNameError, (1, 8), "a.id or b.id"),
    ("SELECT a.id FROM star a JOIN demo.epoch a ON 1 = 1", UnknownNameError, (1, 18), "twice"),
    ("SELECT x.* FROM star", UnknownNameError, (1, 8), "no table x"),
    ("SELECT id FROM star WHERE\n  repeat(name, 2000000000) = 'x'", UnknownNameError, (2, 3), "no function repeat"),
    ("SELECT sqr(id) FROM star", UnknownNameError, (1, 8), "POWER(x, 2)"),
    ('SELECT "abs"(id) FROM star', UnknownNameError, (1, 8), "abs"),
    ("SELECT ABS(id, 2) FROM star", QueryTypeError, (1, 8), "takes 1 arguments"),
    ("SELECT id + name FROM star", QueryTypeError, (1, 8), "BIGINT and VARCHAR"),
    ("SELECT SQRT(name) FROM star", QueryTypeError, (1, 13), "number"),
    ("SELECT LOWER(id) FROM star", QueryTypeError, (1, 14), "text"),
    ("SELECT id || name FROM star", QueryTypeError, (1, 8), "joins texts"),
    ("SELECT id FROM star WHERE name = 5", QueryTypeError, (1, 27), "cannot be compared"),
    ("SELECT id FROM star WHERE name IN (5)", QueryTypeError, (1, 36), "cannot be compared"),
    ("SELECT id FROM star WHERE seen > 'yesterday'", QueryTypeError, (1, 34), "not a time"),
    ("SELECT id FROM star WHERE flag", QueryTypeError, (1, 27), "compare it with 1 or 0"),
    ("SELECT id FROM star WHERE n", QueryTypeError, (1, 27), "condition"),
    ("SELECT id FROM star WHERE CONTAINS(POINT(ra, dec), CIRCLE(1, 2, 3))", QueryTypeError, (1, 27), "compare it"),
    ("SELECT id FROM star WHERE COUNT(*) > 1", QueryTypeError, (1, 27), "HAVING"),
    ("SELECT id, COUNT(*) FROM star", QueryTypeError, (1, 8), "neither grouped"),
    ("SELECT n FROM star GROUP BY n HAVING mag > 1", QueryTypeError, (1, 38), "neither grouped"),
    ("SELECT n FROM star GROUP BY n ORDER BY id", QueryTypeError, (1, 40), "neither grouped"),
    ("SELECT SUM(COUNT(*)) FROM star", QueryTypeError, (1, 12), "inside another"),
    ("SELECT SUM(*) FROM star", QueryTypeError, (1, 8), "only COUNT"),
    ("SELECT id FROM star ORDER BY 2", QueryTypeError, (1, 30), "no column 2"),
    ("SELECT DISTINCT id FROM star ORDER BY n", QueryTypeError, (1, 39), "DISTINCT"),
    ("SELECT id FROM star WHERE id IN (SELECT id, night FROM demo.epoch)", QueryTypeError, (1, 27), "one column"),
    ("SELECT id FROM star UNION SELECT id, night FROM demo.epoch", QueryTypeError, (1, 8), "1 and 2 columns"),
    ("SELECT id FROM star UNION SELECT name FROM star", QueryTypeError, (1, 8), "VARCHAR"),
    ("SELECT ROW_NUMBER() FROM star", QueryTypeError, (1, 8), "OVER"),
    ("SELECT id FROM star WHERE ROW_NUMBER() OVER (ORDER BY id) = 1", QueryTypeError, (1, 27), "QUALIFY"),
    ("SELECT CAST(id AS FLOAT) FROM star", QueryTypeError, (1, 13), "REAL"),
    ("SELECT CAST(id AS BLOB) FROM star", QueryTypeError, (1, 13), "no type BLOB"),
    ("SELECT CAST('1 x' AS POINT) FROM star", QueryTypeError, (1, 13), "numbers"),
    ("SELECT ROUND(ra, 9223372036854775807) FROM star", QueryTypeError, (1, 18), "at most 2147483647"),
    ("SELECT POINT(0, 91) FROM star", QueryTypeError, (1, 8), "beyond the poles"),
    ("SELECT CIRCLE(0, 0, -1) FROM star", QueryTypeError, (1, 8), "negative"),
    ("SELECT POLYGON(0, 0, 1, 1) FROM star", QueryTypeError, (1, 8), "three"),
    ("SELECT POINT('GALACTIC', 1, 2) FROM star", UnsupportedQueryError, (1, 8), "ICRS"),
    ("SELECT POLYGON(0, 0, 120, 0, 240, 0) FROM star", QueryError, (1, 8), "hemisphere"),
    ("SELECT INTERSECTS(CIRCLE(0, 0, 1), MOC('0/1')) FROM star", UnsupportedQueryError, (1, 8), "INTERSECTS"),
    ("SELECT IN_UNIT(ra, 'Jy') FROM star", QueryTypeError, (1, 8), "deg cannot be converted to Jy"),
    ("SELECT COUNT(*) FROM star NATURAL JOIN obs.field", QueryTypeError, (1, 40), "common column"),
    ("SELECT id FROM star s WHERE EXISTS (SELECT SUM(s.id) FROM demo.epoch)", UnsupportedQueryError, (1, 44), "outer"),
    ("SELECT MIN(region) FROM obs.field", QueryTypeError, (1, 12), "geometry"),
    ("SELECT region FROM obs.field ORDER BY region + 1", QueryTypeError, (1, 39), "numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "place", "words"), ERRORS)
def test_errors_name_place_and_remedy(text: str, kind: type[QueryError], place: tuple[int, int], words: str) -> None:
    with pytest.raises(kind) as caught:
        bound(text)
    assert words in str(caught.value)
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.column) == place


@pytest.mark.parametrize("spelling", ["repeat", "REPEAT", "Repeat", '"repeat"'])
@pytest.mark.parametrize("language", ["adql", "sql"])
@pytest.mark.parametrize(
    "call",
    ["{}('x', 2000000000)", "LENGTH({}('x', 2e9))", "CASE WHEN LENGTH({}('x', 2e9)) > 1 THEN 1 END", "SUM({}(1, 2)) OVER ()"],
)
def test_repeat_is_refused_in_any_spelling(spelling: str, language: str, call: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        bound(f"SELECT {call.format(spelling)} FROM star", language)
    assert caught.value.span is not None


@pytest.mark.parametrize("name", ["lpad", "rpad", "printf", "format", "range", "generate_series", "levenshtein", "regexp_split_to_table", "getenv", "read_text",
                                  "list_transform", "qe_in_circle", "qe_distance", "current_setting", "query", "query_table", "pg_sleep"])  # fmt: skip
def test_functions_that_are_not_listed_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError):
        bound(f"SELECT {name}('a', 1) FROM star", "sql")


def test_columns_carry_metadata() -> None:
    found = bound(
        "SELECT id, s.ra AS x, ra + dec, ra * 2, mag - mag, MIN(ra) OVER () AS m, DISTANCE(ra, dec, 1, 2), COUNT(*) OVER () FROM star s"
    ).columns
    assert (found[0].ucd, found[0].description, found[0].type) == ("meta.id;meta.main", "identifier", BIGINT)
    assert [c.unit for c in found] == ["", "deg", "deg", "deg", "mag", "deg", "deg", ""]
    assert [c.name for c in found] == ["id", "x", "col_3", "col_4", "col_5", "m", "distance", "count"]
    assert [c.type for c in found] == [BIGINT, DOUBLE, DOUBLE, DOUBLE, FLOAT, DOUBLE, DOUBLE, BIGINT]
    aggregates = bound("SELECT AVG(ra), SUM(n), MAX(mag), COUNT(DISTINCT n), MIN(name) FROM star").columns
    assert [(c.unit, c.type) for c in aggregates] == [("deg", DOUBLE), ("", BIGINT), ("mag", FLOAT), ("", BIGINT), ("", VARCHAR)]
    assert bound("SELECT POINT(ra, dec) AS p FROM star").columns[0].type == POINT


def test_tables_and_warnings() -> None:
    query = bound("SELECT CASE WHEN id = 1 THEN 1 END AS c FROM star WHERE id IN (SELECT id FROM demo.epoch) LIMIT 3")
    assert query.tables == (("demo", "Star"), ("demo", "Epoch"))
    assert query.warnings == ("not ADQL 2.1: CASE", "not ADQL 2.1: LIMIT")
    assert bound("SELECT id FROM star LIMIT 3", "sql").warnings == ()
    assert bound("SELECT TOP 3 id FROM star", "adql-strict").warnings == ()


STATEMENTS = [
    "SELECT * FROM star", "SELECT s.*, e.night FROM star s LEFT JOIN demo.epoch e USING (id) WHERE CONTAINS(POINT(s.ra, s.dec), CIRCLE(1, -2, 3)) = 1",
    "SELECT n, COUNT(*) AS c, SUM(n) FROM star GROUP BY n HAVING COUNT(*) > 1 ORDER BY c DESC OFFSET 1",
    "WITH s AS (SELECT id FROM star) SELECT s.id FROM s, (SELECT s.id FROM s) t WHERE s.id = t.id AND EXISTS (SELECT 1 FROM s WHERE s.id = t.id)",
    "SELECT id FROM star UNION SELECT id FROM demo.epoch ORDER BY id LIMIT 2", "SELECT a.id FROM star a, star b LEFT JOIN (star c JOIN demo.epoch d USING (id)) ON b.id = c.id",
    "SELECT CASE WHEN flag = 1 THEN mag ELSE n END, MOD(n, 3), -n, CAST(n AS DOUBLE PRECISION), COALESCE(n, 1.5), n BETWEEN 1 AND 2, name LIKE 'a' FROM star",
]  # fmt: skip


@pytest.mark.parametrize("text", STATEMENTS)
def test_invariants(text: str) -> None:
    tree = bound(text).tree
    copy = tree.copy()
    assert copy == tree
    assert render(copy) == render(tree)
    aliases = [node.alias for node in tree.find_all(exp.Table, exp.Subquery) if isinstance(node.parent, (exp.From, exp.Join))]
    assert all(aliases)
    assert len({alias.lower() for alias in aliases}) == len(aliases)
    for table in tree.find_all(exp.Table):
        assert all(part.args.get("quoted") for part in table.find_all(exp.Identifier))
    for column in copy.find_all(exp.Column):
        assert column.table in aliases
        assert column.this.args["quoted"]
        assert isinstance(column.meta["sql_type"], SqlType)
    for select in tree.find_all(exp.Select):
        assert all(isinstance(item, exp.Alias) and isinstance(item.meta["sql_type"], SqlType) for item in select.expressions)
        names = [item.alias.lower() for item in select.expressions]
        assert len(set(names)) == len(names)
    for join in tree.find_all(exp.Join):
        assert join.kind == "CROSS" or join.args.get("on") is not None
        assert not join.args.get("using")
    for operation in tree.find_all(exp.SetOperation):
        assert not any(operation.args.get(key) for key in ("order", "limit", "offset"))
    for term in tree.find_all(exp.Ordered):
        assert not isinstance(term.this, exp.Literal)
        assert term.args["nulls_first"] is False
    assert not list(tree.find_all(exp.Star)) or all(isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star))


def test_geometry_is_canonical() -> None:
    for text in ("CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 370, -1.2, 3./2)) = 1", "1 = CONTAINS(POINT(ra, dec), CIRCLE(POINT(10, -1.2), 1.5))",
                 "INTERSECTS(CIRCLE(10, -1.2, 1.5), POINT(ra, dec)) <> 0"):  # fmt: skip
        node = bound(f"SELECT id FROM star WHERE {text}").tree.args["where"].this
        assert isinstance(node, exp.Anonymous)
        assert node.this == "qe_in_circle"
        assert [render(part) for part in node.expressions] == ['"Star"."ra"', '"Star"."dec"', "10.0e0", "-1.2e0", "1.5e0"]
        assert node.meta["sql_type"] == BOOLEAN
        assert isinstance(node.expressions[3], exp.Neg)
        assert isinstance(node.expressions[3].this, exp.Literal)
    node = bound("SELECT id FROM star WHERE CONTAINS(POINT(ra, dec), POLYGON(1, 2, 3, 4, 5, 2)) = 0").tree.args["where"].this
    assert isinstance(node, exp.Not)
    assert node.this.this == "qe_in_polygon"
    assert render(node.this.expressions[2]) == "[1.0e0, 2.0e0, 3.0e0, 4.0e0, 5.0e0, 2.0e0]"
    node = bound("SELECT id FROM star WHERE DISTANCE(POINT(ra, dec), POINT(1, 2)) < 2.0/3600").tree.args["where"].this
    assert render(node) == f'qe_distance("Star"."ra", "Star"."dec", 1.0e0, 2.0e0) < {2 / 3600!r}' + (
        "e0" if "e" not in repr(2 / 3600) else ""
    )


def test_aggregates_are_marked_but_windows_are_not() -> None:
    tree = bound("SELECT SUM(n), COUNT(*), MEDIAN(n) FROM star HAVING MAX(n) > 1").tree
    marked = [node for node in tree.walk() if node.meta.get("aggregate")]
    assert {type(node) for node in marked} == {exp.Sum, exp.Count, exp.Anonymous, exp.Max}
    windowed = bound("SELECT SUM(n) OVER (), COUNT(*) OVER (PARTITION BY n) FROM star").tree
    assert not any(node.meta.get("aggregate") for node in windowed.walk())
    total = tree.expressions[0].this
    assert isinstance(total, exp.Cast)
    assert total.meta["sql_type"] == BIGINT


def test_spans_lie_in_the_text() -> None:
    text = "SELECT id,\n  mag FROM star\nWHERE mag < 5"
    tree = bound(text).tree
    column = next(c for c in tree.args["where"].find_all(exp.Column))
    assert column.meta["span"] == Span(3, 7, 33, 36)
    comparison = tree.args["where"].this
    assert text[comparison.meta["span"].start : comparison.meta["span"].end] == "mag < 5"


def test_constants_are_folded() -> None:
    tree = bound("SELECT 2*3+1, 7/2, -7/2, 1.5/2, 10 - -2 FROM star").tree
    assert [render(item.this) for item in tree.expressions] == ["7", "3", "-3", "0.75e0", "12"]
    assert [item.meta["sql_type"] for item in tree.expressions] == [INTEGER, INTEGER, INTEGER, DOUBLE, INTEGER]
