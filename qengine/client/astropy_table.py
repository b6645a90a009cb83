"""Arrow to astropy: the columns that astronomers expect, with masks, units, UCDs and descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.output import OutputColumn


def to_table(
    table: pa.Table, columns: Sequence[OutputColumn], *, warnings: Sequence[str], snapshots: Mapping[str, int], statement: str
) -> Any:
    """Return an astropy Table. A unit that astropy does not know stays as text in the column's `meta`."""
    from astropy.table import Table

    found = Table()
    for column, values in zip(columns, table.columns, strict=True):
        found[column.name] = _column(column, values.combine_chunks())
    found.meta.update({"QUERY": statement, "SNAPSHOTS": dict(snapshots)})
    if warnings:
        found.meta["WARNINGS"] = list(warnings)
    return found


def _column(column: OutputColumn, values: pa.Array) -> Any:
    from astropy.table import Column, MaskedColumn
    from astropy.units import Unit

    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    known = {"name": column.name, "description": column.description or None}
    if values.null_count:
        mask = values.is_null().to_numpy(zero_copy_only=False)
        made = MaskedColumn(_filled(values), mask=mask, **known)
    else:
        made = Column(_filled(values), **known)
    if column.unit:
        try:
            made.unit = Unit(column.unit, format="vounit", parse_strict="raise")
        except ValueError:
            made.meta["unit"] = column.unit
    made.meta.update({key: value for key, value in (("ucd", column.ucd), ("utype", column.utype)) if value})
    return made


def _filled(values: pa.Array) -> Any:
    arrow = values.type
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return _lists(values)
    if pa.types.is_decimal(arrow) or pa.types.is_binary(arrow):
        return np.array(values.to_pylist(), dtype=object)
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return np.array(pc.fill_null(values, "").to_pylist(), dtype=str if len(values) else "U1")
    if pa.types.is_null(arrow):
        return np.zeros(len(values))
    if values.null_count and not pa.types.is_temporal(arrow):
        values = pc.fill_null(values, False if pa.types.is_boolean(arrow) else 0)
    return values.to_numpy(zero_copy_only=False)


def _lists(values: pa.Array) -> Any:
    lengths = pc.list_value_length(values)
    bounds = pc.min_max(lengths)
    size = bounds["min"].as_py()
    if size is not None and size == bounds["max"].as_py() and not values.null_count:
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), size)
    ragged = np.empty(len(values), dtype=object)
    for place, row in enumerate(values.to_pylist()):
        ragged[place] = None if row is None else np.array(row)
    return ragged
