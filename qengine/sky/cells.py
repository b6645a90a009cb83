"""The line: cells of HEALPix order 29 in NESTED numbering, ranges of them, and sets of ranges.

A cell is an integer. Cells 0 <= c < 12 * 4^29 tile the sky; cells from there to 13 * 4^29 lie *beyond the sky* and hold rows
without a position, spread by a hash of their key. A tile (order, index) is the range [index * 4^(29 - order), (index + 1) *
4^(29 - order)). Everything here is integer arithmetic on sorted int64 arrays; nothing knows a HEALPix library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import ArrayLike, NDArray

from qengine.errors import InputError

Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Float64Array = NDArray[np.float64]

ORDER = 29
LINE_END = 12 * 4**ORDER
BEYOND_END = 13 * 4**ORDER


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A HEALPix pixel of any order, NESTED."""

    order: int
    index: int

    @property
    def range(self) -> tuple[int, int]:
        """The half-open range of cells."""
        shift = 2 * (ORDER - self.order)
        return self.index << shift, (self.index + 1) << shift

    def parent(self, order: int) -> Tile:
        """Return the tile of a lower order that holds this one."""
        return Tile(order, self.index >> (2 * (self.order - order)))

    def children(self) -> tuple[Tile, ...]:
        """Return the four tiles of the next order."""
        return tuple(Tile(self.order + 1, 4 * self.index + i) for i in range(4))


