"""Parts are left out only where no row of theirs fulfils the term, whatever lies in them: DuckDB is asked row by row."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.catalog.model import NO_PARTS, Catalog, Column, Parts, Table, TableKind, TableSnapshot
from qengine.catalog.types import BIGINT, BOOLEAN, DATE, DOUBLE, FLOAT, INTEGER, TIMESTAMP, VARCHAR, SqlType, to_arrow
from qengine.plan.value_terms import test_of as read_test
from qengine.plan.values import may_hold
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from qengine.storage.statistics import part_record, to_parts

TYPES: dict[str, SqlType] = {
    "i": INTEGER, "big": BIGINT, "d": DOUBLE, "f": FLOAT, "s": VARCHAR, "t": TIMESTAMP, "day": DATE, "b": BOOLEAN,
}  # fmt: skip
TABLE = Table(
    schema="x", name="T", kind=TableKind.REPLICATED, columns=tuple(Column(name=name, type=kind) for name, kind in TYPES.items())
)
CATALOG = Catalog((TableSnapshot(table=TABLE, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS),))

LONG = "m" * 140
VALUES: dict[str, Sequence[Any]] = {
    "i": [-2, -1, 0, 1, 2, 3, 16_777_217],
    "big": [-1, 0, 2, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)],
    "d": [-math.inf, -2.5, -0.0, 0.0, 5e-324, 0.1, 1.0, 2.0, float(2**53), math.inf],
    "f": [-math.inf, -2.5, -0.0, 0.0, float(np.float32(0.1)), 0.5, 2.0, 16_777_216.0, math.inf],
    "s": ["", "a", "ab", "abc", "b", "é", "\U0010ffff", LONG, LONG + "a"],
    "t": [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, 0, 0, 0, 1)],
    "day": [dt.date(1969, 12, 31), dt.date(2020, 1, 1), dt.date(2020, 1, 2)],
    "b": [False, True],
}
CONSTANTS: dict[str, Sequence[str]] = {
    "i": ["-1", "0", "1", "2", "0.5", "2.0", "16777217", "3000000000"],
    "big": ["0", "1", "2", "9007199254740992", "9007199254740993", "9007199254740992.0", "9223372036854775807", "9e18"],
    "d": ["-2.5", "0", "0.0", "0.1", "1", "2", "9007199254740993", "1e300"],
    "f": ["-2.5", "0", "0.0", "0.1", "0.5", "2", "16777217", "1e300"],
    "s": ["''", "'a'", "'ab'", "'abc'", "'b'", "'é'", f"'{LONG}'", f"'{LONG}a'", f"'{LONG}b'"],
    "t": ["'1969-12-31T23:59:59.999999'", "'2020-01-01T00:00:00'", "'2020-01-01'", "'2020-01-01T00:00:00.000001'"],
    "day": ["'1969-12-31'", "'2020-01-01'", "'2020-01-01T00:00:00.5'", "'2020-01-02'"],
    "b": ["0", "1", "0.5", "2"],
}
PATTERNS = ["'a%'", "'ab%'", "'a_'", "'%b'", "'abc'", f"'{LONG}%'", "'%'", "''", "'é%'"]
OPERATORS = ["=", "<>", "<", "<=", ">", ">="]

names = st.sampled_from(list(TYPES))


@st.composite
def leaves(draw: st.DrawFn) -> str:
    name = draw(names)
    constant = st.sampled_from(CONSTANTS[name])
    match draw(st.integers(0, 6)):
        case 0 | 1:
            return f"{name} {draw(st.sampled_from(OPERATORS))} {draw(constant)}"
        case 2:
            return f"{draw(constant)} {draw(st.sampled_from(OPERATORS))} {name}"
        case 3:
            return f"{name} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {draw(constant)} AND {draw(constant)}"
        case 4:
            listed = ", ".join(draw(st.lists(constant, min_size=1, max_size=4)))
            return f"{name} {draw(st.sampled_from(['', 'NOT ']))}IN ({listed})"
        case 5:
            return f"{name} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
        case _:
            return f"s {draw(st.sampled_from(['', 'NOT ']))}LIKE {draw(st.sampled_from(PATTERNS))}"


TERMS = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} AND {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} OR {pair[1]})"),
        inner.map(lambda one: f"NOT ({one})"),
    ),
    max_leaves=4,
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Rows of one part: a few neighbouring values of each column, so that bounds are tight."""
    count = draw(st.integers(0, 3))
    found = {}
    for name, values in VALUES.items():
        first = draw(st.integers(0, len(values) - 1))
        near = st.sampled_from([None, *values[first : first + 2]])
        found[name] = draw(st.lists(near, min_size=count, max_size=count))
    return found


def write(folder: Path, tables: Sequence[dict[str, list[Any]]], *, group_rows: int = 2) -> tuple[Parts, list[Path]]:
    records, paths = [], []
    for number, columns in enumerate(tables):
        path = folder / f"{number}.parquet"
        arrays = {name: pa.array(values, to_arrow(TYPES[name])) for name, values in columns.items()}
        pq.write_table(pa.table(arrays), path, row_group_size=group_rows)
        records.append(part_record(path, start=number, stop=number + 1))
        paths.append(path)
    return to_parts(records), paths


