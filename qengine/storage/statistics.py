"""Parquet footers as statistics: what a part holds, and parts as the arrays of a snapshot.

`part_record` reads one footer: rows, bytes, the range of cells of every row group, and smallest value, largest value and number of
NULLs of every column whose bounds can prune. `to_parts` turns the records of a table into `Parts`.

A statistic is taken only where it is certain to bound the values; all else is "not known", and nothing is pruned by it:

* Integers up to 64 bits, floats, decimals (as floats, rounded outwards), booleans (0 and 1), timestamps and dates (as
  microseconds, rounded outwards) and text. Text compares by code points, as Parquet and DuckDB do; of more than 128 characters
  only the beginning is kept, and made larger for a maximum. Binary and nested columns have none.
* Parquet leaves NaN out of minimum and maximum, which agrees with the rule that NaN is NULL; a bound that is NaN itself says
  nothing. -0.0 and 0.0 are one value, written as 0.0. Where files may hold NaN, a float column's NULLs are not known (-1).
* A column is known in a part when every row group that has values has bounds. A column without any value has no bounds, but a
  number of NULLs equal to the rows.

Bounds are *exact* when both are equal to values of the column, so that they answer MIN and MAX. They are not where they were
rounded or cut, nor for floats and text in files of others, who may have rounded or cut them without saying so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX, NO_PARTS, ColumnStats, Int64Array, Parts, RowGroups
from qengine.errors import InputError

_MAX_TEXT = 128
_INT64 = (-(2**63), 2**63 - 1)
_EXACT_FLOAT = 2**53
_DAY_US = 86_400_000_000
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_PER_US = {"milliseconds": (1000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1000)}

Value = int | float | str
Pair = tuple[Value, Value, bool]
"""Smallest value, largest value, and whether both are values of the column."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest value of a column in one part (None: not known) and its NULLs (-1: not known). `is_exact`: both bounds,
    where they are known, are values of the column."""

    minimum: Value | None
    maximum: Value | None
    nulls: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part as its footer describes it. Row-group arrays have shape (row groups,); `has_line` says that every row group's range
    of cells is known and without NULLs (otherwise the part's own range stands in)."""

    uri: str
    digest: str
    rows: int
    bytes: int
    start: int
    stop: int
    lowest: int
    highest: int
    group_lowest: Int64Array
    group_highest: Int64Array
    group_rows: Int64Array
    group_bytes: Int64Array
    has_line: bool
    stats: Mapping[str, Bounds]


def part_record(
    path: Path,
    *,
    start: int,
    stop: int,
    uri: str = "",
    digest: str = "",
    line_column: str = HEALPIX,
    columns: Collection[str] | None = None,
    has_nan: bool = False,
) -> PartRecord:
    """Read the footer of a Parquet file.

    [start, stop) is the range that the part belongs to; `uri` and `digest` are recorded as given (`uri` defaults to the absolute
    path); `line_column` is the column of cells (empty: none), `columns` limits the statistics (None: all that can have them), and
    `has_nan` says that floats may be NaN. Raise `InputError` if the file is no Parquet file.
    """
    try:
        size = path.stat().st_size
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from error
    return record_of(
        footer, uri=uri or path.absolute().as_posix(), size=size, digest=digest, start=start, stop=stop, line_column=line_column,
        columns=columns, has_nan=has_nan,
    )  # fmt: skip


def record_of(
    footer: pq.FileMetaData,
    *,
    uri: str,
    size: int,
    digest: str,
    start: int,
    stop: int,
    line_column: str,
    columns: Collection[str] | None,
    has_nan: bool,
) -> PartRecord:
    """Return the record of a file of `size` bytes whose footer was read already; see `part_record`."""
    readers = _readers(footer)
    wanted = {
        index: reader
        for index, reader in readers.items()
        if columns is None or reader.name in columns or reader.name == line_column
    }
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    group_rows = np.array([group.num_rows for group in groups], np.int64)
    group_bytes = np.array([_compressed(group) for group in groups], np.int64)
    stats = {reader.name: _bounds(groups, index, reader, has_nan=has_nan) for index, reader in wanted.items()}
    lowest, highest = np.full(len(groups), start, np.int64), np.full(len(groups), stop - 1, np.int64)
    has_line = False
    line = next((index for index, reader in wanted.items() if reader.name == line_column), None)
    if line is not None:
        found = [_group_bounds(group, line, wanted[line]) for group in groups]
        has_line = all(bounds.minimum is not None and bounds.nulls == 0 for bounds in found)
        for number, bounds in enumerate(found):
            if bounds.minimum is not None and bounds.maximum is not None and bounds.nulls == 0:
                lowest[number], highest[number] = bounds.minimum, bounds.maximum
    if columns is not None and line_column not in columns:
        stats.pop(line_column, None)
    return PartRecord(
        uri=uri, digest=digest, rows=footer.num_rows, bytes=size, start=start, stop=stop,
        lowest=int(lowest.min()) if footer.num_rows else start, highest=int(highest.max()) if footer.num_rows else start - 1,
        group_lowest=lowest, group_highest=highest, group_rows=group_rows, group_bytes=group_bytes, has_line=has_line, stats=stats,
    )  # fmt: skip


