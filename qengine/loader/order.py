"""The order of rows in a part: by cell, then by key, then as they came, so that the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qengine.catalog.model import HEALPIX, Int64Array


def sorted_on_line(rows: pa.Table, keys: Sequence[str], *, before: str = "") -> pa.Table:
    """Return `rows` sorted by `before` (if given), cell and `keys`; NULL keys last."""
    if not rows.num_rows:
        return rows
    cells = rows.column(HEALPIX).to_numpy()
    if before:
        order = np.lexsort((cells, rows.column(before).to_numpy()))
    else:
        order = np.argsort(cells, kind="stable")
    if keys:
        _settle_ties(order, rows, (*([before] if before else []), HEALPIX), keys)
    return rows.take(pa.array(order)).combine_chunks()


def _settle_ties(order: Int64Array, rows: pa.Table, sorted_by: Sequence[str], keys: Sequence[str]) -> None:
    """Sort the runs of `order` that are equal in `sorted_by` by `keys`, in place."""
    is_same = np.ones(len(order) - 1, np.bool_)
    for name in sorted_by:
        values = rows.column(name).to_numpy()[order]
        is_same &= values[1:] == values[:-1]
    is_tied = np.zeros(len(order), np.bool_)
    is_tied[1:] |= is_same
    is_tied[:-1] |= is_same
    at = np.flatnonzero(is_tied)
    if not len(at):
        return
    tied = order[at]
    run = np.cumsum(np.concatenate([[True], ~is_same]))[at]
    columns = [_codes(rows.column(name).take(pa.array(tied))) for name in reversed(keys)]
    order[at] = tied[np.lexsort((*columns, run))]


def _codes(values: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return integers in the order of the values."""
    if pa.types.is_integer(values.type) and not values.null_count:
        codes: NDArray[np.int64] = values.to_numpy()
    else:
        codes = pc.rank(values, "ascending", tiebreaker="dense").to_numpy().astype(np.int64)  # NULL last
    return codes
