"""Coverage: the ranges of the line that hold a region, and the ring around ranges.

`coverage` descends from the twelve base tiles. A tile whose centre is deeper in the region than its own radius is all inside;
one whose centre is further outside than its radius is left out; the others are cut in four, until there are more of them than
the budget or they are cells. What is left at the border counts as inside. So the result over-covers and never misses a point.
Dilation adds to the depth. Everything is padded by 2 mas, because catalogues may have been put on cells by another library.

`ring` works on tiles: everything within a distance of a tile is in the tile or in the pixels next to its edge, if these are
large enough.
"""

from __future__ import annotations

import numpy as np

from qengine.sky.cells import ORDER, Int64Array, RangeSet
from qengine.sky.healpix import centers, max_radius_deg, min_width_deg, neighbours
from qengine.sky.region import Region

PAD_DEG = 2e-3 / 3600
EDGE_ORDERS = 6
"""A tile's ring is made of pixels at most 2^6 times narrower than the tile: finer ones would only save reading a few rows."""


def coverage(region: Region, *, dilate_deg: float = 0.0, max_cells: int = 512) -> RangeSet:
    """Return ranges that hold every point within `dilate_deg` of the region; about `max_cells` of them at most."""
    starts: list[Int64Array] = []
    stops: list[Int64Array] = []
    count = 0

    def keep(order: int, index: Int64Array) -> None:
        nonlocal count
        shift = 2 * (ORDER - order)
        starts.append(index << shift)
        stops.append((index + 1) << shift)
        count += len(index)

    border = np.arange(12, dtype=np.int64)
    for order in range(ORDER + 1):
        depth = region.depth_deg(*centers(order, border)) + dilate_deg + PAD_DEG
        radius = max_radius_deg(order)
        inside = depth >= radius
        if inside.any():
            keep(order, border[inside])
        border = border[~inside & (depth > -radius)]
        if not len(border):
            break
        if order == ORDER or count + 2 * len(border) > max_cells:
            keep(order, border)
            break
        border = (border[:, None] * 4 + np.arange(4)).ravel()
    if not starts:
        return RangeSet.empty()
    return RangeSet.from_ranges(np.concatenate(starts), np.concatenate(stops))


def ring(ranges: RangeSet, radius_deg: float) -> RangeSet:
    """Return cells outside `ranges` that hold every point within `radius_deg` of a point inside (and some further ones)."""
    on_sky = ranges & RangeSet.sky()
    if not on_sky or radius_deg <= 0:
        return RangeSet.empty()
    coarsest = _order_for(radius_deg + PAD_DEG)
    if coarsest < 0:
        return RangeSet.sky() - on_sky
    orders, indexes = on_sky.to_tiles()

    pieces: list[tuple[int, Int64Array]] = []
    for order in np.unique(orders).tolist():
        fine = min(coarsest, order + EDGE_ORDERS)
        mine = indexes[orders == order]
        if fine <= order:
            pieces.append((fine, neighbours(fine, np.unique(mine >> (2 * (order - fine))))))
            pieces.append((fine, np.unique(mine >> (2 * (order - fine)))))
        else:
            pieces.append((fine, neighbours(fine, _edge(mine, fine - order))))
    around = RangeSet.from_ranges(
        np.concatenate([index << (2 * (ORDER - order)) for order, index in pieces]),
        np.concatenate([(index + 1) << (2 * (ORDER - order)) for order, index in pieces]),
    )
    return around - on_sky


def _order_for(radius_deg: float) -> int:
    """Return the finest order whose neighbours reach `radius_deg`; -1 if not even the base tiles do."""
    return next((order for order in range(ORDER, -1, -1) if min_width_deg(order) >= radius_deg), -1)


def _edge(tiles: Int64Array, depth: int) -> Int64Array:
    """Return the pixels `depth` orders down at the edge of the tiles; x and y of a NESTED pixel are its even and odd bits."""
    side = np.arange(1 << depth, dtype=np.int64)
    spread = np.zeros_like(side)
    for bit in range(depth):
        spread |= ((side >> bit) & 1) << (2 * bit)
    last = int(spread[-1])
    edge = np.unique(np.concatenate([spread, spread << 1, spread | (last << 1), (spread << 1) | last]))
    return np.asarray(((tiles[:, None] << (2 * depth)) + edge).ravel())
