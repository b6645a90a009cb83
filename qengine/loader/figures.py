"""Figures of what a load stored: a row of `qengine_meta.quality` for every table and column, and the thresholds of the definition.

Nothing is read a second time that the load has counted: rows that went in and where each of them went are in the report, NULLs and
bounds in the footers of the files that it wrote. Only mean and number of different values need the values. They are taken from a
sample of at most two million values (rows times columns), the beginnings of row groups spread evenly over the files, which is
everything where the load is small. The number of different values is then the estimate of Charikar and others, sqrt(n/r) f1 +
(d - f1): of d values seen in r of n rows, the f1 that were seen once stand for many.

A threshold that is broken fails the commit before anything is published, or is a warning that is kept with the load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.loads import Load
from qengine.catalog.model import Catalog, Column, ColumnStats, Parts, Table, TableSnapshot, Threshold
from qengine.catalog.quality import SCHEMA, write_quality
from qengine.errors import InputError
from qengine.loader.change import TableResult
from qengine.loader.request import LoadReport
from qengine.storage.objects import Store
from qengine.storage.statistics import part_record, to_parts

_SAMPLED_VALUES = 2_000_000
_SAMPLED_GROUPS = 32

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A threshold and what was found instead."""

    table: str
    threshold: Threshold
    found: float
    column: str = ""

    def __str__(self) -> str:
        where = f"{self.table}, column {self.column}" if self.column else self.table
        word = "at least" if self.threshold.measure.startswith("min_") else "at most"
        name = self.threshold.measure.split("_", 1)[1].replace("_", " ")
        return f"{where}: {name} is {self.found:.6g}, and should be {word} {self.threshold.limit:.6g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The quality of what a table got: rows of `qengine_meta.quality`, and the thresholds that it breaks."""

    rows: pa.Table
    broken: tuple[Broken, ...]