def to_parts(records: Sequence[PartRecord]) -> Parts:
    """Return the records as arrays, sorted by start, then digest and URI."""
    if not records:
        return NO_PARTS
    ordered = sorted(records, key=lambda record: (record.start, record.digest, record.uri))
    counts = [len(record.group_rows) for record in ordered]
    names = {name: None for record in ordered for name in record.stats}
    return Parts(
        digest=pa.array([record.digest for record in ordered], pa.string()),
        uri=pa.array([record.uri for record in ordered], pa.string()),
        rows=_int64([record.rows for record in ordered]),
        bytes=_int64([record.bytes for record in ordered]),
        start=_int64([record.start for record in ordered]),
        stop=_int64([record.stop for record in ordered]),
        lowest=_int64([record.lowest for record in ordered]),
        highest=_int64([record.highest for record in ordered]),
        row_groups=RowGroups(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([record.group_lowest for record in ordered]),
            np.concatenate([record.group_highest for record in ordered]),
            np.concatenate([record.group_rows for record in ordered]),
            np.concatenate([record.group_bytes for record in ordered]),
        ),
        stats={name: stats for name in names if (stats := _column_stats([record.stats.get(name) for record in ordered]))},
    )


# -- reading footers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    """How the bounds of a top-level column are read from its statistics."""

    name: str
    read: Callable[[Any], Pair | None]
    is_float: bool = False
    is_text: bool = False


def _readers(footer: pq.FileMetaData) -> dict[int, _Reader]:
    """Return the column chunks whose bounds can be used, by their position in the footer."""
    schema = footer.schema
    top_level = {field.name: field.type for field in schema.to_arrow_schema() if not pa.types.is_nested(field.type)}
    found = {}
    for index in range(len(schema)):
        column = schema.column(index)
        kind = top_level.get(column.path)
        if kind is not None and pa.types.is_dictionary(kind):
            kind = kind.value_type
        if kind is None or column.max_repetition_level > 0:
            continue
        if pa.types.is_integer(kind):
            found[index] = _Reader(column.path, _integers)
        elif pa.types.is_float32(kind) or pa.types.is_float64(kind):
            found[index] = _Reader(column.path, _floats, is_float=True)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            found[index] = _Reader(column.path, _texts, is_text=True)
        elif pa.types.is_boolean(kind):
            found[index] = _Reader(column.path, _booleans)
        elif pa.types.is_date(kind) and column.physical_type == "INT32":
            found[index] = _Reader(column.path, _dates)
        elif pa.types.is_decimal(kind):
            found[index] = _Reader(column.path, _decimals)
        elif pa.types.is_timestamp(kind) and column.physical_type == "INT64":
            found[index] = _Reader(column.path, _times(json.loads(column.logical_type.to_json())["timeUnit"]))
    return found


def _integers(statistics: Any) -> Pair | None:
    low, high = statistics.min, statistics.max
    return (low, high, True) if _INT64[0] <= low <= high <= _INT64[1] else None


def _floats(statistics: Any) -> Pair | None:
    low, high = statistics.min, statistics.max
    if not low <= high:  # also when either is NaN
        return None
    return low + 0.0, high + 0.0, True  # + 0.0 makes -0.0 positive


def _booleans(statistics: Any) -> Pair | None:
    return int(statistics.min), int(statistics.max), True


def _decimals(statistics: Any) -> Pair | None:
    low, high = statistics.min, statistics.max
    return (math.nextafter(float(low), -math.inf), math.nextafter(float(high), math.inf), False) if low <= high else None


