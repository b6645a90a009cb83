"""From a `TaskInput` to the SQL text of its relation.

A task's SQL reads named relations. Each becomes a common table expression over Parquet files:

    "t0" AS NOT MATERIALIZED (SELECT "a", "b" FROM read_parquet(['..'], ..) WHERE <line in ranges>)

NOT MATERIALIZED makes DuckDB treat it as a view, so filters and columns of the task's SQL are pushed into the scan, and the
bounds on the line (which is what files are sorted by) skip row groups by their statistics.

*Ranges.* One range is two comparisons; many are a CASE tree that halves the line at each step, because DuckDB evaluates every
term of an OR on every row, but only the taken branch of a CASE (1 M rows, CPU ms: 16 ranges 35 as OR and 16 as CASE, 64
ranges 133 and 27, 256 ranges 489 and 55). The outermost bounds stand in front of it, for the statistics. Single cells are an IN
list, by which DuckDB skips row groups too.

*Margins.* Rows of margin parts count where they are outside the ranges; those inside come from the home parts. Tiles that meet
share margin rows, so several margin files may hold the same row. Each cell is taken from one file: the first by name that
has it. All rows of one cell near a tile are in that tile's margin, so nothing is lost.

*Empty inputs* are relations without rows that still have columns, from the type names that the task gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qengine.errors import BugError
from qengine.execution.duck import quote_name, quote_text
from qengine.plan.physical import PartRef, Task, TaskInput

_FILE = "_qe_file"
_LINE = "_qe_line"
_ROW = "_qe_row"
_OR_RANGES = 3

Resolve = Callable[[PartRef], str]
"""Returns the local path of a part."""


def task_sql(task: Task, resolve: Resolve) -> str:
    """Return the one statement that computes the task: its inputs as common table expressions, and its SQL as a sub-query."""
    inputs = ", ".join(f"{quote_name(i.name)} AS NOT MATERIALIZED ({input_sql(i, resolve)})" for i in task.inputs)
    return f"{f'WITH {inputs} ' if inputs else ''}SELECT * FROM ({task.sql})"


def input_sql(task_input: TaskInput, resolve: Resolve) -> str:
    """Return the SELECT of one input's rows, columns in the declared order."""
    if (task_input.ranges or task_input.margin_parts) and not task_input.line_column:
        raise BugError(f"input {task_input.name} has ranges, but no column that they are about")
    if task_input.margin_parts and not task_input.ranges:
        raise BugError(f"input {task_input.name} has margin parts, but no ranges that say which of their rows are at home")
    branches = []
    if task_input.parts:
        branches.append(_home(task_input, [resolve(part) for part in task_input.parts]))
    if task_input.margin_parts:
        branches.append(_margin(task_input, [resolve(part) for part in task_input.margin_parts]))
    return " UNION ALL ".join(branches) or _empty(task_input)


def _home(task_input: TaskInput, paths: Sequence[str]) -> str:
    where = f" WHERE {inside(quote_name(task_input.line_column), task_input.ranges)}" if task_input.ranges else ""
    return f"SELECT {_columns(task_input)} FROM {_files(paths)}{where}"


def _margin(task_input: TaskInput, paths: Sequence[str]) -> str:
    line = quote_name(task_input.line_column)
    outside = f"NOT ({inside(line, task_input.ranges)})"
    if len(paths) == 1:
        return f"SELECT {_columns(task_input)} FROM {_files(paths)} WHERE {outside}"
    names = ", ".join(quote_name(name) for name in task_input.columns) or quote_name(_ROW)
    return (
        f"SELECT {names} FROM (SELECT {_columns(task_input)}, {line} AS {_LINE}, {_FILE} "
        f"FROM {_files(paths, extra=f', filename={quote_text(_FILE)}')} WHERE {outside}) "
        f"QUALIFY {_FILE} = min({_FILE}) OVER (PARTITION BY {_LINE})"
    )


def _empty(task_input: TaskInput) -> str:
    if len(task_input.types) != len(task_input.columns):
        raise BugError(f"input {task_input.name} has no parts and no column types", hint="fill TaskInput.types")
    typed = zip(task_input.columns, task_input.types, strict=True)
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {quote_name(name)}" for name, kind in typed)
    return f"SELECT {columns or f'1 AS {_ROW}'} WHERE false"


def _columns(task_input: TaskInput) -> str:
    # A statement that only counts reads no column: a constant lets DuckDB count from the footers.
    nan = frozenset(task_input.nan_columns)
    return ", ".join(_column(name, is_nan=name in nan) for name in task_input.columns) or f"1 AS {_ROW}"


def _column(name: str, *, is_nan: bool) -> str:
    quoted = quote_name(name)
    return f"CASE WHEN isnan({quoted}) THEN NULL ELSE {quoted} END AS {quoted}" if is_nan else quoted


def _files(paths: Sequence[str], extra: str = "") -> str:
    return f"read_parquet([{', '.join(quote_text(path) for path in paths)}], hive_partitioning=false{extra})"


def inside(line: str, ranges: Sequence[tuple[int, int]]) -> str:
    """Return the condition that the expression `line` lies in one of the sorted, disjoint, half-open ranges."""
    if len(ranges) > 1 and all(stop - start == 1 for start, stop in ranges):
        return f"{line} IN ({', '.join(str(start) for start, _ in ranges)})"
    if len(ranges) <= _OR_RANGES:
        condition = " OR ".join(f"({line} >= {start:d} AND {line} < {stop:d})" for start, stop in ranges)
        return f"({condition})" if len(ranges) > 1 else condition
    return f"({line} >= {ranges[0][0]:d} AND {line} < {ranges[-1][1]:d} AND {_tree(line, ranges)})"


def _tree(line: str, ranges: Sequence[tuple[int, int]]) -> str:
    if len(ranges) == 1:
        return f"({line} >= {ranges[0][0]:d} AND {line} < {ranges[0][1]:d})"
    half = len(ranges) // 2
    return f"CASE WHEN {line} < {ranges[half][0]:d} THEN {_tree(line, ranges[:half])} ELSE {_tree(line, ranges[half:])} END"
