"""Tiles, buckets and cuts, for any distribution of rows."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.model import Int64Array
from qengine.loader.partition import Targets, child_buckets, cuts, director_buckets, tiles_of
from qengine.sky.cells import BEYOND_END, LINE_END


@st.composite
def clustered_cells(draw: st.DrawFn) -> Int64Array:
    """Cells with clusters of every width, rows in one cell, orphans and rows in quarantine."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pieces = [np.array(draw(st.lists(st.sampled_from([0, 1, LINE_END - 1, 4**29, 4**29 - 1, -1, -2]), max_size=5)), np.int64)]
    for _ in range(draw(st.integers(0, 5))):
        center = draw(st.integers(0, LINE_END - 1))
        width = 2 ** draw(st.integers(0, 58))
        low, high = max(0, center - width), min(LINE_END, center + width)
        pieces.append(rng.integers(low, high, draw(st.integers(1, 200))))
    pieces.append(rng.integers(LINE_END, BEYOND_END, draw(st.integers(0, 30))))
    return rng.permutation(np.concatenate(pieces))


@given(clustered_cells(), st.integers(1, 40))
def test_tiles_hold_every_row_and_no_more_than_wanted(cells: Int64Array, rows_per_tile: int) -> None:
    tiles = tiles_of(cells, rows_per_tile)
    on_sky = np.sort(cells[(cells >= 0) & (cells < LINE_END)])
    assert (tiles.start[1:] >= tiles.stop[:-1]).all()
    first, last = np.searchsorted(on_sky, tiles.start), np.searchsorted(on_sky, tiles.stop)
    rows = last - first
    assert rows.sum() == len(on_sky)
    assert (rows > 0).all()
    widths = 4 ** (29 - tiles.orders)
    assert np.array_equal(tiles.stop - tiles.start, widths)
    assert np.array_equal(tiles.indexes * widths, tiles.start)
    for a, b in zip(first[rows > rows_per_tile].tolist(), last[rows > rows_per_tile].tolist(), strict=True):
        assert on_sky[a] == on_sky[b - 1]


@given(clustered_cells(), st.integers(1, 40))
def test_tiles_are_as_large_as_they_can_be(cells: Int64Array, rows_per_tile: int) -> None:
    tiles = tiles_of(cells, rows_per_tile)
    on_sky = np.sort(cells[(cells >= 0) & (cells < LINE_END)])
    for order, index in zip(tiles.orders.tolist(), tiles.indexes.tolist(), strict=True):
        if order:
            width = 4 ** (30 - order)
            parent = (index >> 2) * width
            inside = np.searchsorted(on_sky, (parent, parent + width))
            assert inside[1] - inside[0] > rows_per_tile


@given(clustered_cells(), st.integers(1, 40), st.integers(1, 200), st.booleans())
def test_parts_hold_every_row_once_and_never_part_a_cell(
    cells: Int64Array, rows_per_part: int, bucket_rows: int, is_child: bool
) -> None:
    tiles = tiles_of(cells, 30)
    starts = child_buckets(cells, bucket_rows) if is_child else director_buckets(cells, tiles, bucket_rows)
    assert starts[0] == 0
    assert LINE_END in starts
    stored = np.sort(cells[cells >= 0])
    bucket = np.searchsorted(starts, stored, "right") - 1
    found: list[tuple[int, int]] = []
    rows = 0
    for number in np.unique(bucket):
        mine = stored[bucket == number]
        bounds = (int(starts[number]), int(starts[number + 1]) if number + 1 < len(starts) else BEYOND_END)
        for cut in cuts(mine, Targets.new(tiles), bounds, rows_per_part):
            part = mine[cut.first : cut.last]
            rows += len(part)
            assert cut.start <= part[0]
            assert part[-1] < cut.stop
            assert len(part) <= rows_per_part or part[0] == part[-1] or _is_uncuttable(part, rows_per_part)
            found.append((cut.start, cut.stop))
            if cut.start < LINE_END:
                at = np.searchsorted(tiles.start, cut.start, "right") - 1
                assert tiles.start[at] <= cut.start
                assert cut.stop <= tiles.stop[at]
    assert rows == len(stored)
    found.sort()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(found))


def _is_uncuttable(part: Int64Array, rows_per_part: int) -> bool:
    """A part may be too large only where one cell alone nearly fills it."""
    _, counts = np.unique(part, return_counts=True)
    return bool(counts.max() > rows_per_part / 2)
