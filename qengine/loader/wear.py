"""Wear: ranges of a table that have grown by many loads are written anew.

An append leaves a further part beside those of a range, and reads nothing. But a range with many parts is slow to read, and one
that grows without end is no unit of work any more. So an append writes a range anew if it would have more than eight parts, or
if it is larger than a tile should be and more than a quarter of its rows are outside its largest part; its rows then find
new tiles with the new ones. A compaction looks at all ranges, not only at those that rows come to. It writes anew

* ranges with several parts;
* tiles that together are no more than one tile should be, up to the largest tile around them that has room for all of its rows;
* parts that still have a column that was dropped. After that its name is free again.

A part that has just been written without some of its rows stays: the next load sees it as it is. Margins that have become many
parts are put together by themselves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qengine.catalog.model import Int64Array, PartRole, Parts
from qengine.loader.desk import Desk
from qengine.loader.kept import Kept, parts_of
from qengine.loader.order import sorted_on_line
from qengine.loader.partition import Tiles
from qengine.loader.pool import in_order
from qengine.loader.stored import conformed, read_part
from qengine.loader.write import Written
from qengine.sky.cells import LINE_END
from qengine.storage.parts import write_part

MOST_PARTS = 8
_DELTAS = 0.25
_CHUNK = 1 << 22


def take_worn(desk: Desk, kept: Kept, cells: Int64Array) -> None:
    """Take the parts of ranges out that are to be written anew with rows that come to `cells`."""
    base = desk.base
    if base is None:
        return
    rows_per_tile = desk.limits.tile_rows if desk.is_director else desk.limits.part_rows
    for role in (PartRole.HOME, PartRole.ORPHAN):
        parts, stays = parts_of(base, role), kept.stays[role]
        at = np.flatnonzero(stays)
        if not len(at):
            continue
        ranges = _Ranges(parts, at)
        coming = _counts(cells, ranges.start, ranges.stop)
        rows = ranges.rows + coming
        is_large = (rows > rows_per_tile) & ranges.is_divisible
        deltas = rows - ranges.largest
        is_worn = (coming > 0) & ((ranges.count >= MOST_PARTS) | (is_large & (deltas > _DELTAS * rows)))
        if desk.work.is_compact:
            is_worn |= (ranges.count > 1) | _old(desk, parts, at, ranges)
            if role is PartRole.HOME:
                is_worn |= _small(ranges, rows_per_tile)
        is_worn &= ~np.isin(ranges.start, [one.start for one in kept.written if one.role is role])
        taken = at[is_worn[ranges.of_part]]
        kept.stays[role][taken] = False
        kept.taken[role][taken] = True
        if role is PartRole.HOME:
            kept.stays[PartRole.MARGIN] &= ~np.isin(base.margin.start, ranges.start[is_worn])
            gone = set(ranges.start[is_worn].tolist())
            kept.written = [one for one in kept.written if one.role is not PartRole.MARGIN or one.start not in gone]


def freed(kept: Kept) -> Tiles:
    """Return those ranges of a child on the sky that are written anew and are no tiles: they become free as they are."""
    parts = kept.rewritten(PartRole.HOME)
    start, first = np.unique(parts.start, return_index=True)
    stop = parts.stop[first]
    is_odd = ~_is_tile(start, stop)
    return Tiles(start[is_odd], stop[is_odd])


def join_margins(desk: Desk, kept: Kept, pool: ThreadPoolExecutor) -> None:
    """Put margins together that have become many parts."""
    base = desk.base
    if base is None:
        return
    at = np.flatnonzero(kept.stays[PartRole.MARGIN])
    ranges = _Ranges(base.margin, at)
    most = 1 if desk.work.is_compact else MOST_PARTS
    is_worn = ranges.count > most
    if desk.work.is_compact:
        is_worn |= _old(desk, base.margin, at, ranges)
    is_worn &= ~np.isin(ranges.start, [one.start for one in kept.written if one.role is PartRole.MARGIN])
    members = {int(i): at[ranges.of_part == i] for i in np.flatnonzero(is_worn)}
    keys = tuple(name for name in (desk.table.director_key, desk.table.key) if name)

    def work(item: tuple[int, Int64Array]) -> Written:
        i, several = item
        tables = [conformed(read_part(desk.store, base.margin.uri[int(n)].as_py()), desk.schema) for n in several]
        file = write_part(sorted_on_line(pa.concat_tables(tables), keys), desk.parts_folder, desk.form)
        return Written(role=PartRole.MARGIN, start=int(ranges.start[i]), stop=int(ranges.stop[i]), file=file)

    kept.written += in_order(pool, work, members.items(), ahead=desk.limits.workers)
    for several in members.values():
        kept.stays[PartRole.MARGIN][several] = False


class _Ranges:
    """The ranges of some parts: bounds, number of parts, their rows, those of the largest, and whether they have two cells."""

    def __init__(self, parts: Parts, at: Int64Array) -> None:
        self.start, first, of_part, self.count = np.unique(
            parts.start[at], return_index=True, return_inverse=True, return_counts=True
        )
        self.of_part: Int64Array = of_part.reshape(-1)
        self.stop = parts.stop[at][first]
        self.rows = np.bincount(self.of_part, parts.rows[at], len(self.start)).astype(np.int64)
        self.largest = np.zeros(len(self.start), np.int64)
        np.maximum.at(self.largest, self.of_part, parts.rows[at])
        lowest, highest = np.full(len(self.start), np.iinfo(np.int64).max), np.full(len(self.start), -1, np.int64)
        np.minimum.at(lowest, self.of_part, parts.lowest[at])
        np.maximum.at(highest, self.of_part, parts.highest[at])
        self.is_divisible = lowest < highest


def _counts(cells: Int64Array, start: Int64Array, stop: Int64Array) -> Int64Array:
    """Count the cells in each of the disjoint, sorted ranges."""
    found = np.zeros(len(start), np.int64)
    for first in range(0, len(cells), _CHUNK):
        chunk = np.asarray(cells[first : first + _CHUNK])
        at = np.searchsorted(start, chunk, "right") - 1
        inside = (at >= 0) & (chunk < stop[np.maximum(at, 0)])
        found += np.bincount(at[inside], minlength=len(start))
    return found


def _old(desk: Desk, parts: Parts, at: Int64Array, ranges: _Ranges) -> NDArray[np.bool_]:
    """Say which ranges have a part with a column that was dropped."""
    found = np.zeros(len(ranges.start), np.bool_)
    dropped = set(desk.table.dropped)
    if dropped:
        for i, of_range in zip(at.tolist(), ranges.of_part.tolist(), strict=True):
            found[of_range] |= bool(dropped & set(pq.read_schema(desk.store.path(parts.uri[i].as_py())).names))
    return found


def _is_tile(start: Int64Array, stop: Int64Array) -> NDArray[np.bool_]:
    size = stop - start
    order = np.rint(np.log2(np.maximum(size, 1)) / 2).astype(np.int64)
    found: NDArray[np.bool_] = (size == np.int64(1) << 2 * order) & (start % np.maximum(size, 1) == 0)
    return found


def _small(ranges: _Ranges, rows_per_tile: int) -> NDArray[np.bool_]:
    """Say which tiles lie in a larger one that would not be too large with all rows in it, and are not alone there."""
    taken = np.zeros(len(ranges.start), np.bool_)
    is_tile = _is_tile(ranges.start, ranges.stop) & (ranges.stop <= LINE_END)
    start, size = ranges.start[is_tile], (ranges.stop - ranges.start)[is_tile]
    total, odd = (np.concatenate([[0], np.cumsum(values)]) for values in (ranges.rows, ~is_tile))
    base_size = np.int64(LINE_END // 12)
    while len(start):
        can_grow = size < base_size
        start, size = start[can_grow], size[can_grow]
        size = size * 4
        start = start // size * size
        first, last = np.searchsorted(ranges.start, start), np.searchsorted(ranges.start, start + size)
        # Ranges that are no tiles stay, so nothing can be put together around them.
        fits = (odd[last] == odd[first]) & (total[last] - total[first] <= rows_per_tile)
        for a, b in zip(first[fits & (last - first > 1)].tolist(), last[fits & (last - first > 1)].tolist(), strict=True):
            taken[a:b] = True
        start, size = start[fits], size[fits]
    return taken
