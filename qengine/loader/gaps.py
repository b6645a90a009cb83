"""Where new rows of a table that is there go: ranges that exist, and new tiles between them.

Ranges of parts are disjoint or equal, so rows that fall into an existing range become a further part of just that range. The others
get new tiles: from the base tiles downwards, a tile that touches an existing range or holds too many rows is split in four, until
it does neither. Beyond the sky, the gaps themselves are the new ranges.
"""

from __future__ import annotations

import numpy as np

from qengine.catalog.model import Int64Array
from qengine.loader.partition import Tiles
from qengine.sky.cells import ORDER


def gap_tiles(cells: Int64Array, taken: Tiles, rows_per_tile: int) -> Tiles:
    """Return disjoint tiles for the sorted `cells` (all on the sky, none in `taken`) that touch no taken range, with at most
    `rows_per_tile` rows where cells allow it."""
    starts: list[Int64Array] = []
    stops: list[Int64Array] = []
    size = 1 << 2 * ORDER
    start = np.arange(12, dtype=np.int64) * size
    while len(start):
        first, last = np.searchsorted(cells, start), np.searchsorted(cells, start + size)
        has_rows = first < last
        start, first, last = start[has_rows], first[has_rows], last[has_rows]
        touches = np.searchsorted(taken.stop, start, "right") < np.searchsorted(taken.start, start + size, "left")
        is_crowded = (last - first > rows_per_tile) & (cells[first] != cells[last - 1])
        is_split = (touches | is_crowded) & (size > 1)
        starts.append(start[~is_split])
        stops.append(start[~is_split] + size)
        size //= 4
        start = (start[is_split, np.newaxis] + np.arange(4) * size).ravel()
    found, ends = np.concatenate(starts), np.concatenate(stops)
    order = np.argsort(found)
    return Tiles(found[order], ends[order])


def leaf_tiles(start: Int64Array, stop: Int64Array) -> Tiles:
    """Return disjoint HEALPix tiles such that each of the ranges (disjoint or equal, sorted by start) lies in one: where HATS puts
    its files."""
    size = np.ones(len(start), np.int64)
    for _ in range(ORDER):
        is_short = start // size != (stop - 1) // size
        if not is_short.any():
            break
        size[is_short] *= 4
    first = start // size * size
    order = np.lexsort((-size, first))
    first, last = first[order], (first + size)[order]
    # Of tiles that hold each other the largest comes first: the others end before it does.
    is_outer = np.ones(len(first), np.bool_)
    if len(first):
        is_outer[1:] = last[1:] > np.maximum.accumulate(last)[:-1]
    return Tiles(first[is_outer], last[is_outer])