def check(folder: Path, tables: Sequence[dict[str, list[Any]]], where: str) -> list[bool]:
    parts, paths = write(folder, tables)
    tree = bind(parse(f"SELECT i FROM x.T WHERE {where}", "adql"), CATALOG).tree
    test = read_test(tree.args["where"].this, "T", TABLE)
    keep = [True] * len(parts) if test is None else may_hold(test, parts).tolist()
    with duckdb.connect() as db:
        for path, is_kept in zip(paths, keep, strict=True):
            source = f"(SELECT * FROM read_parquet('{path.as_posix()}')) AS \"T\""
            text = render(tree).replace('"x"."T" AS "T"', source)
            found = db.execute(text).fetchall()
            assert is_kept or not found, f"{where}: {found} in a part that was left out; {test}"
    return keep


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(rows(), min_size=1, max_size=3), where=TERMS)
def test_no_row_is_lost(tmp_path: Path, tables: list[dict[str, list[Any]]], where: str) -> None:
    check(tmp_path, tables, where)


def one(**columns: list[Any]) -> dict[str, list[Any]]:
    count = len(next(iter(columns.values())))
    return {name: columns.get(name, [None] * count) for name in TYPES}


@pytest.mark.parametrize(
    ("where", "tables", "keep"),
    [
        ("i > 2", [one(i=[1, 2]), one(i=[2, 3])], [False, True]),
        ("NOT i <= 2", [one(i=[1, 2]), one(i=[2, 3])], [False, True]),
        ("i > 1.5", [one(i=[0, 1]), one(i=[2])], [False, True]),
        ("i <> 2", [one(i=[2, 2]), one(i=[2, 3]), one(i=[None])], [False, True, False]),
        ("i NOT IN (1, 2, 3)", [one(i=[2, 2]), one(i=[2, 3]), one(i=[4])], [False, True, True]),
        ("i IN (1, 5, 9)", [one(i=[2, 4]), one(i=[4, 6]), one(i=[9]), one(i=[10])], [False, True, True, False]),
        ("i NOT BETWEEN 2 AND 4", [one(i=[2, 4]), one(i=[4, 5])], [False, True]),
        ("i IS NULL", [one(i=[1]), one(i=[1, None])], [False, True]),
        ("i IS NOT NULL", [one(i=[1, None]), one(i=[None])], [True, False]),
        ("i < 1 OR d > 5", [one(i=[1], d=[5.0]), one(i=[1], d=[6.0]), one(i=[0], d=[1.0])], [False, True, True]),
        ("NOT (i < 1 OR d > 5)", [one(i=[0], d=[1.0]), one(i=[1], d=[5.0])], [False, True]),
        ("i < 1 OR i + 1 = 3", [one(i=[5])], [True]),
        ("big = 9007199254740993", [one(big=[2**53]), one(big=[2**53 + 1])], [False, True]),
        ("big = 9007199254740993.0", [one(big=[2**53]), one(big=[2**53 + 2])], [True, False]),
        ("d > 0", [one(d=[-1.0, 0.0]), one(d=[5e-324])], [False, True]),
        ("f < 0.5", [one(f=[0.5, 2.0]), one(f=[0.25])], [False, True]),
        ("f = 0.1", [one(f=[0.5]), one(f=[float(np.float32(0.1))])], [False, True]),
        ("s = 'b'", [one(s=["a", "az"]), one(s=["a", "c"])], [False, True]),
        ("s < 'b'", [one(s=["b0", "c"]), one(s=["a", "c"])], [False, True]),
        ("s IN ('a', 'x')", [one(s=["b", "w"]), one(s=["w", "y"])], [False, True]),
        ("s LIKE 'ab%'", [one(s=["aa", "aaz"]), one(s=["aa", "abz"]), one(s=["b"])], [False, True, False]),
        ("s > 'n'", [one(s=[LONG]), one(s=["n", "o"])], [False, True]),
        ("t >= '2020-01-02'", [one(t=[dt.datetime(2020, 1, 1, 23)]), one(t=[dt.datetime(2020, 1, 2)])], [False, True]),
        ("day > '2020-01-01'", [one(day=[dt.date(2020, 1, 1)]), one(day=[dt.date(2020, 1, 2)])], [False, True]),
        ("b = 1", [one(b=[False]), one(b=[False, True])], [False, True]),
        ("NOT b = 1", [one(b=[True]), one(b=[False, True])], [False, True]),
        (f"i IN ({', '.join(map(str, range(0, 200, 2)))})", [one(i=[5, 5]), one(i=[5, 7]), one(i=[201])], [False, True, False]),
    ],
)
def test_parts_are_left_out(tmp_path: Path, where: str, tables: list[dict[str, list[Any]]], keep: list[bool]) -> None:
    assert check(tmp_path, tables, where) == keep
