"""Which tiles and parts a table gets: pure arithmetic on the cells of its rows.

*Tiles of a director.* Rows are counted at a fixed order, the counts are summed upwards, and from the twelve base tiles downwards
every tile with more rows than wanted is split in four. Tiles that are too full even at the order of counting are refined from the
cells themselves, down to order 29; many rows in one cell cannot be parted and stay together. Empty tiles are not listed.

*Parts.* The rows of a tile are cut into parts at cell borders, so that a key, which lives in one cell, never spans two parts. A
director's tile is one part; a child has its director's tiles, each cut into as many parts as its rows need. Rows beyond the sky are
cut the same way.

*Buckets.* A load that does not fit into memory works through ranges of the line, one at a time: a bucket is a range with a bounded
number of rows that cuts no tile of a director and no cell of a child.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qengine.catalog.model import Int64Array
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER, distinct

_CHUNK = 1 << 22
_SAMPLE = 1 << 20


@dataclass(frozen=True, slots=True)
class Tiles:
    """Disjoint tiles sorted along the line: [start, stop) each, shape (tiles,)."""

    start: Int64Array
    stop: Int64Array

    def __len__(self) -> int:
        return len(self.start)

    @property
    def orders(self) -> Int64Array:
        """Return the HEALPix order of each tile."""
        width = (self.stop - self.start).astype(np.float64)
        orders: Int64Array = ORDER - np.rint(np.log2(width) / 2).astype(np.int64)
        return orders

    @property
    def indexes(self) -> Int64Array:
        """Return the HEALPix pixel number of each tile at its order."""
        pixels: Int64Array = self.start >> 2 * (ORDER - self.orders)
        return pixels


@dataclass(frozen=True, slots=True)
class Targets:
    """Disjoint ranges [start, stop) that parts may belong to, sorted. Rows of a fixed one become parts of just that range; others
    may be cut further at cell borders. Shape (ranges,)."""

    start: Int64Array
    stop: Int64Array
    is_fixed: NDArray[np.bool_]

    @classmethod
    def new(cls, tiles: Tiles) -> Targets:
        """Return the targets of a table without rows: its tiles, and all that is beyond the sky."""
        return cls(np.append(tiles.start, LINE_END), np.append(tiles.stop, BEYOND_END), np.zeros(len(tiles) + 1, np.bool_))

    @classmethod
    def of(cls, fixed: Tiles, free: Tiles) -> Targets:
        """Return fixed ranges and tiles between them, and what lies between fixed ranges beyond the sky."""
        beyond = fixed.start >= LINE_END
        edges = np.concatenate([[LINE_END], fixed.stop[beyond]]), np.concatenate([fixed.start[beyond], [BEYOND_END]])
        is_gap = edges[0] < edges[1]
        start = np.concatenate([fixed.start, free.start, edges[0][is_gap]])
        stop = np.concatenate([fixed.stop, free.stop, edges[1][is_gap]])
        is_fixed = np.zeros(len(start), np.bool_)
        is_fixed[: len(fixed)] = True
        order = np.argsort(start)
        return cls(start[order], stop[order], is_fixed[order])

    def at(self, cells: Int64Array) -> Int64Array:
        """Return the target of each cell, -1 for a cell in none."""
        at = np.searchsorted(self.start, cells, "right") - 1
        inside = (at >= 0) & (cells < self.stop[np.maximum(at, 0)])
        return np.where(inside, at, -1)


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows [first, last) of a sorted bucket that become one part with the range [start, stop) of the line."""

    first: int
    last: int
    start: int
    stop: int


def tiles_of(cells: Int64Array, rows_per_tile: int) -> Tiles:
    """Return the tiles of a director whose rows lie in `cells` (any order; cells off the sky are ignored)."""
    order = 6 if len(cells) < 1_000_000 else 10
    shift = 2 * (ORDER - order)
    counts = np.zeros(12 * 4**order, np.int64)
    for chunk in _chunks(cells):
        np.add.at(counts, _on_sky(chunk) >> shift, 1)
    starts: list[Int64Array] = []
    stops: list[Int64Array] = []
    pyramid = [counts]
    while len(pyramid[-1]) > 12:
        pyramid.append(pyramid[-1].reshape(-1, 4).sum(axis=1))
    pixels = np.arange(12, dtype=np.int64)
    for level, level_counts in enumerate(reversed(pyramid)):
        rows = level_counts[pixels]
        is_full = (rows > rows_per_tile) & (level < order)
        leaves = pixels[(rows > 0) & ~is_full]
        width_shift = 2 * (ORDER - level)
        starts.append(leaves << width_shift)
        stops.append((leaves + 1) << width_shift)
        pixels = (pixels[is_full, np.newaxis] * 4 + np.arange(4)).ravel()
    start, stop = np.concatenate(starts), np.concatenate(stops)
    is_dense = (stop - start == 1 << shift) & (counts[start >> shift] > rows_per_tile)
    if is_dense.any():
        deeper = _refined(cells, np.sort(start[is_dense]), 1 << shift, rows_per_tile)
        start = np.concatenate([start[~is_dense], deeper.start])
        stop = np.concatenate([stop[~is_dense], deeper.stop])
    by_start = np.argsort(start)
    return Tiles(start[by_start], stop[by_start])


