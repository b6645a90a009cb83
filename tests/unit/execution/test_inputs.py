"""Inputs against a plain numpy statement of what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.errors import BugError
from qengine.execution.inputs import input_sql, inside, task_sql
from qengine.plan.physical import Failed, PartRef, Task, TaskEvent, TaskInput
from tests.support.tasks import make_task, rows_of, write_part

Run = Callable[[Task], list[TaskEvent]]
LINE = 1000


def _rows(cells: list[int], first: int = 0) -> pa.Table:
    return pa.table({"_healpix_29": pa.array(cells, pa.int64()), "id": pa.array(range(first, first + len(cells)), pa.int64())})


def _ranges(bounds: set[int]) -> tuple[tuple[int, int], ...]:
    cuts = sorted(bounds)
    return tuple(zip(cuts[::2], cuts[1::2], strict=False))


@given(st.sets(st.integers(0, LINE), min_size=2, max_size=60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_ranges(run: Run, bounds: set[int]) -> None:
    ranges = _ranges(bounds)
    sql = f"SELECT range AS c FROM range({LINE}) WHERE {inside('range', ranges)} ORDER BY 1"
    expected = [c for c in range(LINE) if any(start <= c < stop for start, stop in ranges)]
    assert [row["c"] for row in rows_of(run(make_task(sql)))] == expected
    outside = f"SELECT count(*) AS n FROM range({LINE}) WHERE NOT ({inside('range', ranges)})"
    assert rows_of(run(make_task(outside))) == [{"n": LINE - len(expected)}]


@given(seed=st.integers(0, 2**32), bounds=st.sets(st.integers(0, LINE), min_size=2, max_size=12), tiles=st.integers(2, 5))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_margins(run: Run, store: Path, seed: int, bounds: set[int], tiles: int) -> None:
    """Home rows inside the ranges, plus each row outside that some margin file has, once."""
    rng = np.random.default_rng(seed)
    ranges = _ranges(bounds)
    cells = np.sort(rng.integers(0, LINE, 400))
    all_rows = _rows(cells.tolist())
    width = LINE // tiles
    home, margins, expected = [], [], set()
    for tile in range(tiles):
        low, high = tile * width, LINE if tile == tiles - 1 else (tile + 1) * width
        home.append(write_part(store, f"{seed}/home{tile}.parquet", all_rows.filter((cells >= low) & (cells < high))))
        near = ((cells >= low - 80) & (cells < low)) | ((cells >= high) & (cells < high + 80))
        margins.append(write_part(store, f"{seed}/margin{tile}.parquet", all_rows.filter(near)))
        expected |= set(np.flatnonzero(near).tolist())
    inside_ranges = {i for i, c in enumerate(cells) if any(a <= c < b for a, b in ranges)}
    given_input = TaskInput(name="t", parts=tuple(home), columns=("id",), ranges=ranges, margin_parts=tuple(margins))
    got = [row["id"] for row in rows_of(run(make_task('SELECT id FROM "t"', [given_input])))]
    assert sorted(got) == sorted(inside_ranges | expected)


def test_one_margin_file_and_no_home(run: Run, store: Path) -> None:
    part = write_part(store, "m.parquet", _rows([1, 5, 5, 9]))
    given_input = TaskInput(name="t", parts=(), columns=("id",), ranges=((4, 8),), margin_parts=(part,))
    assert sorted(row["id"] for row in rows_of(run(make_task("SELECT id FROM t", [given_input])))) == [0, 3]


def test_column_called_filename_is_not_ours(run: Run, store: Path) -> None:
    rows = _rows([1, 2]).append_column("filename", pa.array(["b", "a"]))
    parts = tuple(write_part(store, f"{n}.parquet", rows) for n in "ab")
    given_input = TaskInput(name="t", parts=(), columns=("filename",), ranges=((8, 9),), margin_parts=parts)
    assert sorted(row["filename"] for row in rows_of(run(make_task("SELECT filename FROM t", [given_input])))) == ["a", "b"]


def test_nan_reads_as_null(run: Run, store: Path) -> None:
    rows = pa.table({"_healpix_29": pa.array([1, 2, 3, 4], pa.int64()), "a": [1.0, float("nan"), None, float("inf")]})
    part = write_part(store, "n.parquet", rows)
    plain = TaskInput(name="t", parts=(part,), columns=("a",))
    careful = TaskInput(name="t", parts=(part,), columns=("a",), nan_columns=("a",))
    sql = "SELECT count(a) AS n, count(*) AS m FROM t WHERE a > 0.5 OR a IS NULL"
    assert rows_of(run(make_task(sql, [plain]))) == [{"n": 3, "m": 4}]
    assert rows_of(run(make_task(sql, [careful]))) == [{"n": 2, "m": 4}]


def test_empty_input_has_columns(run: Run) -> None:
    given_input = TaskInput(name="t", parts=(), columns=('a"b', "c"), types=("DOUBLE", "VARCHAR"))
    assert rows_of(run(make_task('SELECT count("a""b") AS n, max(c) AS m FROM t', [given_input]))) == [{"n": 0, "m": None}]
    nothing = TaskInput(name="t", parts=(), columns=())
    assert rows_of(run(make_task("SELECT count(*) AS n FROM t", [nothing]))) == [{"n": 0}]


def test_counting_reads_no_column(run: Run, store: Path) -> None:
    parts = tuple(write_part(store, f"{n}.parquet", _rows(list(range(100)))) for n in range(3))
    given_input = TaskInput(name="t", parts=parts, columns=())
    assert rows_of(run(make_task("SELECT count(*) AS n FROM t", [given_input]))) == [{"n": 300}]
    limited = TaskInput(name="t", parts=parts, columns=(), ranges=((10, 20),))
    assert rows_of(run(make_task("SELECT count(*) AS n FROM t", [limited]))) == [{"n": 30}]


def test_older_parts_have_other_columns(run: Run, store: Path) -> None:
    cells = {"_healpix_29": pa.array([1, 5, 9], pa.int64())}
    old = pa.table(
        {**cells, "a": pa.array([1, None, 3], pa.int32()), "f": pa.array([0.1, 0.5, None], pa.float32()), "gone": ["x", "y", "z"]}
    )
    new = pa.table({**cells, "a": pa.array([2**40, 5, 6], pa.int64()), "f": [0.1, float("nan"), 7.0], "b": ["p", "q", None]})
    parts = [write_part(store, f"{name}.parquet", rows) for name, rows in (("old", old), ("new", new), ("same", new))]
    kinds = {"columns": ("a", "b", "f"), "types": ("BIGINT", "VARCHAR", "DOUBLE"), "nan_columns": ("f",)}
    sql = "SELECT a, b, f, typeof(a) AS ta, typeof(b) AS tb FROM t"
    kind = {"ta": "BIGINT", "tb": "VARCHAR"}
    at_home = TaskInput(name="t", parts=tuple(parts[:2]), ranges=((1, 6),), margin_parts=(parts[1], parts[0], parts[2]), **kinds)
    got = sorted(rows_of(run(make_task(sql, [at_home]))), key=repr)
    narrow = float(pa.scalar(0.1, pa.float32()).as_py())
    # The margin's cell 9 is taken from one of the files: the first by name.
    assert got == sorted(
        [
            {"a": 1, "b": None, "f": narrow} | kind, {"a": None, "b": None, "f": 0.5} | kind, {"a": 2**40, "b": "p", "f": 0.1} | kind,
            {"a": 5, "b": "q", "f": None} | kind, {"a": 6, "b": None, "f": 7.0} | kind,
        ],
        key=repr,
    )  # fmt: skip
    only_old = TaskInput(name="t", parts=(parts[0],), columns=("b",), types=("VARCHAR",))
    assert rows_of(run(make_task("SELECT count(b) AS n, count(*) AS m FROM t", [only_old]))) == [{"n": 0, "m": 3}]
    assert rows_of(run(make_task("SELECT max(a) AS n FROM t WHERE a < 4", [at_home]))) == [{"n": 1}]


def test_a_column_that_a_foreign_file_lacks_is_an_error(run: Run, store: Path) -> None:
    part = replace(write_part(store, "o.parquet", _rows([1])), digest="")
    events = run(make_task("SELECT b FROM t", [TaskInput(name="t", parts=(part,), columns=("b",), types=("DOUBLE",))]))
    assert isinstance(events[-1], Failed)


def test_names_and_paths_are_quoted(run: Run, store: Path) -> None:
    rows = pa.table({'we"ird': [1], "select": [2]})
    part = write_part(store, "it's/here.parquet", rows)
    given_input = TaskInput(name='in"put', parts=(part,), columns=('we"ird', "select"))
    events = run(make_task('SELECT "we""ird" AS x, "select" AS y FROM "in""put"', [given_input]))
    assert rows_of(events) == [{"x": 1, "y": 2}]


@pytest.mark.parametrize(
    "wrong",
    [
        TaskInput(name="t", parts=(), columns=("a",)),
        TaskInput(name="t", parts=(), columns=(), margin_parts=(PartRef("", "x", 1, 1),)),
        TaskInput(name="t", parts=(PartRef("", "x", 1, 1),), columns=(), ranges=((1, 2),), line_column=""),
    ],
)
def test_contradictions_are_bugs(wrong: TaskInput) -> None:
    with pytest.raises(BugError):
        input_sql(wrong, lambda part: part.uri)


def test_statement_text() -> None:
    part = PartRef("", "a.parquet", 1, 1)
    given_input = TaskInput(name="t0", parts=(part,), columns=("a", "b"), ranges=((1, 5), (7, 9)))
    assert task_sql(make_task('SELECT a FROM "t0"', [given_input]), lambda p: "/s/" + p.uri) == (
        'WITH "t0" AS NOT MATERIALIZED (SELECT "a", "b" FROM read_parquet([\'/s/a.parquet\'], hive_partitioning=false) '
        'WHERE (("_healpix_29" >= 1 AND "_healpix_29" < 5) OR ("_healpix_29" >= 7 AND "_healpix_29" < 9))) '
        'SELECT * FROM (SELECT a FROM "t0")'
    )
