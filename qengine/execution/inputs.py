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

*Older parts.* A table's columns may have changed since a part was written (`catalog.evolution`): what the part's footer does not
have is NULL of the declared type, what it has in a narrower type is cast. Parts that are read alike stand in one scan. That is so
for published parts only, whose digest says that they are as they were written; of other files a missing column is an error.

*Empty inputs* are relations without rows that still have columns, from the type names that the task gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from qengine.catalog.schema import fits
from qengine.catalog.types import SqlType, from_arrow
from qengine.errors import BugError, SchemaError
from qengine.execution.duck import quote_name, quote_text
from qengine.plan.physical import PartRef, Task, TaskInput

_FILE = "_qe_file"
_LINE = "_qe_line"
_ROW = "_qe_row"
_OR_RANGES = 3

Resolve = Callable[[PartRef], str]
"""Returns the local path of a part."""


Schemas = Mapping[str, pa.Schema]
"""URI of a part -> the columns that its footer has. A part that is not in it has the declared ones."""

_Shape = tuple[str, ...]
"""How each column is read from a file: "" as it is, else the SQL that stands for it."""


def task_sql(task: Task, resolve: Resolve, schemas: Schemas | None = None) -> str:
    """Return the one statement that computes the task: its inputs as common table expressions, and its SQL as a sub-query."""
    inputs = ", ".join(f"{quote_name(i.name)} AS NOT MATERIALIZED ({input_sql(i, resolve, schemas)})" for i in task.inputs)
    return f"{f'WITH {inputs} ' if inputs else ''}SELECT * FROM ({task.sql})"


def input_sql(task_input: TaskInput, resolve: Resolve, schemas: Schemas | None = None) -> str:
    """Return the SELECT of one input's rows, columns in the declared order."""
    if (task_input.ranges or task_input.margin_parts) and not task_input.line_column:
        raise BugError(f"input {task_input.name} has ranges, but no column that they are about")
    if task_input.margin_parts and not task_input.ranges:
        raise BugError(f"input {task_input.name} has margin parts, but no ranges that say which of their rows are at home")
    branches = []
    for shape, parts in _alike(task_input, task_input.parts, schemas or {}):
        branches.append(_home(task_input, [resolve(part) for part in parts], shape))
    if task_input.margin_parts:
        branches.append(_margin(task_input, resolve, schemas or {}))
    return " UNION ALL ".join(branches) or _empty(task_input)


def _home(task_input: TaskInput, paths: Sequence[str], shape: _Shape) -> str:
    where = f" WHERE {inside(quote_name(task_input.line_column), task_input.ranges)}" if task_input.ranges else ""
    return f"SELECT {_columns(task_input, shape)} FROM {_files(paths)}{where}"


def _margin(task_input: TaskInput, resolve: Resolve, schemas: Schemas) -> str:
    line = quote_name(task_input.line_column)
    outside = f"NOT ({inside(line, task_input.ranges)})"
    alike = [(shape, [resolve(part) for part in parts]) for shape, parts in _alike(task_input, task_input.margin_parts, schemas)]
    if len(task_input.margin_parts) == 1:
        ((shape, paths),) = alike
        return f"SELECT {_columns(task_input, shape)} FROM {_files(paths)} WHERE {outside}"
    names = ", ".join(quote_name(name) for name in task_input.columns) or quote_name(_ROW)
    rows = " UNION ALL ".join(
        f"SELECT {_columns(task_input, shape)}, {line} AS {_LINE}, {_FILE} "
        f"FROM {_files(paths, extra=f', filename={quote_text(_FILE)}')} WHERE {outside}"
        for shape, paths in alike
    )
    return f"SELECT {names} FROM ({rows}) QUALIFY {_FILE} = min({_FILE}) OVER (PARTITION BY {_LINE})"


def _alike(task_input: TaskInput, parts: Sequence[PartRef], schemas: Schemas) -> list[tuple[_Shape, list[PartRef]]]:
    """Return the parts that are read alike together, in order."""
    found: dict[_Shape, list[PartRef]] = {}
    shapes: dict[int, _Shape] = {}
    for part in parts:
        schema = schemas.get(part.uri) if part.digest else None
        if schema is None or len(task_input.types) != len(task_input.columns):
            shape: _Shape = ()
        elif (shape_of := shapes.get(id(schema))) is not None:
            shape = shape_of
        else:
            # Equal schemas are one object (`execution.verify`), so that this is done once for many parts.
            shape = shapes[id(schema)] = _shape(task_input, schema)
        found.setdefault(shape, []).append(part)
    return list(found.items())


def _shape(task_input: TaskInput, schema: pa.Schema) -> _Shape:
    shape = []
    for name, kind in zip(task_input.columns, task_input.types, strict=True):
        place = schema.get_field_index(name)
        if place < 0:
            shape.append(f"CAST(NULL AS {kind})")
        else:
            shape.append(f"CAST({quote_name(name)} AS {kind})" if _is_narrower(schema.field(place).type, kind) else "")
    return tuple(shape) if any(shape) else ()


def _is_narrower(given: pa.DataType, declared: str) -> bool:
    try:
        kind = from_arrow(given)
    except SchemaError:
        return False
    return kind.name != declared and kind.name != "NULL" and not kind.name.endswith("[]") and fits(kind, SqlType(declared))


def _empty(task_input: TaskInput) -> str:
    if len(task_input.types) != len(task_input.columns):
        raise BugError(f"input {task_input.name} has no parts and no column types", hint="fill TaskInput.types")
    typed = zip(task_input.columns, task_input.types, strict=True)
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {quote_name(name)}" for name, kind in typed)
    return f"SELECT {columns or f'1 AS {_ROW}'} WHERE false"


def _columns(task_input: TaskInput, shape: _Shape) -> str:
    # A statement that only counts reads no column: a constant lets DuckDB count from the footers.
    nan = frozenset(task_input.nan_columns)
    given = zip(task_input.columns, shape or ("",) * len(task_input.columns), strict=True)
    return ", ".join(_column(name, value, is_nan=name in nan) for name, value in given) or f"1 AS {_ROW}"


def _column(name: str, value: str, *, is_nan: bool) -> str:
    quoted = quote_name(name)
    if is_nan:
        value = value or quoted
        return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END AS {quoted}"
    return f"{value} AS {quoted}" if value else quoted


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
