"""Parts are found by the ranges that they meet, each once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.model import NO_PARTS, Parts
from qengine.sky.cells import RangeSet
from tests.unit.catalog.snapshots import parts


def with_ranges(starts: list[int], stops: list[int]) -> Parts:
    found = parts(len(starts)) if starts else NO_PARTS
    return replace(found, start=np.array(starts, np.int64), stop=np.array(stops, np.int64))


@settings(max_examples=300, deadline=None)
@given(
    tiles=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 3)), max_size=40),
    asked=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=8),
)
def test_meeting_finds_every_part_once(tiles: list[tuple[int, int, int]], asked: list[tuple[int, int]]) -> None:
    starts, stops, place = [], [], 0
    for gap, width, files in tiles:  # disjoint ranges, some of them of several files
        place += gap
        starts += [place] * files
        stops += [place + width] * files
        place += width
    ranges = RangeSet.from_ranges([start for start, _ in asked], [start + width for start, width in asked])
    expected = [
        number
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
        if any(start < b and a < stop for a, b in ranges.pairs())
    ]
    assert with_ranges(starts, stops).meeting(ranges).tolist() == expected


def test_two_ranges_in_one_tile_of_two_files() -> None:
    found = with_ranges([0, 0, *range(10, 30)], [10, 10, *range(11, 31)])
    assert found.meeting(RangeSet.from_ranges([1, 5], [2, 6])).tolist() == [0, 1]
