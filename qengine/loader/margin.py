"""Margins: for each tile of a director, copies of the rows of other tiles that lie near it.

Membership is decided by whole cells: a cell belongs to the margin of a tile if it lies in the ring around the tile
(`sky.coverage.ring`), so either all of its rows are in the tile's margin or none. The ring over-covers: everything within the
radius is there, and some rows beyond it.

The rings of all tiles are computed once, as one list of ranges. Every bucket of sorted rows is then cut by the ranges that meet
it (two binary searches each), and what lies inside goes to the margin's own buckets, by tile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qengine.catalog.model import HEALPIX, Int64Array
from qengine.loader.partition import Targets
from qengine.loader.pool import in_order
from qengine.loader.spill import Piece, scatter
from qengine.sky.cells import RangeSet
from qengine.sky.coverage import ring

TILE = "_tile"
"""Number of the tile whose margin a row is in; only between the stages of a load."""

_INDEXES = 4_000_000


@dataclass(frozen=True, slots=True)
class Rings:
    """Ranges [start, stop) of the rings of tiles, sorted by start; `tile` is the index of the target that a range surrounds."""

    start: Int64Array
    stop: Int64Array
    tile: Int64Array


def rings_of(targets: Targets, chosen: Int64Array, margin_arcsec: float, pool: ThreadPoolExecutor) -> Rings:
    """Return the rings of the targets at the indexes `chosen`, which are tiles."""
    bounds = list(zip(targets.start[chosen].tolist(), targets.stop[chosen].tolist(), strict=True))

    def work(bound: tuple[int, int]) -> RangeSet:
        return ring(RangeSet.from_ranges(np.array([bound[0]]), np.array([bound[1]])), margin_arcsec / 3600)

    rings = list(in_order(pool, work, bounds, ahead=64))
    if not rings:
        return Rings(*(np.empty(0, np.int64) for _ in range(3)))
    start = np.concatenate([one.starts for one in rings])
    stop = np.concatenate([one.stops for one in rings])
    tile = np.repeat(chosen, [len(one) for one in rings])
    order = np.argsort(start, kind="stable")
    return Rings(start[order], stop[order], tile[order])


def margin_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of margin rows on their way to their part."""
    return schema.append(pa.field(TILE, pa.int64(), nullable=False))


def margin_pieces(rows: pa.Table, rings: Rings, tile_bucket: Int64Array) -> list[Piece]:
    """Return copies of those of the sorted `rows` that lie in rings, by the bucket of the tile that they are near to."""
    if not rows.num_rows or not len(rings.start):
        return []
    cells = rows.column(HEALPIX).to_numpy()
    meets = np.flatnonzero((rings.start <= cells[-1]) & (rings.stop > cells[0]))
    first = np.searchsorted(cells, rings.start[meets])
    count = np.searchsorted(cells, rings.stop[meets]) - first
    has_rows = count > 0
    meets, first, count = meets[has_rows], first[has_rows], count[has_rows]
    if not len(meets):
        return []
    batch = rows.combine_chunks().to_batches()[0]
    pieces: list[Piece] = []
    # In steps: with a wide margin every row has many copies.
    step_of = np.cumsum(count) // _INDEXES
    for step in np.unique(step_of):
        chosen = step_of == step
        at = _expanded(first[chosen], count[chosen])
        tile = np.repeat(rings.tile[meets[chosen]], count[chosen])
        copies = batch.take(pa.array(at))
        marked = pa.record_batch([*copies.columns, pa.array(tile)], schema=margin_schema(batch.schema))
        pieces += scatter(marked, tile_bucket[tile])
    return pieces


def by_tile(rows: pa.Table) -> Sequence[tuple[int, pa.Table]]:
    """Return the margin rows of each tile, from rows sorted by tile; without the tile's number."""
    tiles = rows.column(TILE).to_numpy()
    rows = rows.drop_columns([TILE])
    edges = [0, *(np.flatnonzero(np.diff(tiles)) + 1).tolist(), len(tiles)]
    return [(int(tiles[a]), rows.slice(a, b - a)) for a, b in itertools.pairwise(edges)]


def _expanded(first: Int64Array, count: Int64Array) -> Int64Array:
    """Return first[0], first[0]+1, ... (count[0] numbers), first[1], ... as one array."""
    ends = np.cumsum(count)
    numbers: Int64Array = np.arange(ends[-1]) + np.repeat(first - (ends - count), count)
    return numbers
