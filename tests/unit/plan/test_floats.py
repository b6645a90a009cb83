"""A FLOAT compares with the narrowed constant as with the constant itself: neighbours of it, zeros, infinities, NULL."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from qengine.plan import terms
from qengine.plan.floats import narrow_floats
from qengine.plan.lift import lift_block
from qengine.plan.values import Within
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.support.imaginary import survey

CATALOG = survey(1)
LARGEST = float(np.finfo(np.float32).max)
CONSTANTS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.5, 16777217.0, 1e-46, -1e-46, 1e-40, LARGEST, -LARGEST, LARGEST * 1.0000001, 1e300]),
    st.floats(-LARGEST, LARGEST), st.floats(-1e3, 1e3), st.floats(width=32, allow_nan=False, allow_infinity=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA dp")
    return connection


def narrowed(statement: str) -> tuple[exp.Query, exp.Query]:
    tree = bind(parse(statement, "adql"), CATALOG).tree
    return tree, narrow_floats(tree, CATALOG)


@settings(max_examples=150, deadline=None)
@given(constant=CONSTANTS, other=CONSTANTS, operator=st.sampled_from(["<", "<=", ">", ">=", "=", "<>"]), is_turned=st.booleans())
def test_every_float_compares_the_same(
    database: duckdb.DuckDBPyConnection, constant: float, other: float, operator: str, is_turned: bool
) -> None:
    with np.errstate(over="ignore"):
        near = [np.float32(constant), np.float32(other)]
        values = [v for x in near for v in (np.nextafter(x, np.float32(-np.inf)), x, np.nextafter(x, np.float32(np.inf)))]
    rows = ", ".join(
        f"({i}, '{v}'::FLOAT)" for i, v in enumerate([*values, np.float32(np.inf), np.float32(-np.inf), np.float32(0)])
    )
    database.execute(
        f"CREATE OR REPLACE TABLE dp.ForcedSource AS SELECT * FROM (VALUES {rows}, (99, NULL)) t(forcedSourceId, flux)"
    )
    plain = f"{abs(constant):.60f}"
    number = plain if constant >= 0 else f"-{plain}"
    term = f"{number} {operator} flux" if is_turned else f"flux {operator} {number}"
    low, high = (f"{'-' if x < 0 else ''}{abs(x):.60f}" for x in sorted((constant, other)))
    for condition in (term, f"NOT {term}", f"flux BETWEEN {low} AND {high}", f"flux BETWEEN {low} AND 7"):
        before, after = narrowed(f"SELECT forcedSourceId FROM dp.ForcedSource WHERE {condition}")
        assert sorted(database.execute(render(after)).fetchall()) == sorted(database.execute(render(before)).fetchall())


def test_statistics_see_the_narrowed_constant() -> None:
    before, after = narrowed("SELECT forcedSourceId FROM dp.ForcedSource WHERE flux BETWEEN 400 AND 400.05")
    assert isinstance(before, exp.Select)
    assert isinstance(after, exp.Select)
    (wide,), (narrow,) = lift_block(before, CATALOG).values, lift_block(after, CATALOG).values
    assert isinstance(wide.test, Within)
    assert isinstance(narrow.test, Within)
    assert narrow.test.low == 400.0
    assert isinstance(narrow.test.high, float)
    assert narrow.test.high == float(np.float32(400.05)) <= 400.05


def test_duckdb_pushes_the_narrowed_comparison_into_the_scan(tmp_path: object) -> None:
    database = duckdb.connect()
    database.execute(f"COPY (SELECT range::FLOAT AS flux FROM range(10)) TO '{tmp_path}/f.parquet'")
    _, after = narrowed("SELECT flux FROM dp.ForcedSource WHERE flux > 0.1")
    text = render(after).replace('"dp"."ForcedSource"', f"read_parquet('{tmp_path}/f.parquet')")
    plan = database.execute(f"EXPLAIN {text}").fetchall()[0][1]
    assert "Filters:" in plan
    assert "CAST" not in plan


def test_casts_to_float_are_numbers_only_if_exact() -> None:
    for value, expected in ((0.5, 0.5), (0.1, None), (1e300, None), (3, 3.0)):
        assert terms.number(exp.Cast(this=exp.Literal.number(value), to=terms.named_type("FLOAT"))) == expected
