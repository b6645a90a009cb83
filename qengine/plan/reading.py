"""What a task of a fragment reads: parts, their margin files, and the ranges of cells that a filter keeps.

A pure function of (fragment, number), computed at dispatch. Parts that meet the task's cells are read whole where that costs
nothing; otherwise the input gets a filter on its line column, which also lets DuckDB pass over row groups. How far an input reads
is its `Reach` (`plan.fragment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.model import Int64Array, Parts, RowGroups
from qengine.plan.fragment import LeafFragment, LeafInput, Reach
from qengine.plan.nearby import LINE, NearRows
from qengine.plan.physical import PartRef, TaskInput, shared_part
from qengine.sky.cells import RangeSet
from qengine.sky.coverage import ring

MAX_RANGES = 64
"""Ranges in the filter of an input that reads a ring: a tree of comparisons, of which a row takes six for 64 ranges."""

MAX_CELLS = 1000
"""Single cells (of looked-up keys) in the filter of an input that reads at home. Other ranges become one there: it skips row
groups by their statistics, the predicates test the rows. DuckDB skips row groups by an IN list, but not by an OR of ranges."""

Source = tuple[Parts, Int64Array]
"""Parts, and which of them are read."""


def task_inputs(leaf: LeafFragment, number: int) -> tuple[TaskInput, ...]:
    """Return what task `number` of the fragment reads."""
    low, high = int(leaf.bounds[number]), int(leaf.bounds[number + 1])
    home = leaf.work & RangeSet.from_ranges(np.array([low], np.int64), np.array([high], np.int64))
    return tuple(_task_input(i, home, (low, high)) for i in leaf.inputs)


def _task_input(i: LeafInput, home: RangeSet, bounds: tuple[int, int]) -> TaskInput:
    table = i.table.table
    if i.table.inline is not None:
        return _input_of_rows(i, i.table.inline) if i.near is None else _input_near(i, i.near, bounds)
    if i.reach is Reach.WHOLE:
        return _input(i, [(i.table.home, np.arange(len(i.table.home)))], ())
    reach = home
    if i.reach is Reach.RING:
        if (found := _with_margin_files(i, home)) is not None:
            return found
        sky = home & RangeSet.sky()
        reach = sky | ring(sky, i.margin_deg)
    sources = [(parts, parts.meeting(reach)) for parts in (i.table.home, i.table.orphan)]
    if not table.line_column:
        return _input(i, sources, ())
    is_inside = all(
        bool(_covers(reach, np.maximum(p.start[s], p.lowest[s]), np.minimum(p.stop[s], p.highest[s] + 1)).all()) for p, s in sources
    )
    if is_inside and (i.reach is Reach.HOME or len(reach) == 1):
        return _input(i, sources, ())
    if i.reach is Reach.HOME and all(_reads_all(parts, selected, reach, bounds) for parts, selected in sources):
        return _input(i, sources, ())
    is_cells = reach.cells == len(reach) <= MAX_CELLS
    if i.reach is Reach.RING:
        coarse = reach.coarsen(MAX_RANGES, lambda cells: _rows_before(sources, cells))
    else:
        coarse = reach.coarsen(MAX_CELLS if is_cells else 1)
    if i.reach is Reach.HOME:
        coarse = coarse & RangeSet.from_ranges(np.array([bounds[0]], np.int64), np.array([bounds[1]], np.int64))
    return _input(i, sources, coarse.pairs())


def _rows_before(sources: Sequence[Source], cells: Int64Array) -> NDArray[np.float64]:
    """Return about how many rows of parts lie before each cell: those of row groups, spread to where the next one begins."""
    found = np.zeros(len(cells))
    for parts, selected in sources:
        groups = _row_groups(parts, selected)
        order = np.argsort(groups.lowest, kind="stable")
        if len(order):
            places = np.r_[groups.lowest[order], max(groups.highest.max(), groups.lowest.max()) + 1]
            found += np.interp(cells, places, np.r_[0, np.cumsum(groups.rows[order])])
    return found


def _row_groups(parts: Parts, selected: Int64Array) -> RowGroups:
    """Return the row groups of the selected parts, as if they were one part."""
    groups = parts.row_groups
    count = groups.offset[selected + 1] - groups.offset[selected]
    index = np.repeat(groups.offset[selected] - np.r_[0, np.cumsum(count)[:-1]], count) + np.arange(int(count.sum()))
    return RowGroups(
        offset=np.array([0, len(index)]), lowest=groups.lowest[index], highest=groups.highest[index], rows=groups.rows[index],
        bytes=groups.bytes[index],
    )  # fmt: skip


def _reads_all(parts: Parts, selected: Int64Array, reach: RangeSet, bounds: tuple[int, int]) -> bool:
    """Say whether the parts lie within the task, and no row group could be skipped by its cells: looking at each row's cell would
    cost time and leave out nothing that the predicates do not."""
    if not len(selected):
        return True
    if parts.start[selected].min() < bounds[0] or parts.stop[selected].max() > bounds[1]:
        return False
    groups = _row_groups(parts, selected)
    return bool(reach.overlaps(groups.lowest, np.maximum(groups.highest, groups.lowest) + 1).all())


def _input_of_rows(i: LeafInput, rows: pa.Table) -> TaskInput:
    """Read a relation that the coordinator puts on the workers."""
    ref = shared_part(i.table.table.full_name, rows)
    return TaskInput(name=i.name, parts=(ref,), columns=i.columns, types=i.types, line_column="")


def _input_near(i: LeafInput, near: NearRows, bounds: tuple[int, int]) -> TaskInput:
    """Read what is near the task of a relation that the coordinator puts on the workers."""
    ranges = near.ranges(*bounds).coarsen(MAX_RANGES, lambda at: np.searchsorted(near.cells, at).astype(np.float64))
    parts = []
    for name, rows, share in near.within(ranges):
        whole = shared_part(name, rows)
        parts.append(replace(whole, bytes=int(whole.bytes * share)))
    pairs = ranges.pairs() if parts else ()
    return TaskInput(name=i.name, parts=tuple(parts), columns=i.columns, types=i.types, ranges=pairs, line_column=LINE)


def _with_margin_files(i: LeafInput, home: RangeSet) -> TaskInput | None:
    """Read the ring from margin files, if the task is whole tiles of this table and its margins are wide enough.

    Otherwise the neighbours' own parts are read: always right, and better for less than a tile. Margins of attached catalogues are
    not used: nothing says that they hold all rows of a cell or none, which is how a row in two margins is counted once.
    """
    table, sky = i.table, home & RangeSet.sky()
    if not len(table.margin) or table.margin_arcsec < i.margin_deg * 3600 or table.table.has_nan or not table.table.line_column:
        return None
    near = table.home.meeting(sky)
    tiles = RangeSet.from_ranges(table.home.start[near], table.home.stop[near])
    if tiles != sky or len(tiles) > MAX_RANGES or not _is_tiles(table.home.start[near], table.home.stop[near]):
        return None
    met = table.margin.meeting(tiles)
    if RangeSet.from_ranges(table.margin.start[met], table.margin.stop[met]) - tiles:
        return None
    plain = _input(i, [(table.home, near)], tiles.pairs())
    # Two tiles with the same few rows around them, such as a pole, share one file: it has the same bytes and so the same name.
    return replace(plain, margin_parts=tuple(dict.fromkeys(part_refs(table.margin, met))))


def _is_tiles(starts: Int64Array, stops: Int64Array) -> bool:
    """Say whether all ranges are tiles. A dense tile is stored as parts by sub-ranges, of which its margin knows nothing."""
    size = stops - starts
    is_tile = (size & (size - 1) == 0) & (size & 0x5555_5555_5555_5555 != 0) & (starts % size == 0)
    return bool(is_tile.all())


def _covers(ranges: RangeSet, starts: Int64Array, stops: Int64Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say for each half-open range whether it lies inside one range of the set (empty ones do)."""
    if not len(ranges):
        return starts >= stops
    place = np.searchsorted(ranges.starts, starts, side="right") - 1
    inside = (place >= 0) & (stops <= ranges.stops[np.maximum(place, 0)])
    return inside | (starts >= stops)


def _input(i: LeafInput, sources: Sequence[Source], ranges: tuple[tuple[int, int], ...]) -> TaskInput:
    table = i.table.table
    floats = {c.name for c in table.columns if c.type.is_float} if table.has_nan else set()
    return TaskInput(
        name=i.name,
        parts=tuple(ref for parts, selected in sources for ref in part_refs(parts, selected)),
        columns=i.columns,
        types=i.types,
        ranges=ranges,
        nan_columns=tuple(c for c in i.columns if c in floats),
        line_column=table.line_column,
    )


def part_refs(parts: Parts, selected: Int64Array) -> list[PartRef]:
    """Make references to the selected parts."""
    if not len(selected):
        return []
    where = pa.array(selected)
    digests, uris = parts.digest.take(where).to_pylist(), parts.uri.take(where).to_pylist()
    rows, sizes = parts.rows[selected].tolist(), parts.bytes[selected].tolist()
    return [PartRef(*values) for values in zip(digests, uris, rows, sizes, strict=True)]
