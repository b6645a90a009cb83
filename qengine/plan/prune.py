"""Which part of the line can a leaf's owner have rows on? Interval arithmetic over what the statement and the snapshot say.

Everything here over-covers: a cell that is left out holds no row that the leaf could put out, a cell that stays may hold none. The
leaf's predicates decide, pruning only saves reading.

* A region on a relation whose position is its place on the line: the coverage of the region, dilated by the distance between that
  relation and the owner.
* Keys, once looked up: their cells (a key that the index does not know has its cell beyond the sky), with a ring when the owner
  is only near.
* What terms say about values (`plan.values`), and the boxes of regions on own positions: parts whose statistics exclude them. The
  owner can have no row there, nor a relation in the same cell; one within a distance only near the parts that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from qengine.catalog.model import Int64Array, Parts, Table
from qengine.plan.cut import Leaf, Restriction
from qengine.plan.logical import KeyFact, Lookup, PlaceFact, RangeFact, RegionFact, ValueFact
from qengine.plan.regions import intersection, needs_position
from qengine.plan.values import AllOf, AnyOf, Around, Test, Within, may_hold
from qengine.sky.cells import RangeSet, distinct
from qengine.sky.coverage import coverage, ring
from qengine.sky.region import Circle, Intersection, Polygon, RaDecBox, Region, Union

MAX_CELLS = 256
"""Budget of ranges for one coverage; more would prune little and cost planning time."""

_PAD_DEG = 1e-6
_HEMISPHERE_DEG = 89.9
_LEAST_LENGTH = 1e-6

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
                cells = distinct(resolved[lookup])
                found = RangeSet.from_ranges(cells, cells + 1)
                work = work & (found | ring(found & RangeSet.sky(), distance) if distance > 0 else found)
    return _narrow_by_statistics(work, leaf)


def _lookup(leaf: Leaf, restriction: Restriction) -> Lookup | None:
    fact = restriction.fact
    if not isinstance(fact, KeyFact):
        return None
    schema, _, director = fact.family.partition(".")
    return Lookup(schema=schema, table=director, values=fact.values)


# -- statistics ----------------------------------------------------------------------------------------------


def _narrow_by_statistics(work: RangeSet, leaf: Leaf) -> RangeSet:
    """Take out the parts (home and orphan) of every restricted relation that cannot hold a row that fulfils all that is known."""
    known: dict[tuple[str, float], list[Test]] = {}
    for restriction in leaf.restrictions:
        fact = restriction.fact
        if isinstance(fact, (RangeFact, RegionFact, ValueFact)):
            alias = fact.base or fact.alias
            table = leaf.block.table_of(alias)
            if table is not None and (test := _test_of_fact(fact, table.table)) is not None:
                known.setdefault((alias, restriction.distance_deg), []).append(test)
    for (alias, distance), tests in known.items():
        table = leaf.block.table_of(alias)
        # Parts without a line column can only be left out whole where they are read whole: as the owner's.
        if table is None or not table.table.is_sharded or not (table.table.line_column or alias == leaf.locality.owner):
            continue
        test = AllOf(tuple(tests))
        if distance == 0:
            for parts in (table.home, table.orphan):
                work = work - _without_rows(parts, may_hold(test, parts))
        elif not (keep := may_hold(test, table.home)).all():
            kept = RangeSet.from_ranges(table.home.start[keep], table.home.stop[keep])
            work = work & (kept | ring(kept, distance))
    return work


def _without_rows(parts: Parts, keep: NDArray[np.bool_]) -> RangeSet:
    """Return the ranges of parts that are not kept. Parts of one table never share a cell, but several may have one range."""
    if keep.all():
        return RangeSet.empty()
    kept = RangeSet.from_ranges(parts.start[keep], parts.stop[keep])
    return RangeSet.from_ranges(parts.start[~keep], parts.stop[~keep]) - kept


def _test_of_fact(fact: RangeFact | RegionFact | ValueFact, table: Table) -> Test | None:
    match fact:
        case ValueFact():
            return fact.test
        case RangeFact():
            bounds = [None if math.isnan(bound) else bound for bound in (fact.low, fact.high)]
            return Within(fact.column, bounds[0], bounds[1])
        case RegionFact():
            # The line knows more about a director's position than its bounds do.
            return None if fact.is_on_line or not table.ra else position_test(fact.region, table.ra, table.dec)
        case _:
            assert_never(fact)


def position_test(region: Region, ra: str, dec: str) -> Test | None:
    """Return what the coordinates of a position in the region fulfil; None if nothing is known."""
    match region:
        case Intersection(regions):
            known = tuple(t for r in regions if (t := position_test(r, ra, dec)) is not None)
            return AllOf(known) if known else None
        case Union(regions):
            known = tuple(t for r in regions if (t := position_test(r, ra, dec)) is not None)
            return AnyOf(known) if len(known) == len(regions) else None
        case RaDecBox():
            return Within(dec, region.dec_min - _PAD_DEG, region.dec_max + _PAD_DEG)
        case Circle():
            return _cap_test((region.ra, region.dec), region.radius, ra, dec)
        case Polygon():
            points = [_unit(*vertex) for vertex in region.vertices]
            centre = np.sum(points, axis=0)
            length = float(np.linalg.norm(centre))
            if length < _LEAST_LENGTH:
                return None
            x, y, z = (float(v) for v in centre / length)
            # A cap of less than a hemisphere is convex: it holds the edges between the vertices that it holds.
            radius = max(2 * math.degrees(math.asin(min(1.0, float(np.linalg.norm(p - centre / length)) / 2))) for p in points)
            place = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))
            return _cap_test(place, radius, ra, dec) if radius < _HEMISPHERE_DEG else None
        case _:
            return None


def _unit(ra: float, dec: float) -> NDArray[np.float64]:
    lon, lat = math.radians(ra), math.radians(dec)
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


def _cap_test(centre: tuple[float, float], radius: float, ra: str, dec: str) -> Test:
    reach = radius + _PAD_DEG
    around = Within(dec, centre[1] - reach, centre[1] + reach)
    if abs(centre[1]) + reach >= _HEMISPHERE_DEG:
        return around
    width = math.degrees(math.asin(min(1.0, math.sin(math.radians(reach)) / math.cos(math.radians(centre[1]))))) + _PAD_DEG
    return AllOf((around, Around(ra, centre[0] - width, centre[0] + width)))
