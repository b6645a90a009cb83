"""Coverage: the ranges of the line that hold a region, and the ring around ranges.

`coverage` descends from the twelve base tiles. A tile whose centre is deeper in the region than its own radius is all inside;
one whose centre is further outside than its radius is left out; the others are cut in four, until there are more of them than
the budget or they are cells. What is left at the border counts as inside. So the result over-covers and never misses a point.
Dilation adds to the depth. Everything is padded by 2 mas, because catalogues may have been put on cells by another library.
Members of a union descend each on its own, so that a list of cones costs what its cones cost; its circles go down together, as
pairs (circle, tile), because one by one they would spend their time in numpy's calls.

`ring` works on pixels: everything within a distance of a pixel is in it or in its neighbours, if pixels are wide enough
(`min_width_deg`). A tile narrower than that is replaced by its ancestor of the right order; of a wider one only the pixels at its
edge are looked at, and where there are many tiles, larger pixels than needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from qengine.sky.cells import ORDER, Int64Array, RangeSet, distinct
from qengine.sky.healpix import Float64Array, cells_of, centers, max_radius_deg, min_width_deg, neighbours, neighbours_of_each
from qengine.sky.moc import Cells
from qengine.sky.region import Circle, Intersection, Region, Union, circle_depth_deg

PAD_DEG = 2e-3 / 3600
MOST_RANGES = 16_384
"""A coverage map with more ranges than these is taken coarser: planning time counts as well."""
MEMBER_CELLS = 32
"""The least budget of a member of a union."""
EDGE_ORDERS = 6
"""A tile's ring is made of pixels at most 2^6 times narrower than the tile: finer ones would only save reading a few rows."""
EDGE_PIXELS = 32768
"""Pixels at the edges of tiles that a ring looks at, unless the tiles themselves are more."""

Depth = Callable[[Int64Array, Float64Array, Float64Array], Float64Array]
"""(number of the member, ra, dec) -> depth in degrees; arrays of one shape."""