def _refined(cells: Int64Array, dense: Int64Array, width: int, rows_per_tile: int) -> Tiles:
    """Split the tiles that begin at `dense` (all of one width) by the cells that really lie in them."""
    kept = []
    for chunk in _chunks(cells):
        at = np.searchsorted(dense, chunk, "right") - 1
        kept.append(chunk[(at >= 0) & (chunk < dense[at] + width)])
    inside = np.sort(np.concatenate(kept))
    starts, widths = [], []
    pending = [(int(start), width) for start in dense]
    while pending:
        start, size = pending.pop()
        first, last = np.searchsorted(inside, (start, start + size))
        if first == last:
            continue
        if last - first <= rows_per_tile or inside[first] == inside[last - 1]:
            starts.append(start)
            widths.append(size)
        else:
            quarter = size // 4
            pending.extend((start + i * quarter, quarter) for i in range(4))
    start_array = np.array(starts, np.int64)
    return Tiles(start_array, start_array + np.array(widths, np.int64))


def director_buckets(cells: Int64Array, tiles: Tiles, bucket_rows: int) -> Int64Array:
    """Return where buckets begin that hold whole tiles and about `bucket_rows` rows each; cells off the sky come last."""
    rows = np.zeros(len(tiles), np.int64)
    for chunk in _chunks(cells):
        np.add.at(rows, np.searchsorted(tiles.start, _on_sky(chunk), "right") - 1, 1)
    starts, held = [0], 0
    for start, count in zip(tiles.start.tolist(), rows.tolist(), strict=True):
        if held and held + count > bucket_rows:
            starts.append(start)
            held = 0
        held += count
    return distinct([*starts, *_quantiles(cells, LINE_END, BEYOND_END, bucket_rows)])


def child_buckets(cells: Int64Array, bucket_rows: int) -> Int64Array:
    """Return where buckets begin that cut no cell and hold about `bucket_rows` rows each; cells off the sky come last."""
    return distinct([*_quantiles(cells, 0, LINE_END, bucket_rows), *_quantiles(cells, LINE_END, BEYOND_END, bucket_rows)])


def _quantiles(cells: Int64Array, start: int, stop: int, bucket_rows: int) -> list[int]:
    """Return `start` and such cells that about `bucket_rows` rows of [start, stop) lie between neighbours, from a strided
    sample."""
    step = max(1, len(cells) // _SAMPLE)
    sample = np.asarray(cells[::step])
    sample = np.sort(sample[(sample >= start) & (sample < stop)])
    pieces = -(-len(sample) * step // bucket_rows)
    marks = (np.arange(1, pieces) * len(sample)) // max(pieces, 1)
    return [start, *sample[marks].tolist()]


def cuts(cells: Int64Array, targets: Targets, bucket: tuple[int, int], max_rows: int) -> list[Cut]:
    """Return the parts of a bucket: the sorted `cells` of its rows, cut at targets and, where there are too many, inside them.

    The range of a part is its target's, less what neighbouring parts take; parts of a bucket that begins inside a target begin
    there. Parts of a fixed target have its whole range.
    """
    lowest, highest = bucket
    found = []
    first = np.searchsorted(cells, targets.start)
    last = np.searchsorted(cells, targets.stop)
    for i in np.flatnonzero(first < last):
        borders = _cell_borders(cells[first[i] : last[i]], max_rows) + first[i]
        rows = [int(first[i]), *borders.tolist(), int(last[i])]
        start, stop = int(targets.start[i]), int(targets.stop[i])
        if targets.is_fixed[i]:
            found += [Cut(*edges, start, stop) for edges in itertools.pairwise(rows)]
            continue
        line = [max(start, lowest), *cells[borders].tolist(), min(stop, highest)]
        found += [Cut(*edges) for edges in zip(rows[:-1], rows[1:], line[:-1], line[1:], strict=True)]
    return found


def snapped(bucket_start: Int64Array, targets: Targets) -> Int64Array:
    """Return where buckets begin so that they cut no fixed target."""
    at = targets.at(bucket_start)
    inside = (at >= 0) & targets.is_fixed[np.maximum(at, 0)]
    return distinct(np.where(inside, targets.start[np.maximum(at, 0)], bucket_start))


def _cell_borders(cells: Int64Array, max_rows: int) -> Int64Array:
    """Return inner positions at which sorted cells can be cut so that no piece exceeds `max_rows`, if cells allow it."""
    borders = []
    first = 0
    while len(cells) - first > max_rows:
        pieces = -(-(len(cells) - first) // max_rows)
        target = first + -(-(len(cells) - first) // pieces)
        cut = int(np.searchsorted(cells, cells[target], "left"))
        if cut <= first:
            cut = int(np.searchsorted(cells, cells[target], "right"))
        if cut >= len(cells):
            break
        borders.append(cut)
        first = cut
    return np.array(borders, np.int64)


def _chunks(cells: Int64Array) -> Iterator[Int64Array]:
    for first in range(0, len(cells), _CHUNK):
        yield np.asarray(cells[first : first + _CHUNK])


def _on_sky(cells: Int64Array) -> Int64Array:
    inside: Int64Array = cells[(cells >= 0) & (cells < LINE_END)]
    return inside
