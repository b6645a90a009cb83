"""Lines that are not the sky: where rows go that have no position, by the hash of their key or by their time.

A family of objects without a fixed position (orbits) lies on the line of hashes: a key's place is that which it would have beyond
the sky (`sky.cells.beyond_cell`), moved to the line's beginning. Children are there where their director is, as on the sky. A
series (visits, logs, housekeeping) lies on the line of times: a time's place is the number that its float64 is when its bits are
read in the order of values, less the last three of them (5 microseconds, of a Modified Julian Date). Both are cells as those of the
sky are, so that everything else (tiles, parts, sub-ranges, appends, keys) is the same; there are no neighbours, and so no margins
and no HATS trees.

Rows without a key, or without a finite time, lie beyond the line as rows without a position do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.model import SKY_LINE, Int64Array, Table, TableKind
from qengine.errors import SchemaError
from qengine.loader.keys import to_keys
from qengine.loader.locate import DirectorLocator, Locator, Placed
from qengine.loader.quality import Place
from qengine.sky.cells import LINE_END, beyond_cell

HASH_LINE, TIME_LINE = "hash", "time"

_SIGN = np.int64(-(2**63))
_LOST_BITS = np.uint64(3)


def own_locator(table: Table, *, is_wrapping: bool) -> Locator:
    """Return what places the rows of a table that has no director."""
    if table.kind is TableKind.SERIES:
        return TimeLocator(time_key=table.time_key, key=table.key)
    if table.line == HASH_LINE:
        return HashLocator(key=table.key)
    return DirectorLocator(ra=table.ra, dec=table.dec, key=table.key, is_wrapping=is_wrapping)


def has_neighbours(table: Table) -> bool:
    """Say whether the line of the table's family is the sky, where rows of other tiles can be near."""
    return table.line == SKY_LINE and table.kind is not TableKind.SERIES


@dataclass(frozen=True, slots=True, kw_only=True)
class HashLocator:
    """Places rows by the hash of their key."""

    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.key,)

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        """Return the cells of `rows`."""
        del place
        keys = to_keys(rows.column(self.key), self.key)
        cells = beyond_cell(keys)
        is_known = keys.is_valid().to_numpy(zero_copy_only=False)
        return Placed(np.where(is_known, cells - LINE_END, cells), keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLocator:
    """Places rows by their time; those without one by their key, or without a key by their row number."""

    time_key: str
    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.time_key, *([self.key] if self.key else []))))

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        """Return the cells of `rows`."""
        keys = to_keys(rows.column(self.key), self.key) if self.key else None
        times = to_times(rows.column(self.time_key), self.time_key, place.source)
        is_placed = np.isfinite(times)
        cells = time_cells(np.where(is_placed, times, 0.0))
        if not is_placed.all():
            at = np.flatnonzero(~is_placed)
            cells[at] = beyond_cell(keys.take(pa.array(at)) if keys is not None else pa.array(place.rows[at]))
        return Placed(cells, keys)


def time_cells(times: NDArray[np.float64]) -> Int64Array:
    """Return the cells of finite times, in their order. Shape (n,)."""
    bits = (times + 0.0).view(np.int64)  # minus zero is zero
    ordered = np.where(bits < 0, ~bits, bits ^ _SIGN).view(np.uint64)
    return (ordered >> _LOST_BITS).astype(np.int64)


def to_times(values: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    """Return times as numbers, NaN where there is none: the numbers themselves, or microseconds. Raise `SchemaError` for a column
    that holds no times."""
    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        values = pc.cast(pc.cast(values, pa.timestamp("us", getattr(kind, "tz", None)), safe=False), pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SchemaError(
            f"{where}: column {name} is {kind}, which is no time", hint="a series lies by numbers, dates or timestamps"
        )
    numbers = pc.cast(values, pa.float64(), safe=False)
    return np.asarray(numbers.fill_null(float("nan")).to_numpy(zero_copy_only=False), np.float64).copy()
