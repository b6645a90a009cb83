"""Interval algebra against Python sets; the hash of keys against its definition."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.errors import InputError
from qengine.sky.cells import BEYOND_END, LINE_END, ORDER, RangeSet, Tile, beyond_cell, distinct, overlay

SIZE = 80
RANGES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(-2, 12)), max_size=12).map(
    lambda r: [(a, min(a + w, SIZE)) for a, w in r]
)


def make(ranges: list[tuple[int, int]]) -> RangeSet:
    return RangeSet.from_ranges([a for a, _ in ranges], [b for _, b in ranges])


def cells(ranges: RangeSet | list[tuple[int, int]]) -> set[int]:
    return {c for a, b in ranges for c in range(a, b)}


def assert_normal(found: RangeSet) -> None:
    assert found.starts.dtype == found.stops.dtype == np.int64
    assert (found.starts < found.stops).all()
    assert (found.stops[:-1] < found.starts[1:]).all()


@settings(deadline=None)
@given(RANGES, RANGES)
def test_algebra_is_that_of_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    a, b = make(one), make(two)
    for found, expected in (
        (a, cells(one)),
        (a | b, cells(one) | cells(two)),
        (a & b, cells(one) & cells(two)),
        (a - b, cells(one) - cells(two)),
    ):
        assert_normal(found)
        assert cells(found) == expected
        assert found.cells == len(expected)
        assert bool(found) == bool(expected)
    assert (a == b) == (cells(one) == cells(two))


@settings(deadline=None)
@given(RANGES)
def test_complement_is_within_the_whole_line(one: list[tuple[int, int]]) -> None:
    a = make(one)
    assert_normal(~a)
    assert ~~a == a
    assert a | ~a == RangeSet.whole()
    assert not a & ~a


def test_named_sets() -> None:
    assert RangeSet.sky().pairs() == ((0, 12 * 4**29),)
    assert RangeSet.whole().pairs() == ((0, 13 * 4**29),)
    assert ~RangeSet.whole() == RangeSet.empty()
    assert (RangeSet.whole() - RangeSet.sky()).pairs() == ((LINE_END, BEYOND_END),)
    assert RangeSet.whole().cells == BEYOND_END
    assert len(RangeSet.empty()) == 0
    assert RangeSet.empty() != "nothing"


@settings(deadline=None)
@given(RANGES, RANGES)
def test_contains_and_overlaps(one: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    a = make(one)
    assert a.contains(np.arange(-1, SIZE + 2)).tolist() == [c in cells(one) for c in range(-1, SIZE + 2)]
    found = a.overlaps([start for start, _ in asked], [stop for _, stop in asked])
    assert found.tolist() == [bool(cells([r]) & cells(one)) for r in asked]


@settings(deadline=None)
@given(RANGES, st.integers(1, 6))
def test_coarsen_closes_the_smallest_gaps(one: list[tuple[int, int]], most: int) -> None:
    a = make(one)
    found = a.coarsen(most)
    assert_normal(found)
    assert len(found) <= most
    assert not a - found
    gaps = sorted(s - e for (_, e), (s, _) in itertools.pairwise(a.pairs()))
    assert found.cells - a.cells == sum(gaps[: max(0, len(a) - most)])


def test_coarsen_closes_the_gaps_with_the_fewest_rows() -> None:
    a = make([(0, 1), (2, 3), (12, 13), (15, 16)])
    assert a.coarsen(2, lambda cells: np.interp(cells, [0, 2, 12, 20], [0, 50, 51, 99])).pairs() == ((0, 1), (2, 16))
    assert a.coarsen(2, lambda cells: np.zeros(len(cells))) == a.coarsen(2)


@settings(deadline=None)
@given(RANGES, st.integers(0, 3))
def test_tiles_of_a_set_are_the_fewest(one: list[tuple[int, int]], order: int) -> None:
    shift = 2 * (ORDER - order - 3)
    a = RangeSet.from_ranges(make(one).starts << shift, make(one).stops << shift) & RangeSet.whole()
    orders, indexes = a.to_tiles()
    assert RangeSet.from_tiles(orders, indexes) == a
    tiles = [Tile(o, i) for o, i in zip(orders.tolist(), indexes.tolist(), strict=True)]
    assert sum(stop - start for start, stop in (t.range for t in tiles)) == a.cells
    assert [t.range for t in tiles] == sorted(t.range for t in tiles)
    parents = [t.parent(t.order - 1) for t in tiles if t.order > 0]
    assert all(parents.count(p) < 4 for p in parents)


def test_tiles_of_single_cells_and_of_the_whole() -> None:
    orders, indexes = RangeSet.from_ranges([5, LINE_END], [6, BEYOND_END]).to_tiles()
    assert list(zip(orders.tolist(), indexes.tolist(), strict=True)) == [(29, 5), (0, 12)]
    assert [len(array) for array in RangeSet.empty().to_tiles()] == [0, 0]


@settings(deadline=None)
@given(st.integers(0, 29), st.data())
def test_tile_family(order: int, data: st.DataObject) -> None:
    tile = Tile(order, data.draw(st.integers(0, 12 * 4**order - 1)))
    start, stop = tile.range
    assert stop - start == 4 ** (29 - order)
    up = data.draw(st.integers(0, order))
    first, last = tile.parent(up).range
    assert first <= start
    assert stop <= last
    if order < 29:
        children = tile.children()
        assert [c.range for c in children] == [
            (start + i * 4 ** (28 - order), start + (i + 1) * 4 ** (28 - order)) for i in range(4)
        ]
        assert {c.parent(order) for c in children} == {tile}


@settings(deadline=None)
@given(st.lists(RANGES, min_size=1, max_size=3))
def test_overlay_cuts_at_every_border_and_keeps_what_all_cover(many: list[list[tuple[int, int]]]) -> None:
    tilings = []
    for one in many:  # adjacent tiles: the borders of the drawn ranges cut the cells that they cover
        borders = sorted({b for r in one if r[0] < r[1] for b in r})
        tilings.append([(a, b) for a, b in itertools.pairwise(borders) if a in cells(one)])
    starts, stops = overlay(*((np.array([a for a, _ in t], np.int64), np.array([b for _, b in t], np.int64)) for t in tilings))
    pieces = list(zip(starts.tolist(), stops.tolist(), strict=True))
    assert cells(pieces) == set.intersection(*(cells(t) for t in tilings))
    assert all(a < b for a, b in pieces)
    assert pieces == sorted(pieces)
    assert sum(b - a for a, b in pieces) == len(cells(pieces))
    for tiling in tilings:
        assert all(any(a <= c and d <= b for a, b in tiling) for c, d in pieces)
    borders = {b for t in tilings for r in t for b in r}
    assert all({a, b} <= borders and not any(a < cut < b for cut in borders) for a, b in pieces)


def test_a_million_ranges_are_matched() -> None:
    rng = np.random.default_rng(1)
    borders = np.sort(rng.integers(0, LINE_END, 1_000_001))
    few = RangeSet.from_ranges(rng.integers(0, LINE_END, 500), rng.integers(0, LINE_END, 500))
    narrow = RangeSet.from_ranges(few.starts, few.starts + 10**9)
    found = np.flatnonzero(narrow.overlaps(borders[:-1], borders[1:]))
    expected = [i for a, b in narrow for i in range(np.searchsorted(borders, a, "right") - 1, np.searchsorted(borders, b, "left"))]
    assert found.tolist() == sorted({i for i in expected if 0 <= i < 1_000_000})


def splitmix64(seed: int) -> int:
    """First output of the reference generator, on Python integers."""
    mask = 2**64 - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integer_keys_go_where_splitmix64_says(keys: list[int]) -> None:
    expected = [LINE_END + splitmix64(k % 2**64) % 4**29 for k in keys]
    assert beyond_cell(np.array(keys, np.int64)).tolist() == expected
    assert beyond_cell(pa.array(keys, pa.int64())).tolist() == expected
    assert beyond_cell(pa.chunked_array([pa.array(keys[:3], pa.int64()), pa.array(keys[3:], pa.int64())])).tolist() == expected


PINNED_INTEGERS = [3612071865983290799, 3533687351559740609, 3519969340141415456]
PINNED_TEXTS = [3532651717635314882, 3716606589431516339]


def test_the_hash_is_for_ever() -> None:
    """Published parts rest on these numbers."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert beyond_cell(np.array([0, 1, -1])).tolist() == [
        LINE_END + (h % 4**29) for h in (splitmix64(0), splitmix64(1), splitmix64(2**64 - 1))
    ]
    assert beyond_cell(np.array([0, 1, -1])).tolist() == PINNED_INTEGERS
    assert beyond_cell(["", "é"]).tolist() == PINNED_TEXTS
    assert beyond_cell(["", "é"]).tolist() == [LINE_END + xxhash.xxh3_64_intdigest(t.encode()) % 4**29 for t in ("", "é")]
    assert xxhash.xxh3_64_intdigest(b"") == 0x2D06800538D394C2


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()])
def test_the_width_of_an_integer_does_not_matter(kind: pa.DataType) -> None:
    assert beyond_cell(pa.array([7, 100], kind)).tolist() == beyond_cell(np.array([7, 100])).tolist()
    assert beyond_cell(pa.array([], kind)).tolist() == []


