"""Exact tests and depths of regions against extended precision."""

from __future__ import annotations

import copy
import math
import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qengine.errors import QueryTypeError
from qengine.sky.region import EDGE_DEG, Circle, EverySky, Intersection, NoSky, Polygon, RaDecBox, Region, Union, box, distance_deg

from . import truth

ROUNDING_DEG = 1e-10  # 0.36 microarcseconds


def exact_distance(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Haversine with fifty digits."""
    with mpmath.workdps(50):
        a1, d1, a2, d2 = (mpmath.radians(mpmath.mpf(v)) for v in (ra1, dec1, ra2, dec2))
        h = mpmath.sin((d1 - d2) / 2) ** 2 + mpmath.cos(d1) * mpmath.cos(d2) * mpmath.sin((a1 - a2) / 2) ** 2
        return float(mpmath.degrees(2 * mpmath.asin(mpmath.sqrt(min(h, mpmath.mpf(1))))))


@settings(deadline=None)
@given(truth.RA, truth.DEC, truth.RA, truth.DEC, st.floats(-1e-5, 1e-5), st.sampled_from(["any", "near", "antipode"]))
def test_distance_at_all_scales(ra: float, dec: float, ra2: float, dec2: float, step: float, kind: str) -> None:
    if kind != "any":
        ra2 = ra + (180 if kind == "antipode" else 0) + step
        dec2 = max(-90.0, min(90.0, (-dec if kind == "antipode" else dec) + step))
    assert abs(float(distance_deg(ra, dec, ra2, dec2)) - exact_distance(ra, dec, ra2, dec2)) < 1e-12


@settings(max_examples=150, deadline=None)
@given(truth.RA, truth.DEC, truth.RADIUS_DEG, truth.SEED)
def test_circle_is_exact_at_its_rim(ra: float, dec: float, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    off = np.r_[rng.uniform(-1, 1, 50) * radius, 10 ** rng.uniform(-9.5, -4, 50), -(10 ** rng.uniform(-9.5, -4, 50)), 0.0]
    by = np.clip(radius + off, 0, 180)
    points = truth.move(np.full(len(by), ra), np.full(len(by), dec), by, rng.uniform(0, 360, len(by)))
    true = truth.distance(ra, dec, *points)
    found = Circle(ra, dec, radius).contains(*points)
    certain = np.abs(true - radius) > 2 * ROUNDING_DEG
    assert np.array_equal(found[certain], (true <= radius)[certain])
    assert found[true <= radius].all()


def test_circles_of_special_sizes() -> None:
    assert Circle(10, 20, 0).contains([10, 370, 10], [20, 20, 20.0000001]).tolist() == [True, True, False]
    assert Circle(0, 90, 0).contains([123.0], [90.0]).all()
    assert Circle(0, 0, 180).contains([180.0, 0.0], [0.0, -90.0]).all()
    assert not Circle(0, 0, -1e-12).contains([0.0], [0.0]).any()
    assert not Circle(0, 0, 1).contains([np.nan, 0.0], [0.0, np.nan]).any()


@settings(max_examples=200, deadline=None)
@given(truth.stars(), truth.SEED)
def test_polygon_is_exact_near_its_edges(vertices: tuple[tuple[float, float], ...], seed: int) -> None:
    corners = truth.vectors(*np.array(vertices).T)
    assume((corners @ corners.sum(axis=0)).min() > 1e-3)
    rng = np.random.default_rng(seed)
    middle = truth.positions(corners.sum(axis=0))
    size = float(truth.angle(corners, corners.sum(axis=0)).max())
    ra, dec = truth.scatter(rng, float(middle[0]), float(middle[1]), 1.3 * size, 60)
    # Points on edges, moved off by up to a milliarcsecond.
    edge, along = rng.integers(0, len(corners), 60), rng.uniform(0, 1, (60, 1))
    on = truth.positions(corners[edge] * (1 - along) + np.roll(corners, -1, axis=0)[edge] * along)
    close = truth.move(*on, 10 ** rng.uniform(-9, -6.5, 60), rng.uniform(0, 360, 60))
    ra, dec = np.r_[ra, close[0]], np.r_[dec, close[1]]
    points = truth.vectors(ra, dec)
    gap = truth.to_edges(points, corners)
    expected = truth.is_in_polygon(points, corners)
    found = Polygon(vertices).contains(ra, dec)
    certain = gap > 2 * ROUNDING_DEG
    assert np.array_equal(found[certain], expected[certain])
    assert Polygon(vertices).contains(*on).all()
    assert Polygon(vertices).contains(*np.array(vertices).T).all()
    depth = Polygon(vertices).depth_deg(ra, dec)
    assert np.abs(np.abs(depth) - gap)[gap < 80].max() < 1e-9
    assert (np.abs(depth) <= gap + 1e-12).all()
    assert np.array_equal(depth[certain] > 0, expected[certain])


def test_the_winding_does_not_matter_and_the_line_may_be_closed() -> None:
    square = ((359.0, -1.0), (1.0, -1.0), (1.0, 1.0), (359.0, 1.0))
    rng = np.random.default_rng(5)
    ra, dec = truth.scatter(rng, 0, 0, 2, 400)
    expected = Polygon(square).contains(ra, dec)
    assert 0 < expected.sum() < len(expected)
    for same in (square[::-1], (*square, square[0]), square[2:] + square[:2], tuple((ra + 360, dec) for ra, dec in square)):
        assert np.array_equal(Polygon(same).contains(ra, dec), expected)


def test_a_polygon_around_a_pole() -> None:
    cap = Polygon(tuple((float(ra), 80.0) for ra in range(0, 360, 10)))
    assert cap.contains([0.0, 77.0, 5.0], [90.0, 80.1, 85.0]).all()
    assert not cap.contains([0.0, 5.0], [-90.0, 79.9]).any()


def test_a_line_that_crosses_itself_is_even_odd() -> None:
    bow = Polygon(((0.0, 0.0), (2.0, 2.0), (2.0, 0.0), (0.0, 2.0)))
    assert bow.contains([0.5, 1.5, 1.0, 1.0], [1.0, 1.0, 0.5, 1.5]).tolist() == [True, True, False, False]


def test_vertices_a_microarcsecond_apart() -> None:
    tiny = 3e-10
    needle = Polygon(((10.0, 20.0), (10.0 + tiny, 20.0), (10.0 + tiny, 21.0), (10.0, 21.0)))
    corners = truth.vectors(*np.array(needle.vertices).T)
    rng = np.random.default_rng(2)
    ra, dec = truth.scatter(rng, 10.0, 20.5, 60.0, 500)
    gap = truth.to_edges(truth.vectors(ra, dec), corners)
    assert (np.abs(needle.depth_deg(ra, dec)) <= gap + 1e-12).all()
    assert needle.contains([10.0, 10.0], [20.5, 20.0]).all()
    assert not needle.contains([10.0 + 1e-8, 10.0 - 1e-8], [20.5, 20.5]).any()


def test_a_polygon_without_an_inside_is_its_line() -> None:
    line = Polygon(((0.0, 0.0), (10.0, 0.0), (10.0, 0.0)))
    assert line.contains([5.0, 5.0, 11.0], [0.0, 1e-6, 0.0]).tolist() == [True, False, False]
    point = Polygon(((7.0, 8.0),) * 3)
    assert point.contains([7.0, 7.0], [8.0, 8.000001]).tolist() == [True, False]


@pytest.mark.parametrize(
    "vertices",
    [
        ((0, 0), (120, 0), (240, 0)),
        ((0, 10), (120, -10), (240, 10), (60, -80)),
        ((0, 0), (90, 0), (180, 0), (0, 90)),
    ],
)
def test_what_no_open_hemisphere_holds_is_refused(vertices: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(QueryTypeError, match="hemisphere") as caught:
        Polygon(vertices)
    assert "split" in caught.value.hint


@pytest.mark.parametrize("vertices", [((0, 0), (1, 1)), ((0, 0), (1, 0), (1, 91)), ((0, 0), (1, 0), (math.nan, 1))])
def test_vertices_that_are_none(vertices: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(QueryTypeError):
        Polygon(vertices)


@settings(deadline=None)
@given(truth.RA, truth.DEC, st.lists(st.tuples(st.floats(0, 360), st.floats(0, 89.9)), min_size=3, max_size=10))
def test_whatever_lies_in_a_hemisphere_is_accepted(ra: float, dec: float, around: list[tuple[float, float]]) -> None:
    """The mean of the vertices need not be the middle: many of them may lie together near the rim."""
    bearings, by = np.array(around).T
    found = truth.move(np.full(len(by), ra), np.full(len(by), dec), by, bearings)
    vertices = tuple(zip(found[0].tolist(), found[1].tolist(), strict=True))
    polygon = Polygon((*vertices, *[vertices[0]] * 50))
    assert polygon.contains(*found).all()


def test_a_polygon_that_nearly_fills_a_hemisphere_is_accepted() -> None:
    corners = truth.move(np.zeros(3), np.zeros(3), np.array([1.0, 89.0, 89.5]), np.array([0.0, 0.0, 179.0]))
    thin = Polygon(tuple(zip(*(array.tolist() for array in corners), strict=True)))
    assert thin.contains(*corners).all()
    half = Polygon(tuple((float(ra), 1e-3) for ra in range(0, 360, 30)))
    assert half.contains([0.0, 15.0, 15.0], [90.0, 0.01, -0.01]).tolist() == [True, True, False]


def test_polygons_are_values() -> None:
    one = Polygon(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)
    assert hash(one) == hash(Polygon(one.vertices))
    assert pickle.loads(pickle.dumps(one)).contains([0.1], [0.1]).all()
    assert repr(one) == "Polygon(vertices=((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))"


@settings(max_examples=100, deadline=None)
@given(truth.RA, truth.DEC, st.floats(1e-5, 170), st.floats(1e-5, 170), truth.SEED)
def test_box_is_bounded_by_great_circles_at_its_half_widths(ra: float, dec: float, width: float, height: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = truth.scatter(rng, ra, dec, max(width, height), 200)
    lon, lat = np.longdouble(ra) * truth.DEGREE, np.longdouble(dec) * truth.DEGREE
    east = np.array([-np.sin(lon), np.cos(lon), 0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    unit = truth.vectors(*points)
    ahead = unit @ truth.vectors(ra, dec)
    # Longitude and latitude as seen from the centre, each along its own great circle through it.
    x, y = np.arctan2(unit @ east, ahead) / truth.DEGREE, np.arctan2(unit @ north, ahead) / truth.DEGREE
    expected = (np.abs(x) <= width / 2) & (np.abs(y) <= height / 2)
    certain = (np.abs(np.abs(x) - width / 2) > 1e-9) & (np.abs(np.abs(y) - height / 2) > 1e-9)
    assert np.array_equal(box(ra, dec, width, height).contains(*points)[certain], expected[certain])


def test_a_small_box_at_a_pole() -> None:
    size = 10 * truth.MAS_DEG
    found = box(0, 90, size, size)
    assert truth.distance(0, 90, *np.array(found.vertices).T).astype(float) == pytest.approx([size / 2**0.5] * 4, rel=1e-6)


@pytest.mark.parametrize("values", [(0, 0, 0, 1), (0, 0, 180, 1), (0, 0, 1, -1), (0, 91, 1, 1), (math.inf, 0, 1, 1)])
def test_boxes_that_are_none(values: tuple[float, float, float, float]) -> None:
    with pytest.raises(QueryTypeError):
        box(*values)


def test_coordinate_box_is_plain_comparison() -> None:
    assert RaDecBox(10, 20, -5, 5).contains([10, 20, 9.99, 15, 15], [-5, 5, 0, 5.01, 0]).tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert RaDecBox(350, 10, -90, 90).contains([350, 0, 10, 11, 349], [0] * 5).tolist() == [True, True, True, False, False]
    assert RaDecBox(0, 360, 80, 90).contains([123, 5], [90, 79]).tolist() == [True, False]


# -- what coverage rests on ---------------------------------------------------------------------------------------------------

CIRCLES = st.builds(Circle, truth.RA, truth.DEC, truth.RADIUS_DEG)
POLYGONS = truth.stars().filter(lambda v: (lambda c: (c @ c.sum(axis=0)).min() > 1e-3)(truth.vectors(*np.array(v).T))).map(Polygon)
# Rounded, because (1e-99, 360) leaves out 0, but 0 is where 360 is.
BOUND_RA = st.one_of(st.floats(0, 360).map(lambda ra: round(ra, 9)), st.sampled_from([0.0, 360.0, 90.0]))
BOUND_DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0]))
BOXES = st.builds(lambda a, b, c, d: RaDecBox(a, b, min(c, d), max(c, d)), BOUND_RA, BOUND_RA, BOUND_DEC, BOUND_DEC)
THIN_BOXES = st.builds(
    lambda a, c, w, h: RaDecBox(a, min(a + w, 360.0), c, min(c + h, 90.0)),
    BOUND_RA,
    BOUND_DEC,
    st.floats(0, 1e-3),
    st.floats(0, 1e-3),
)
SIMPLE = st.one_of(CIRCLES, POLYGONS, BOXES, THIN_BOXES)
REGIONS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda r: Union(tuple(r))),
        st.lists(inner, min_size=1, max_size=2).map(lambda r: Intersection(tuple(r))),
    ),
    max_leaves=4,
)


def places_of(region: Region, rng: np.random.Generator) -> tuple[truth.Float64Array, truth.Float64Array]:
    """Positions in, at the border of and around a region, as far as it can be told."""
    match region:
        case Circle(ra, dec, radius):
            some = truth.scatter(rng, ra, dec, min(2 * radius, 180.0), 60)
            rim = truth.move(np.full(60, ra), np.full(60, dec), np.full(60, radius), rng.uniform(0, 360, 60))
            return np.r_[some[0], rim[0]], np.r_[some[1], rim[1]]
        case Polygon(vertices):
            corners = truth.vectors(*np.array(vertices).T)
            weights = rng.dirichlet(np.full(len(corners), 0.2), 80)
            hull = truth.positions(weights @ corners)
            return np.r_[hull[0], [v[0] for v in vertices]], np.r_[hull[1], [v[1] for v in vertices]]
        case RaDecBox():
            ra = region.ra_min + region.width * np.r_[rng.uniform(0, 1, 60), np.tile([0.0, 0.5, 1.0], 20)]
            dec = region.dec_min + (region.dec_max - region.dec_min) * np.r_[rng.uniform(0, 1, 90), np.tile([0.0, 1.0], 15)]
            return np.where(ra > 360, ra - 360, ra), np.clip(dec, -90, 90)
        case Union(regions) | Intersection(regions):
            found = [places_of(r, rng) for r in regions] + [truth.scatter(rng, 0, 0, 180, 20)]
            return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
        case _:
            return truth.scatter(rng, 0, 0, 180, 100)


@settings(max_examples=250, deadline=None)
@given(REGIONS, truth.SEED)
def test_depth_never_says_more_than_is_true(region: Region, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = places_of(region, rng)
    extra = truth.scatter(rng, float(ra[0]), float(dec[0]), 5.0, 40)
    ra, dec = np.r_[ra, extra[0]], np.r_[dec, extra[1]]
    is_inside, depth = region.contains(ra, dec), region.depth_deg(ra, dec)
    assert (depth[is_inside] >= -2 * EDGE_DEG).all()
    assert (depth[~is_inside] <= 2 * EDGE_DEG).all()
    if is_inside.any() and (~is_inside).any():
        inner, outer = truth.vectors(ra[is_inside], dec[is_inside]), truth.vectors(ra[~is_inside], dec[~is_inside])
        gap = truth.angle(inner[:, None], outer[None])
        assert (depth[is_inside] <= gap.min(axis=1) + 3 * EDGE_DEG).all()
        assert (-depth[~is_inside] <= gap.min(axis=0) + 3 * EDGE_DEG).all()


@settings(deadline=None)
@given(REGIONS, REGIONS, truth.SEED)
def test_unions_and_intersections_combine(one: Region, two: Region, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = places_of(Union((one, two)), rng)
    assert np.array_equal(Union((one, two)).contains(ra, dec), one.contains(ra, dec) | two.contains(ra, dec))
    assert np.array_equal(Intersection((one, two)).contains(ra, dec), one.contains(ra, dec) & two.contains(ra, dec))


def test_everything_and_nothing() -> None:
    ra, dec = np.array([0.0, 10.0, np.nan]), np.array([90.0, -3.0, 0.0])
    assert EverySky().contains(ra, dec).tolist() == [True, True, False]
    assert not NoSky().contains(ra, dec).any()
    assert (EverySky().depth_deg(ra, dec) > 180).all()
    assert (NoSky().depth_deg(ra, dec) < -180).all()
    assert Intersection(()).contains(ra[:2], dec[:2]).all()
    assert not Union(()).contains(ra, dec).any()


def test_shapes_are_kept() -> None:
    for region in (
        Circle(0, 0, 1),
        Polygon(((0, 0), (1, 0), (0, 1))),
        RaDecBox(0, 1, 0, 1),
        EverySky(),
        NoSky(),
        Union(()),
        Intersection(()),
    ):
        assert region.contains(0.1, 0.1).shape == ()
        assert region.contains(np.zeros((2, 3)), np.zeros((2, 3))).shape == (2, 3)
        assert region.depth_deg(np.zeros((2, 3)), np.zeros((2, 3))).shape == (2, 3)
        assert region.contains([], []).shape == (0,)