def _texts(statistics: Any) -> Pair | None:
    try:
        low, high = statistics.min, statistics.max
    except UnicodeDecodeError:  # a writer cut a bound within a character
        return None
    if not low <= high:
        return None
    above = high if len(high) <= _MAX_TEXT else text_above(high[:_MAX_TEXT])
    return None if above is None else (low[:_MAX_TEXT], above, max(len(low), len(high)) <= _MAX_TEXT)


def text_above(prefix: str) -> str | None:
    """Return the least text that is larger than every text with this prefix; None if there is none."""
    for place in range(len(prefix) - 1, -1, -1):
        if (code := ord(prefix[place])) < _LAST_CHARACTER:
            following = code + 1 if not _SURROGATES[0] <= code + 1 <= _SURROGATES[1] else _SURROGATES[1] + 1
            return prefix[:place] + chr(following)
    return None


def _dates(statistics: Any) -> Pair | None:
    low, high = statistics.min_raw * _DAY_US, statistics.max_raw * _DAY_US
    return (low, high, True) if _INT64[0] <= low <= high <= _INT64[1] else None


def _times(unit: str) -> Callable[[Any], Pair | None]:
    factor, divisor = _PER_US[unit]

    def read(statistics: Any) -> Pair | None:
        low, high = statistics.min_raw * factor // divisor, -(-statistics.max_raw * factor // divisor)
        return (low, high, divisor == 1) if _INT64[0] <= low <= high <= _INT64[1] else None

    return read


def _bounds(groups: Sequence[Any], index: int, reader: _Reader, *, has_nan: bool) -> Bounds:
    """Return a column's bounds over all row groups that have values in it."""
    found = [(_group_bounds(group, index, reader), group.num_rows) for group in groups]
    nulls = sum(bounds.nulls for bounds, _ in found) if all(bounds.nulls >= 0 for bounds, _ in found) else -1
    with_values = [bounds for bounds, rows in found if bounds.nulls < rows]
    low = [bounds.minimum for bounds in with_values if bounds.minimum is not None]
    high = [bounds.maximum for bounds in with_values if bounds.maximum is not None]
    if has_nan and reader.is_float:
        nulls = -1
    if not with_values or len(low) < len(with_values):
        return Bounds(None, None, nulls)
    is_ours = not (has_nan and (reader.is_float or reader.is_text))
    return Bounds(min(low), max(high), nulls, is_ours and all(bounds.is_exact for bounds in with_values))


def _group_bounds(group: Any, index: int, reader: _Reader) -> Bounds:
    statistics = group.column(index).statistics
    if statistics is None:
        return Bounds(None, None, -1)
    nulls = statistics.null_count if statistics.has_null_count else -1
    pair = reader.read(statistics) if statistics.has_min_max else None
    return Bounds(None, None, nulls) if pair is None else Bounds(pair[0], pair[1], nulls, pair[2])


def _compressed(group: Any) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))


# -- arrays -------------------------------------------------------------------------------------------------------------------


def _column_stats(bounds: Sequence[Bounds | None]) -> ColumnStats | None:
    """Return a column's bounds as arrays; None where no part knows anything, or parts disagree on what the column is."""
    values = [value for b in bounds if b is not None for value in (b.minimum, b.maximum) if value is not None]
    kinds = {type(value) for value in values}
    if str in kinds and len(kinds) > 1:
        return None
    dtype: type[Any] = np.object_ if str in kinds else np.float64 if float in kinds else np.int64
    if dtype is np.float64 and any(isinstance(value, int) and abs(value) > _EXACT_FLOAT for value in values):
        return None
    known = np.array([b is not None and b.minimum is not None for b in bounds], np.bool_)
    nulls = _int64([-1 if b is None else b.nulls for b in bounds])
    if not known.any() and (nulls < 0).all():
        return None
    filler: Value | None = None if dtype is np.object_ else 0
    minimum = [b.minimum if b is not None and b.minimum is not None else filler for b in bounds]
    maximum = [b.maximum if b is not None and b.maximum is not None else filler for b in bounds]
    exact = np.array([b is not None and b.is_exact for b in bounds], np.bool_) & known
    return ColumnStats(np.array(minimum, dtype), np.array(maximum, dtype), nulls, known, exact)


def _int64(values: Sequence[int]) -> Int64Array:
    return np.array(values, np.int64)