def coverage(region: Region, *, dilate_deg: float = 0.0, max_cells: int = 512) -> RangeSet:
    """Return ranges that hold every point within `dilate_deg` of the region.

    They are made of about `max_cells` tiles at most; a union may have 32 for each of its members if that is more.
    """
    if (parts := _with_cells(region)) is not None:
        return _combined(parts, dilate_deg, max_cells)
    members = list(_members(region))
    circles = [m for m in members if isinstance(m, Circle)]
    others = [m for m in members if not isinstance(m, Circle)]
    budget = max(max_cells, MEMBER_CELLS * len(members))
    pieces: list[RangeSet] = []
    if circles:
        ra, dec, radius = np.array([(c.ra, c.dec, c.radius) for c in circles], np.float64).T

        def depth_of_circles(member: Int64Array, lon: Float64Array, lat: Float64Array) -> Float64Array:
            return circle_depth_deg(ra[member], dec[member], radius[member], lon, lat)

        share = budget * len(circles) // len(members)
        start = _start(ra, dec, float(radius.max()) + dilate_deg + PAD_DEG)
        pieces.append(_descend(depth_of_circles, start, dilate_deg + PAD_DEG, share))
    for other in others:
        pieces.append(_descend(_depth_of(other), _base_tiles(1), dilate_deg + PAD_DEG, budget // len(members)))
    return _join((piece.starts, piece.stops) for piece in pieces)


def ring(ranges: RangeSet, radius_deg: float) -> RangeSet:
    """Return cells outside `ranges` that hold every point within `radius_deg` of a point inside (and some further ones).

    Only the sky has distances: ranges beyond it have no ring, nor has a negative radius. A radius of zero gives the padding.
    """
    on_sky = ranges & RangeSet.sky()
    if not on_sky or radius_deg < 0:
        return RangeSet.empty()
    coarsest = _order_for(radius_deg + PAD_DEG)
    if coarsest < 0:
        return RangeSet.sky() - on_sky
    orders, indexes = on_sky.to_tiles()
    finer = _finer_orders(np.minimum(coarsest - orders, EDGE_ORDERS))

    pieces: list[tuple[Int64Array, Int64Array]] = []
    for order in np.unique(orders).tolist():
        fine = min(coarsest, order + finer)
        mine = indexes[orders == order]
        if fine < order:
            mine = mine >> (2 * (order - fine))
            mine = mine[np.r_[True, mine[1:] > mine[:-1]]]  # sorted as the tiles are
            pieces.append(_ranges(fine, mine))
        pieces.append(_ranges(fine, neighbours(fine, _edge(mine, fine - order) if fine > order else mine)))
    return _join(pieces) - on_sky


def _with_cells(region: Region) -> Union | Intersection | Cells | None:
    """Return the region if coverage maps are in it."""
    if isinstance(region, Cells):
        return region
    if isinstance(region, (Union, Intersection)) and any(_with_cells(member) is not None for member in region.regions):
        return region
    return None


def _combined(region: Union | Intersection | Cells, dilate_deg: float, max_cells: int) -> RangeSet:
    """Cover a region with coverage maps in it: maps are ranges already, widened by their ring; the others descend by themselves."""
    if isinstance(region, Cells):
        near = region.ranges.coarsen(MOST_RANGES) if len(region.ranges) > MOST_RANGES else region.ranges
        return near | ring(near, dilate_deg)
    pieces = [coverage(member, dilate_deg=dilate_deg, max_cells=max_cells) for member in region.regions]
    found = pieces[0]
    for piece in pieces[1:]:
        found = found | piece if isinstance(region, Union) else found & piece
    return found


def _members(region: Region) -> Iterator[Region]:
    """Take unions apart, and unions in them."""
    if isinstance(region, Union):
        for member in region.regions:
            yield from _members(member)
    else:
        yield region


def _depth_of(region: Region) -> Depth:
    return lambda _, ra, dec: region.depth_deg(ra, dec)


_Start = tuple[int, Int64Array, Int64Array]
"""(order, numbers of members, indexes of tiles): where a descent begins. The tiles of a member hold all of it."""


def _base_tiles(members: int) -> _Start:
    return 0, np.repeat(np.arange(members), 12), np.tile(np.arange(12, dtype=np.int64), members)


def _start(ra: Float64Array, dec: Float64Array, radius_deg: float) -> _Start:
    """Begin at the tiles of the centres and their neighbours, at the finest order where these hold circles of `radius_deg`."""
    order = _order_for(radius_deg)
    if order < 2:  # coarser pixels meet some neighbours twice
        return _base_tiles(len(ra))
    home = cells_of(ra, dec) >> (2 * (ORDER - order))
    tiles = np.column_stack([home, neighbours_of_each(order, home)])
    member = np.repeat(np.arange(len(ra)), tiles.shape[1])
    is_tile = tiles.ravel() >= 0
    return order, member[is_tile], tiles.ravel()[is_tile]


def _descend(depth_of: Depth, start: _Start, widen_deg: float, budget: int) -> RangeSet:
    """Cover regions, each widened, by at most about `budget` tiles."""
    kept: list[tuple[Int64Array, Int64Array]] = []
    count = 0
    first, member, index = start
    for order in range(first, ORDER + 1):
        depth = depth_of(member, *centers(order, index)) + widen_deg
        radius = max_radius_deg(order)
        is_inside = depth >= radius
        if is_inside.any():
            kept.append(_ranges(order, index[is_inside]))
            count += int(is_inside.sum())
        is_border = ~is_inside & (depth > -radius)
        member, index = member[is_border], index[is_border]
        if not len(index):
            break
        if order == ORDER or count + 2 * len(index) > budget:
            kept.append(_ranges(order, index))
            break
        member, index = np.repeat(member, 4), (index[:, None] * 4 + np.arange(4)).ravel()
    return _join(kept)


def _ranges(order: int, index: Int64Array) -> tuple[Int64Array, Int64Array]:
    shift = 2 * (ORDER - order)
    return index << shift, (index + 1) << shift


def _join(pieces: Iterable[tuple[Int64Array, Int64Array]]) -> RangeSet:
    found = list(pieces)
    if not found:
        return RangeSet.empty()
    return RangeSet.from_ranges(np.concatenate([starts for starts, _ in found]), np.concatenate([stops for _, stops in found]))


def _finer_orders(wanted: Int64Array) -> int:
    """Return by how many orders edge pixels may be finer than their tiles, so that there are at most EDGE_PIXELS of them.

    `wanted` is what each tile would have, shape (tiles,).
    """
    for finer in range(EDGE_ORDERS, 0, -1):
        depth = np.clip(wanted, 0, finer)
        if int(np.maximum(4 * ((1 << depth) - 1), 1).sum()) <= EDGE_PIXELS:
            return finer
    return 0


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
    edge = distinct(np.concatenate([spread, spread << 1, spread | (last << 1), (spread << 1) | last]))
    return np.asarray(((tiles[:, None] << (2 * depth)) + edge).ravel())
