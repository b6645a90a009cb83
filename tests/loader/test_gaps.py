"""New tiles between ranges that exist."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qengine.loader.gaps import gap_tiles, leaf_tiles
from qengine.loader.partition import Targets, Tiles
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER

Ranges = list[tuple[int, int]]
CELLS = st.lists(st.one_of(st.integers(0, LINE_END - 1), st.integers(0, 300), st.integers(4**20, 4**20 + 50)), max_size=60)
TILES = st.lists(st.tuples(st.integers(0, ORDER), st.integers(0, LINE_END - 1)), max_size=12)


def disjoint(given_tiles: Ranges) -> Ranges:
    """Tiles of (order, cell) without those that touch a larger one."""
    kept: Ranges = []
    for order, cell in sorted(given_tiles):
        size = 4 ** (ORDER - order)
        start = cell // size * size
        if all(start + size <= a or b <= start for a, b in kept):
            kept.append((start, start + size))
    return sorted(kept)


def tiles(ranges: Ranges) -> Tiles:
    return Tiles(np.array([a for a, _ in ranges], np.int64), np.array([b for _, b in ranges], np.int64))


@given(CELLS, TILES, st.integers(1, 20))
def test_every_cell_has_one_tile_that_touches_nothing(found: list[int], existing: Ranges, limit: int) -> None:
    taken = tiles(disjoint(existing))
    outside = np.array(sorted(c for c in found if not ((taken.start <= c) & (c < taken.stop)).any()), np.int64)
    made = gap_tiles(outside, taken, limit)
    targets = Targets.of(taken, made)
    assert (targets.start[1:] >= targets.stop[:-1]).all()
    assert targets.stop[-1] == BEYOND_END
    at = targets.at(outside)
    assert (at >= 0).all()
    assert not targets.is_fixed[at].any()
    assert ((made.start % (made.stop - made.start)) == 0).all()
    for start, stop in zip(made.start, made.stop, strict=True):
        inside = outside[(outside >= start) & (outside < stop)]
        assert len(inside)
        assert len(inside) <= limit or len(set(inside.tolist())) == 1
    assert (targets.at(np.array([LINE_END, BEYOND_END - 1])) >= 0).all()


@given(TILES.filter(bool))
def test_leaves_hold_every_range(existing: Ranges) -> None:
    cut = [piece for a, b in disjoint(existing) for piece in ([(a, b)] if b - a < 4 else [(a, a + 1), (a + 1, b)])]
    start, stop = (np.array([r[side] for r in cut], np.int64) for side in (0, 1))
    leaves = leaf_tiles(start, stop)
    assert (leaves.start[1:] >= leaves.stop[:-1]).all()
    at = np.searchsorted(leaves.start, start, "right") - 1
    assert (leaves.stop[at] >= stop).all()
    assert (leaves.start % (leaves.stop - leaves.start) == 0).all()
