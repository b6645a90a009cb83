"""Which part of the line can a leaf's owner have rows on? Interval arithmetic over what the statement and the snapshot say.

Everything here over-covers: a cell that is left out holds no row that the leaf could put out, a cell that stays may hold none. The
leaf's predicates decide, pruning only saves reading.

* A region on a relation whose position is its place on the line: the coverage of the region, dilated by the distance between that
  relation and the owner.
* Keys, once looked up: their cells (a key that the index does not know has its cell beyond the sky), with a ring when the owner
  is only near.
* Value ranges and the boxes of regions on own positions: parts whose statistics exclude them, for the owner and for relations in
  the same cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from qengine.catalog.model import Int64Array, Parts, TableSnapshot
from qengine.plan.cut import Leaf, Restriction
from qengine.plan.logical import KeyFact, Lookup, PlaceFact, RangeFact, RegionFact
from qengine.plan.regions import intersection, needs_position
from qengine.sky.cells import RangeSet
from qengine.sky.coverage import coverage, ring

MAX_CELLS = 256
"""Budget of ranges for one coverage; more would prune little and cost planning time."""

Resolved = Mapping[Lookup, Int64Array]
"""Cells of looked-up keys, in the order of the lookup's values."""


def lookups(leaf: Leaf) -> tuple[Lookup, ...]:
    """Return the key lookups that would narrow the leaf."""
    return tuple(dict.fromkeys(found for r in leaf.restrictions if (found := _lookup(leaf, r)) is not None))


def work_of(leaf: Leaf, resolved: Resolved) -> RangeSet:
    """Return the ranges on which the owner's rows have to be read; the whole line, beyond the sky included, if nothing is known."""
    work = RangeSet.whole()
    for distance in sorted({r.distance_deg for r in leaf.restrictions}):
        near = [r for r in leaf.restrictions if r.distance_deg == distance]
        regions = [r.fact.region for r in near if isinstance(r.fact, RegionFact) and r.fact.is_on_line]
        if (region := intersection(regions)) is not None:
            found = coverage(region, dilate_deg=distance, max_cells=MAX_CELLS)
            work = work & (found if needs_position(region) else found | (RangeSet.whole() - RangeSet.sky()))
        for restriction in near:
            if isinstance(restriction.fact, PlaceFact):
                places = restriction.fact.cells
                work = work & (places | ring(places, distance) if distance > 0 else places)
            if (lookup := _lookup(leaf, restriction)) is not None and lookup in resolved:
                cells = np.unique(resolved[lookup])
                found = RangeSet.from_ranges(cells, cells + 1)
                work = work & (found | ring(found & RangeSet.sky(), distance) if distance > 0 else found)
    for restriction in leaf.restrictions:
        fact = restriction.fact
        if (
            isinstance(fact, RangeFact)
            and restriction.distance_deg == 0
            and (table := _table(leaf, fact.base or fact.alias)) is not None
        ):
            work = _narrow_by_statistics(work, table, fact)
    return work


def _table(leaf: Leaf, alias: str) -> TableSnapshot | None:
    return leaf.block.table_of(alias)


def _lookup(leaf: Leaf, restriction: Restriction) -> Lookup | None:
    fact = restriction.fact
    if not isinstance(fact, KeyFact):
        return None
    schema, _, director = fact.family.partition(".")
    return Lookup(schema=schema, table=director, values=fact.values)


def _narrow_by_statistics(work: RangeSet, table: TableSnapshot, fact: RangeFact) -> RangeSet:
    """Take out the parts (home and orphan) that cannot hold a value of the range. Parts of one table never share a cell."""
    if not table.table.is_sharded or not table.table.line_column:
        return work
    for parts in (table.home, table.orphan):
        excluded = excluded_parts(parts, fact)
        if excluded.any():
            keep = ~excluded
            kept = RangeSet.from_ranges(parts.start[keep], parts.stop[keep])
            gone = RangeSet.from_ranges(parts.start[excluded], parts.stop[excluded])
            work = work - (gone - kept)
    return work


def excluded_parts(parts: Parts, fact: RangeFact) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say for every part whether its statistics show that no row fulfils the range (NULLs never do)."""
    stats = parts.stats.get(fact.column)
    if stats is None or stats.minimum.dtype == object:
        return np.zeros(len(parts), bool)
    low = -math.inf if math.isnan(fact.low) else fact.low
    high = math.inf if math.isnan(fact.high) else fact.high
    outside = np.greater(stats.minimum, high) | np.less(stats.maximum, low)
    return np.asarray(stats.is_known & outside)
