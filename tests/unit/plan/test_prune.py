"""What is left of the line: regions, keys, statistics, and rows beyond the sky. Plans over a million rows that never existed."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pyarrow as pa
import pytest

from qengine.catalog.model import Catalog, ColumnStats
from qengine.plan.prune import lookups, work_of
from qengine.plan.regions import intersection
from qengine.plan.values import Within, may_hold
from qengine.sky.cells import LINE_END, RangeSet, beyond_cell
from qengine.sky.healpix import cells_of
from qengine.sky.region import Circle, Intersection, RaDecBox
from tests.support.imaginary import survey
from tests.support.planning import pieces_of

CATALOG = survey(4)
BEYOND = RangeSet.whole() - RangeSet.sky()
CELL = int(cells_of(np.array([34.0]), np.array([12.0]))[0])
KEYS = {1: CELL, 2: 5}


def work(text: str, catalog: Catalog = CATALOG) -> RangeSet:
    (leaf,) = pieces_of(text, catalog).leaves
    cells = {v: KEYS.get(v, int(beyond_cell(pa.array([v]))[0])) for found in lookups(leaf) for v in found.values}  # type: ignore[call-overload]
    return work_of(leaf, {found: np.array([cells[v] for v in found.values], np.int64) for found in lookups(leaf)})


def share(found: RangeSet) -> float:
    return (found & RangeSet.sky()).cells / LINE_END


def test_nothing_known_is_everything() -> None:
    for where in (
        "1 = 1",
        "mag > 0",
        "name = 'x'",
        "NOT dec > 5 OR mag > 3",
        "mag > 3 OR CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1",
    ):
        assert work(f"SELECT flags FROM dp.Object WHERE {where}") == RangeSet.whole()


@pytest.mark.parametrize(
    ("where", "most"),
    [
        ("CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1", 2e-4),
        ("CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 AND mag > 3", 2e-4),
        ("CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 AND CONTAINS(POINT(ra, dec), CIRCLE(34.5, 12, 1)) = 1", 1.5e-4),
        ("CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 OR CONTAINS(POINT(ra, dec), CIRCLE(35, 11, 1)) = 1", 4e-4),
        ("(CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 AND mag > 3) OR (ra BETWEEN 33 AND 35 AND dec BETWEEN 11 AND 13)", 5e-4),
        ("ra BETWEEN 33 AND 35 AND dec BETWEEN 11 AND 13", 2.5e-4),
        ("ra > 33 AND 35 >= ra AND 11 < dec AND dec < 13", 2.5e-4),
        ("dec = 12 AND ra = 34", 1e-9),
        ("CONTAINS(POINT(ra, dec), POLYGON(33, 11, 35, 11, 35, 13, 33, 13)) = 1", 2.5e-4),
        ("DISTANCE(POINT(ra, dec), POINT(34, 12)) <= 0", 1e-9),
    ],
)
def test_regions_leave_little_and_never_too_little(where: str, most: float) -> None:
    found = work(f"SELECT mag FROM dp.Object WHERE {where}")
    assert 0 < share(found) < most
    assert found.contains([CELL]).all()
    assert not found & BEYOND, "rows without a position are in no region"


def test_a_comparison_of_one_coordinate_holds_for_rows_without_the_other() -> None:
    for where in (
        "dec > 80",
        "ra < 3",
        "dec BETWEEN 80 AND 90 OR ra < 3",
        "dec > 80 AND dec < 85",
        "ra >= 0 AND dec > 80",
        "ra <= 360 AND dec > 80",
    ):
        found = work(f"SELECT flags FROM dp.Object WHERE {where}")
        assert BEYOND.cells == (found & BEYOND).cells, where
        assert share(found) < 0.1
    assert not work("SELECT flags FROM dp.Object WHERE dec > 80 AND ra < 3") & BEYOND


def test_contradictions_are_nothing() -> None:
    for where in (
        "dec > 5 AND dec < 4",
        "ra < -1",
        "dec > 90.5",
        "CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 AND CONTAINS(POINT(ra, dec), CIRCLE(134, 12, 1)) = 1",
    ):
        assert not work(f"SELECT flags FROM dp.Object WHERE {where}") & RangeSet.sky(), where


def test_regions_of_others_are_widened_by_the_distance() -> None:
    sizes = []
    for r in (0.001, 1.0, 10.0):
        join = f"dp.Object o JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < {r}"
        text = f"SELECT o.mag FROM {join} WHERE CONTAINS(POINT(s.ra, s.dec), CIRCLE(34, 12, 1)) = 1"
        (leaf,) = pieces_of(text, CATALOG).leaves
        found = work(text)
        sizes.append(share(found))
        reach = 1 + (r if leaf.locality.owner == "o" else 0.0)
        assert found.contains(cells_of(np.array([34.0, 34.0]), np.array([12 + reach - 1e-6, 12 - reach + 1e-6]))).all()
    assert sizes == sorted(sizes)
    assert sizes[-1] < 0.02


def test_a_region_of_the_null_supplied_side_says_nothing_in_on_and_holds_in_where() -> None:
    on = "SELECT o.mag FROM dp.Object o LEFT JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.01 AND {}"
    for alias in "so":
        text = on.format(f"CONTAINS(POINT({alias}.ra, {alias}.dec), CIRCLE(34, 12, 1)) = 1")
        assert work(text) == RangeSet.whole()


def test_regions_of_the_director_restrict_its_children() -> None:
    text = "SELECT f.flux FROM dp.ForcedSource f JOIN dp.Object o ON o.objectId = f.objectId WHERE CONTAINS(POINT(o.ra, o.dec), CIRCLE(34, 12, 1)) = 1"
    assert share(work(text)) < 2e-4
    own = "SELECT sourceId FROM dp.Source WHERE CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1"
    assert work(own) == RangeSet.whole(), "a child lies where its director is"


def test_keys_are_cells() -> None:
    assert work("SELECT mag FROM dp.Object WHERE objectId = 1") == RangeSet.from_ranges([CELL], [CELL + 1])
    assert work("SELECT mag FROM dp.Object WHERE objectId IN (1, 2)").cells == 2
    assert work("SELECT flux FROM dp.ForcedSource WHERE objectId = 2 OR objectId = 1").cells == 2
    assert work("SELECT mag FROM dp.Object WHERE objectId = 1 AND objectId = 2").cells == 0
    unknown = work("SELECT mag FROM dp.Object WHERE objectId = 77")
    assert unknown.cells == 1
    assert not unknown & RangeSet.sky()
    for where in (
        "objectId <> 1",
        "NOT objectId = 1",
        "objectId NOT IN (1, 2)",
        "objectId = 1 OR mag > 3",
        "objectId = 5.5",
        "objectId + 0 = 1",
        "objectId = flags",
        "objectId IN (1, NULL)",
    ):
        assert work(f"SELECT mag FROM dp.Object WHERE {where}") == RangeSet.whole(), where


def test_keys_of_near_ones_have_a_ring() -> None:
    join = "ext.Star s JOIN dp.Object o ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.5"
    found = work(f"SELECT s.mag FROM {join} WHERE o.objectId = 1")
    assert found.contains([CELL]).all()
    assert share(found) < 1e-2


def test_statistics_take_out_parts() -> None:
    low = work("SELECT flags FROM dp.Object WHERE mag < 11")
    assert 0.05 < share(low) < 0.15
    assert (low & BEYOND).cells == BEYOND.cells, "nothing is known of the part beyond the sky"
    assert work("SELECT flags FROM dp.Object WHERE mag > 26") & RangeSet.sky() == RangeSet.empty()
    joined = "SELECT f.flux FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId WHERE o.mag < 11"
    assert share(work(joined)) == pytest.approx(share(low))
    left = "SELECT f.flux FROM dp.ForcedSource f LEFT JOIN dp.Object o ON f.objectId = o.objectId AND o.mag < 11"
    assert work(left) == RangeSet.whole()
    star = (
        "SELECT s.mag FROM dp.Object o JOIN ext.Star s ON DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.1 WHERE s.mag < 11"
    )
    assert share(work("SELECT mag FROM ext.Star WHERE mag < 11")) < share(work(star)) < 0.12, "objects near the parts of such stars"


def stats(minimum: object, maximum: object, known: list[bool]) -> ColumnStats:
    return ColumnStats(np.asarray(minimum), np.asarray(maximum), np.zeros(len(known), np.int64), np.array(known))


@pytest.mark.parametrize(
    ("found", "low", "high", "excluded"),
    [
        (stats([1.0, 5.0, 9.0], [4.0, 8.0, 12.0], [True] * 3), 4.0, 5.0, [False, False, True]),
        (stats([1.0, 5.0, 9.0], [4.0, 8.0, 12.0], [True] * 3), 4.5, 4.5, [True, True, True]),
        (stats([0, 0, 0], [0, 0, 0], [False] * 3), 5.0, np.inf, [False] * 3),  # NULL only: nothing is known
        (stats(np.array(["", "b", "c"], object), np.array(["", "c", "d"], object), [True] * 3), 5.0, 6.0, [False] * 3),
        (stats([np.nan, 5.0, 9.0], [np.nan, 8.0, 12.0], [True] * 3), 6.0, 7.0, [False, False, True]),
        (stats([2**53 + 1, 0, 0], [2**53 + 1, 0, 0], [True] * 3), float(2**53), float(2**53), [False, True, True]),
        (stats([1.0, 5.0, 9.0], [4.0, 8.0, 12.0], [True] * 3), -np.inf, np.inf, [False] * 3),
    ],
)  # fmt: skip
def test_parts_are_excluded_only_where_it_is_known(found: ColumnStats, low: float, high: float, excluded: list[bool]) -> None:
    table = survey(1).find("dp", "Object")
    assert table is not None
    parts = dataclasses.replace(table.home, stats={"x": found}, rows=np.ones(3, np.int64))
    assert (~may_hold(Within("x", low, high), parts)).tolist() == excluded
    assert may_hold(Within("other", low, high), parts).all()


def test_a_hundred_thousand_tiles_are_planned_in_no_time() -> None:
    catalog = survey(7)
    began = time.perf_counter()
    assert (
        share(work("SELECT mag FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1 AND mag > 11", catalog)) < 1e-3
    )
    assert time.perf_counter() - began < 2


def test_box_around_a_circle_says_nothing_more() -> None:
    circle = Circle(10.0, -60.0, 1.0)
    width = math.degrees(math.asin(math.sin(math.radians(1.0)) / math.cos(math.radians(60.0)))) + 1e-6
    around = RaDecBox(10.0 - width, 10.0 + width, -61.0 - 1e-6, -59.0 + 1e-6)
    assert intersection([around, circle]) == circle
    assert intersection([RaDecBox(0.0, 360.0, -61.1, -58.9), circle]) == circle
    for cut in (
        RaDecBox(10.0 - width, 10.0 + width - 0.01, -61.1, -58.9),
        RaDecBox(9.0, 11.0, -61.1, -58.9),
        RaDecBox(0, 360, -60.9, 0),
    ):
        assert intersection([cut, circle]) == Intersection((circle, cut))


@pytest.mark.parametrize("circle", [Circle(0.0, 0.0, 1.0), Circle(359.9, 10.0, 1.0), Circle(10.0, 89.5, 1.0)])
def test_box_beside_a_wrapping_circle_stays(circle: Circle) -> None:
    box = RaDecBox(5.0, 359.0, -90.0, 90.0)
    assert intersection([box, circle]) == Intersection((circle, box))
