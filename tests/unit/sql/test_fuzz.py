"""Whatever text arrives, nothing but a `QEngineError` comes out; and what binds, DuckDB takes."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.errors import QEngineError
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.sql.world import CATALOG, World

WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "HAVING",
    "TOP",
    "LIMIT",
    "OFFSET",
    "DISTINCT",
    "ALL",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "BETWEEN",
    "LIKE",
    "EXISTS",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "NATURAL",
    "CROSS",
    "ON",
    "USING",
    "WITH",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "OVER",
    "PARTITION",
    "FILTER",
    "QUALIFY",
    "ASC",
    "DESC",
    "NULLS",
    "FIRST",
    "CAST",
    "COUNT",
    "SUM",
    "ABS",
    "LOG",
    "CONTAINS",
    "POINT",
    "CIRCLE",
    "POLYGON",
    "DISTANCE",
    "AREA",
    "ROW_NUMBER",
    "COALESCE",
    "TRUE",
    "star",
    "demo.star",
    "s",
    "demo",
    "epoch",
    "id",
    "ra",
    "dec",
    "mag",
    "name",
    "flag",
    "seen",
    "n",
    "e",
    "(",
    ")",
    "(",
    ")",
    ",",
    ",",
    ".",
    ";",
    "*",
    "+",
    "-",
    "/",
    "%",
    "=",
    "<>",
    "<",
    ">",
    "<=",
    "||",
    "'",
    '"',
    "1",
    "2",
    "0",
    "1.5",
    "-3",
    "'x'",
    "'ICRS'",
    '"id"',
    "--",
    "::",
    "?",
    "@",
    "[",
    "]",
    "{",
    "}",
    "INTEGER",
    "VARCHAR",
    "TIMESTAMP",
    "VALUES",
    "LATERAL",
]

EXPRESSIONS = st.recursive(
    st.sampled_from(["id", "ra", "mag", "n", "small", "flag", "name", "seen", "1", "2.5", "-3", "'x'", "NULL", "s.dec", "POINT(ra, dec)", "COUNT(*)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "||", "=", "<", "AND", "OR", "LIKE", "%"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["ABS", "FLOOR", "SUM", "MAX", "COUNT", "LOWER", "COORD1", "AREA", "AVG", "SIGN", "LENGTH"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(st.sampled_from(["COALESCE", "NULLIF", "GREATEST", "MOD", "POWER", "ROUND", "CONTAINS"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"CASE WHEN {t[0]} THEN {t[1]} ELSE {t[2]} END"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} BETWEEN {t[1]} AND {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]} IN ({t[1]}, 5))"),
        st.tuples(inner, st.sampled_from(["DOUBLE PRECISION", "INTEGER", "VARCHAR", "TIMESTAMP", "BOOLEAN"])).map(lambda t: f"CAST({t[0]} AS {t[1]})"),
        inner.map(lambda x: f"(NOT {x})"), inner.map(lambda x: f"-({x})"), inner.map(lambda x: f"({x} IS NULL)"), inner.map(lambda x: f"SUM({x}) OVER (PARTITION BY n)"),
        inner.map(lambda x: f"(SELECT MAX(e.flux) FROM demo.epoch e WHERE e.id = {x})"),
    ),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def try_all(text: str) -> None:
    for language in ("adql-strict", "adql", "sql"):
        try:
            render(bind(parse(text, language), CATALOG).tree)
        except QEngineError:
            continue


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_random_text(text: str) -> None:
    try_all(text)
    try_all("SELECT " + text)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_random_words(words: list[str]) -> None:
    try_all("SELECT " + " ".join(words))
    try_all("SELECT id FROM star s WHERE " + " ".join(words))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    EXPRESSIONS,
    EXPRESSIONS,
    st.sampled_from(["", " GROUP BY n", " ORDER BY 1 DESC", " GROUP BY n ORDER BY 1"]),
    st.sampled_from(["adql", "sql"]),
)
def test_what_binds_is_taken_by_duckdb_with_the_bound_types(
    world: World, value: str, condition: str, tail: str, language: str
) -> None:
    for text in (
        f"SELECT {value} AS v FROM star s{tail}",
        f"SELECT id AS v FROM star s WHERE {condition}",
        f"SELECT n AS v FROM star s WHERE {condition} = {value}",
    ):
        try:
            query = bind(parse(text, language), CATALOG)
        except QEngineError:
            continue
        sql = render(query.tree)
        try:
            described = world.db.execute(f"DESCRIBE {sql}").fetchall()
        except (duckdb.OutOfRangeException, duckdb.ConversionException, duckdb.InvalidInputException):
            continue  # a constant that cannot be computed: a failure of the data, not of the tree
        assert [(row[0], row[1]) for row in described] == [(c.name, c.type.name) for c in query.columns], sql