def test_negative_keys_of_any_width_and_large_unsigned_ones() -> None:
    assert beyond_cell(pa.array([-5], pa.int16())).tolist() == beyond_cell(pa.array([-5], pa.int64())).tolist()
    assert beyond_cell(pa.array([2**64 - 1], pa.uint64())).tolist() == [LINE_END + splitmix64(2**64 - 1) % 4**29]


def test_text_keys_of_any_container() -> None:
    words = ["a", None, "ß", "a"]
    expected = beyond_cell(pa.array(words)).tolist()
    assert expected[1] == LINE_END
    assert expected[0] == expected[3] == LINE_END + xxhash.xxh3_64_intdigest(b"a") % 4**29
    for same in (
        pa.array(words, pa.large_string()),
        pa.array(words).dictionary_encode(),
        np.array(words, object),
        pa.chunked_array([words[:1], words[1:]]),
    ):
        assert beyond_cell(same).tolist() == expected


def test_null_keys_share_one_cell() -> None:
    assert beyond_cell(pa.array([None, 3, None], pa.int64())).tolist()[::2] == [LINE_END, LINE_END]
    assert beyond_cell(pa.nulls(2)).tolist() == [LINE_END, LINE_END]
    assert beyond_cell(pa.array([None, "x"])).tolist()[0] == LINE_END


@pytest.mark.parametrize(
    "keys",
    [np.array([1.0, np.nan]), pa.array([1.0, None]), pa.array([True]), pa.array([b"a"])],
    ids=["nan", "float", "bool", "bytes"],
)
def test_what_is_no_key_is_refused(keys: object) -> None:
    """A float 1.0 would not meet the integer 1: integers with NULLs must not come through pandas as floats."""
    with pytest.raises(InputError, match="is no key"):
        beyond_cell(keys)


def test_cells_of_keys_are_spread_beyond_the_sky() -> None:
    found = beyond_cell(np.arange(100_000))
    assert found.min() >= LINE_END
    assert found.max() < BEYOND_END
    counts = np.bincount((found - LINE_END) >> (2 * 26), minlength=64)
    assert np.abs(counts - 100_000 / 64).max() < 6 * np.sqrt(100_000 / 64)


def test_other_processes_agree() -> None:
    code = "from qengine.sky.cells import beyond_cell; print(beyond_cell([42]).tolist(), beyond_cell(['42']).tolist())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert found.stdout.strip() == f"{beyond_cell([42]).tolist()} {beyond_cell(['42']).tolist()}"


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_distinct_values_are_sorted_and_each_once(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))