def figures(result: TableResult, base: Catalog, load: Load, store: Store) -> Figures:
    """Return the figures of a table that is about to be published."""
    snapshot, report = result.snapshots[0], result.report
    table = snapshot.table
    before = base.find(table.schema, table.name)
    fresh = _Fresh(snapshot, before, store)
    sample = fresh.sample(_SAMPLED_VALUES // max(len(fresh.columns), 1))
    head: Row = {"load_number": load.number, "catalog_name": table.schema, "table_name": table.name, "part_rows": fresh.rows}
    columns = [head | _column_row(column, fresh, sample, report) for column in fresh.columns]
    nulls = {row["column_name"]: row.get("null_count") for row in columns}
    broken = tuple(_broken(snapshot, report, fresh, nulls))
    whole = head | _table_row(table, report, nulls) | {"broken_thresholds": sum(not one.threshold.is_fatal for one in broken)}
    return Figures(rows=pa.Table.from_pylist([whole, *columns], schema=SCHEMA), broken=broken)


class _Fresh:
    """The files with rows that a load wrote, apart from copies in margins."""

    def __init__(self, snapshot: TableSnapshot, before: TableSnapshot | None, store: Store) -> None:
        known = pa.concat_arrays([before.home.digest, before.orphan.digest]) if before is not None else pa.array([], pa.string())
        self._store = store
        self._parts: list[tuple[Parts, np.ndarray[Any, np.dtype[np.bool_]]]] = []
        for parts in (snapshot.home, snapshot.orphan):
            is_old = pc.is_in(parts.digest, value_set=known).to_numpy(zero_copy_only=False).astype(bool)
            self._parts.append((parts, ~is_old))
        self.columns = tuple(column for column in snapshot.table.columns if not column.hidden)
        self.rows = sum(int(parts.rows[chosen].sum()) for parts, chosen in self._parts)
        names = {column.name for column in self.columns}
        # Beside older files the statistics of the new ones are not worth looking for: they are read from the footers.
        kept = names if before is None else set()
        self._kept = {name for name in kept if all(name in parts.stats for parts, _ in self._parts if len(parts))}
        missing = names - self._kept
        line = snapshot.table.line_column
        self._missing = to_parts(
            [part_record(path, start=0, stop=1, line_column=line, columns=missing) for path in self.paths()] if missing else []
        )

    def paths(self) -> list[Path]:
        """Return the files."""
        return [
            self._store.path(uri.as_py())
            for parts, chosen in self._parts
            for uri in parts.uri.filter(pa.array(chosen)).unique()
        ]  # fmt: skip

    def stats(self, column: str) -> Iterator[ColumnStats]:
        """Yield the statistics of a column in the files."""
        if column not in self._kept:
            yield from (found for found in [self._missing.stats.get(column)] if found is not None)
            return
        for parts, chosen in self._parts:
            found = parts.stats.get(column)
            if found is not None:
                exact = found.is_exact[chosen] if found.is_exact is not None else None
                yield ColumnStats(found.minimum[chosen], found.maximum[chosen], found.nulls[chosen], found.is_known[chosen], exact)

    def sample(self, rows: int) -> pa.Table:
        """Return about as many rows, or all if there are no more."""
        names = [column.name for column in self.columns]
        groups = [(path, group) for path in self.paths() for group in range(pq.read_metadata(path).num_row_groups)]
        if self.rows > rows and len(groups) > _SAMPLED_GROUPS:
            groups = [groups[at] for at in np.linspace(0, len(groups) - 1, _SAMPLED_GROUPS).astype(int)]
        each = max(self.rows if self.rows <= rows else rows // max(len(groups), 1), 1)
        found = []
        for path, group in groups:
            batches = pq.ParquetFile(path).iter_batches(batch_size=each, row_groups=[group], columns=names)
            first = next(iter(batches), None)
            if first is not None:
                found.append(pa.Table.from_batches([first]).replace_schema_metadata(None))
        return pa.concat_tables(found) if found else pa.table({name: pa.nulls(0) for name in names})

    def count_nulls(self, column: str) -> int:
        """Count the NULLs of a column whose footers do not say."""
        return sum(pq.read_table(path, columns=[column]).column(0).null_count for path in self.paths())


def _column_row(column: Column, fresh: _Fresh, sample: pa.Table, report: LoadReport) -> Row:
    row: Row = {
        "column_name": column.name,
        "unit": column.unit or None,
        "ucd": column.ucd or None,
        "nan_count": report.nan.get(column.name, 0),
    }
    stats = list(fresh.stats(column.name))
    if all((one.nulls >= 0).all() for one in stats) and (stats or not fresh.rows):
        row["null_count"] = int(sum(one.nulls.sum() for one in stats))
    known = [one for one in stats if one.is_known.any()]
    if known:
        smallest = min(one.minimum[one.is_known].min() for one in known)
        largest = max(one.maximum[one.is_known].max() for one in known)
        row |= {"min_text": str(smallest), "max_text": str(largest)}
        if not isinstance(smallest, str):
            row |= {"min_value": float(smallest), "max_value": float(largest)}
    values = sample.column(column.name)
    row["sampled_rows"] = len(values)
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        mean = pc.mean(values.cast(pa.float64(), safe=False)).as_py()
        row["mean_value"] = mean if mean is not None and math.isfinite(mean) else None
    if not pa.types.is_nested(kind) and not pa.types.is_null(kind):
        row["distinct_estimate"] = _distinct(values, fresh.rows)
    return row


def _distinct(values: pa.ChunkedArray, rows: int) -> int:
    """Estimate how many different values `rows` rows have of which these are a sample."""
    counts = pc.value_counts(values.drop_null()).field(1)
    seen = len(counts)
    if len(values) >= rows or not seen:
        return seen
    once = int(pc.sum(pc.equal(counts, 1)).as_py() or 0)
    return min(round(math.sqrt(rows / len(values)) * once + (seen - once)), rows)


def _table_row(table: Table, report: LoadReport, nulls: Mapping[str, int | None]) -> Row:
    shown = [column for column in table.columns if not column.hidden]
    count = max(len(shown), 1)
    key = table.key or table.director_key
    return {
        "unit_coverage": sum(bool(c.unit) for c in shown) / count, "ucd_coverage": sum(bool(c.ucd) for c in shown) / count,
        "description_coverage": sum(bool(c.description) for c in shown) / count,
        "rows_read": report.read, "rows_stored": report.stored, "rows_quarantined": report.quarantined,
        "rows_filtered": report.filtered, "rows_skipped": report.skipped, "rows_removed": report.removed,
        "rows_wrapped": report.wrapped, "rows_without_position": report.orphaned,
        "rows_without_director": report.without_director, "null_keys": nulls.get(key) if key else None,
        # a table whose keys are proven has none twice: the load would have failed
        "duplicate_keys": 0 if table.key and table.is_key_proven else None, "quarantine": report.quarantine or None,
    }  # fmt: skip


def _broken(snapshot: TableSnapshot, report: LoadReport, fresh: _Fresh, nulls: Mapping[str, int | None]) -> Iterator[Broken]:
    table = snapshot.table
    read = max(report.read, 1)
    of_table = {
        "min_rows": float(snapshot.rows),
        "max_quarantined_fraction": report.quarantined / read,
        "max_orphaned_fraction": report.orphaned / max(report.stored, 1),
    }
    for one in table.quality:
        if one.measure in of_table:
            found = of_table[one.measure]
            if found < one.limit if one.measure == "min_rows" else found > one.limit:
                yield Broken(table=table.full_name, threshold=one, found=found)
            continue
        names = [one.column] if one.column else [column.name for column in fresh.columns]
        for name in names:
            if one.measure == "max_nan_fraction":
                found = report.nan.get(name, 0) / read
            else:
                count = nulls.get(name)
                found = (fresh.count_nulls(name) if count is None else count) / max(fresh.rows, 1)
            if found > one.limit:
                yield Broken(table=table.full_name, threshold=one, found=found, column=name)


def assess(results: Sequence[TableResult], base: Catalog, load: Load, store: Store) -> tuple[str, ...]:
    """Write the figures of all tables of a load, and return what its thresholds warn of.

    Raise `InputError` if a threshold is broken that a load must keep to.
    """
    found = [figures(result, base, load, store) for result in results]
    broken = [one for each in found for one in each.broken]
    fatal = [str(one) for one in broken if one.threshold.is_fatal]
    if fatal:
        raise InputError(
            "; ".join(fatal), hint="look at the inputs, or change the thresholds: [tables.NAME.quality] of sharding.toml"
        )
    write_quality(store.files, load.catalog, load.id, pa.concat_tables([SCHEMA.empty_table(), *(one.rows for one in found)]))
    return tuple(str(one) for one in broken)