@dataclass(frozen=True, slots=True, eq=False)
class RangeSet:
    """A set of cells as half-open ranges.

    `starts` and `stops` are sorted, disjoint and do not touch. Make one with the class methods.
    """

    starts: Int64Array
    stops: Int64Array

    @classmethod
    def empty(cls) -> RangeSet:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def sky(cls) -> RangeSet:
        """All cells on the sky."""
        return cls(np.array([0], np.int64), np.array([LINE_END], np.int64))

    @classmethod
    def whole(cls) -> RangeSet:
        """The whole line: the sky and beyond."""
        return cls(np.array([0], np.int64), np.array([BEYOND_END], np.int64))

    @classmethod
    def from_ranges(cls, starts: ArrayLike, stops: ArrayLike) -> RangeSet:
        """Make a set of any ranges: unsorted, overlapping, empty ones allowed. Both arrays have shape (n,)."""
        first, last = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
        solid = first < last
        first, last = first[solid], last[solid]
        if not len(first):
            return cls.empty()
        order = np.argsort(first, kind="stable")
        first, reach = first[order], np.maximum.accumulate(last[order])
        begins = np.r_[True, first[1:] > reach[:-1]]
        ends = np.r_[begins[1:], True]
        return cls(first[begins], reach[ends])

    @classmethod
    def from_tiles(cls, orders: ArrayLike, indexes: ArrayLike) -> RangeSet:
        """Make the set of the cells of tiles; arrays of shape (n,), or one order for all."""
        index = np.asarray(indexes, np.int64)
        shift = 2 * (ORDER - np.broadcast_to(np.asarray(orders, np.int64), index.shape))
        return cls.from_ranges(index << shift, (index + 1) << shift)

    def __len__(self) -> int:
        return len(self.starts)

    def __bool__(self) -> bool:
        return len(self.starts) > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.stops, other.stops)

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def __or__(self, other: RangeSet) -> RangeSet:
        return RangeSet.from_ranges(np.concatenate([self.starts, other.starts]), np.concatenate([self.stops, other.stops]))

    def __and__(self, other: RangeSet) -> RangeSet:
        first = np.searchsorted(other.stops, self.starts, side="right")
        count = np.maximum(np.searchsorted(other.starts, self.stops, side="left") - first, 0)
        mine = np.repeat(np.arange(len(self)), count)
        theirs = np.repeat(first - np.r_[0, np.cumsum(count)[:-1]], count) + np.arange(int(count.sum()))
        return RangeSet(np.maximum(self.starts[mine], other.starts[theirs]), np.minimum(self.stops[mine], other.stops[theirs]))

    def __invert__(self) -> RangeSet:
        return RangeSet.from_ranges(np.r_[0, self.stops], np.r_[self.starts, BEYOND_END])

    def __sub__(self, other: RangeSet) -> RangeSet:
        return self & ~other

    @property
    def cells(self) -> int:
        """How many cells are in the set."""
        return int((self.stops - self.starts).sum())

    def contains(self, cells: ArrayLike) -> BoolArray:
        """Say for each cell whether it is in the set; shape (n,)."""
        wanted = np.asarray(cells, np.int64)
        if not len(self):
            return np.zeros(wanted.shape, bool)
        place = np.searchsorted(self.starts, wanted, side="right") - 1
        return np.asarray((place >= 0) & (wanted < self.stops[np.maximum(place, 0)]))

    def overlaps(self, starts: ArrayLike, stops: ArrayLike) -> BoolArray:
        """Say for each half-open range whether it shares a cell with the set; shape (n,). Empty ranges share nothing."""
        first, last = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
        before = np.searchsorted(self.stops, first, side="right")
        after = np.searchsorted(self.starts, last, side="left")
        return np.asarray((before < after) & (first < last))

    def coarsen(self, max_ranges: int, rows_before: Callable[[Int64Array], Float64Array] | None = None) -> RangeSet:
        """Return a superset of at most `max_ranges` (one or more) ranges: the smallest gaps are closed.

        `rows_before` says how many rows lie before cells, about; then those with the fewest rows are the smallest.
        """
        if len(self) <= max_ranges:
            return self
        gaps: NDArray[Any] = self.starts[1:] - self.stops[:-1]
        if rows_before is not None:
            # Of gaps with equally many rows the shorter.
            gaps = rows_before(self.starts[1:]) - rows_before(self.stops[:-1]) + gaps / float(1 << 62)
        kept = np.empty(0, np.int64)
        if max_ranges > 1:
            place = len(gaps) - (max_ranges - 1)
            kept = np.sort(np.argpartition(gaps, place)[place:])
        return RangeSet(self.starts[np.r_[0, kept + 1]], self.stops[np.r_[kept, len(self) - 1]])

    def to_tiles(self) -> tuple[Int64Array, Int64Array]:
        """Return (orders, indexes) of the fewest tiles that make up the set. Cells beyond the sky count as a 13th base tile."""
        orders: list[Int64Array] = []
        indexes: list[Int64Array] = []
        starts, stops = self.starts, self.stops
        for order in range(ORDER + 1):
            shift = 2 * (ORDER - order)
            first = -((-starts) >> shift)
            last = stops >> shift
            whole = first < last
            count = np.where(whole, last - first, 0)
            if count.any():
                found = np.repeat(first - np.r_[0, np.cumsum(count)[:-1]], count) + np.arange(int(count.sum()))
                indexes.append(found)
                orders.append(np.full(len(found), order, np.int64))
            left = np.where(whole, first << shift, stops)
            right = np.where(whole, last << shift, stops)
            starts, stops = np.concatenate([starts, right]), np.concatenate([left, stops])
            solid = starts < stops
            starts, stops = starts[solid], stops[solid]
            if not len(starts):
                break
        if not orders:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        all_orders, all_indexes = np.concatenate(orders), np.concatenate(indexes)
        along = np.argsort(all_indexes << (2 * (ORDER - all_orders)))
        return all_orders[along], all_indexes[along]

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges as plain integers."""
        return tuple(zip(self.starts.tolist(), self.stops.tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.pairs())


def distinct(values: ArrayLike) -> Int64Array:
    """Return the different values, sorted.

    `numpy.unique` looks integers up in a hash table since release 2.3, which takes seconds for a million of them, where sorting
    takes hundredths.
    """
    found = np.sort(np.asarray(values, np.int64), axis=None)
    return found[np.concatenate([[True], found[1:] != found[:-1]])] if len(found) else found


def overlay(*tilings: tuple[Int64Array, Int64Array]) -> tuple[Int64Array, Int64Array]:
    """Return the common refinement of tilings, each a pair (starts, stops) of sorted disjoint ranges: the pieces that no
    border cuts and that every tiling covers."""
    borders = distinct(np.concatenate([array for tiling in tilings for array in tiling]))
    starts, stops = borders[:-1], borders[1:]
    for first, last in tilings:
        place = np.searchsorted(first, starts, side="right") - 1
        inside = (place >= 0) & (stops <= last[np.maximum(place, 0)]) if len(first) else np.zeros(len(starts), bool)
        starts, stops = starts[inside], stops[inside]
    return starts, stops


def beyond_cell(keys: Any) -> Int64Array:
    """Return the cells beyond the sky of keys: LINE_END + hash(key) mod 4^29.

    `keys` is a numpy or Arrow array of integers or text; NULLs share one cell. The hash is splitmix64 (Steele, Lea & Flood
    2014) of integers and xxh3 of UTF-8 text, the same in every process and version. Raise `InputError` for keys of other types.
    """
    array = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys if isinstance(keys, pa.Array) else pa.array(keys)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return np.full(len(array), LINE_END, np.int64)
    if pa.types.is_integer(array.type):
        present = array.is_valid().to_numpy(zero_copy_only=False)
        values = array.fill_null(0).to_numpy(zero_copy_only=False)
        hashed = _splitmix(values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64))
    else:
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)):
            raise InputError(f"a value of type {array.type} is no key", hint="keys are integers or text")
        present = array.is_valid().to_numpy(zero_copy_only=False)
        texts = array.cast(pa.large_string()).to_pylist()
        hashed = np.array([0 if t is None else xxhash.xxh3_64_intdigest(t.encode()) for t in texts], np.uint64)
    cells = (hashed % np.uint64(4**ORDER)).astype(np.int64)
    return np.asarray(LINE_END + np.where(present, cells, 0))


def _splitmix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
