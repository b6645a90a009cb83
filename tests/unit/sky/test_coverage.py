"""Nothing is missed: points of a region are in its coverage, points near ranges are in their ring, whoever computed the cells."""

from __future__ import annotations

import astropy.units as u
import cdshealpix
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qengine.sky.cells import BEYOND_END, LINE_END, RangeSet
from qengine.sky.coverage import EDGE_PIXELS, PAD_DEG, coverage, ring
from qengine.sky.healpix import cells_of, centers, max_radius_deg, min_width_deg, tile_vertices
from qengine.sky.region import Circle, EverySky, Intersection, NoSky, Polygon, RaDecBox, Region, Union, box

from . import truth
from .test_region import REGIONS, places_of

FULL_SKY_DEG2 = 41252.96124941927


def cells_of_others(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells as another library computes them."""
    return cdshealpix.lonlat_to_healpix(Longitude(ra % 360, u.deg), Latitude(dec, u.deg), 29).astype(np.int64)


@settings(max_examples=250, deadline=None)
@given(REGIONS, st.one_of(st.just(0.0), truth.RADIUS_DEG.map(lambda r: r / 4)), st.sampled_from([16, 128, 512, 4096]), truth.SEED)
def test_no_point_of_the_region_is_missed(region: Region, dilate_deg: float, budget: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = places_of(region, rng)
    is_inside = region.contains(ra, dec)
    ra, dec = ra[is_inside], dec[is_inside]
    found = coverage(region, dilate_deg=dilate_deg, max_cells=budget)
    assert found.contains(cells_of(ra, dec)).all()
    assert found.contains(cells_of_others(ra, dec)).all()
    by = dilate_deg * np.where(rng.uniform(size=len(ra)) < 0.5, 1.0, rng.uniform(size=len(ra)))
    moved = truth.move(ra, dec, by + 1.9 * truth.MAS_DEG, rng.uniform(0, 360, len(ra)))
    assert found.contains(cells_of(*moved)).all()


@settings(max_examples=100, deadline=None)
@given(truth.RA, truth.DEC, truth.RADIUS_DEG)
def test_coverage_of_a_cone_is_not_wasteful(ra: float, dec: float, radius: float) -> None:
    found = coverage(Circle(ra, dec, radius))
    area = FULL_SKY_DEG2 * found.cells / LINE_END
    padded = np.radians(min(radius + 1e-3 * 5 / 3600, 180.0))
    assert area < 1.6 * FULL_SKY_DEG2 * np.sin(padded / 2) ** 2
    assert len(found) <= 512


@settings(max_examples=60, deadline=None)
@given(truth.stars(largest_deg=40))
def test_coverage_of_a_polygon_is_near_it(vertices: tuple[tuple[float, float], ...]) -> None:
    polygon = Polygon(vertices)
    orders, indexes = coverage(polygon, max_cells=2000).to_tiles()
    for order in np.unique(orders).tolist():
        depth = polygon.depth_deg(*centers(order, indexes[orders == order]))
        assert (depth > -2 * max_radius_deg(order) - 3 * truth.MAS_DEG).all()


def test_budgets_bound_the_result() -> None:
    region = Circle(56.75, 24.1, 2)
    sizes = [coverage(region, max_cells=budget).cells for budget in (16, 64, 256, 1024, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.3 * sizes[-1]
    for budget in (64, 256, 1024, 4096):
        assert len(coverage(region, max_cells=budget).to_tiles()[0]) <= 2 * budget


def test_special_regions() -> None:
    assert coverage(EverySky()) == RangeSet.sky()
    assert coverage(Circle(3, 4, 180)) == RangeSet.sky()
    assert coverage(Intersection(())) == RangeSet.sky()
    assert not coverage(NoSky())
    assert not coverage(Union(()))
    assert not coverage(Circle(3, 4, -1))
    assert coverage(Union((NoSky(), Circle(3, 4, 1)))) == coverage(Circle(3, 4, 1), max_cells=256)
    assert not coverage(Intersection((Circle(0, 0, 1), Circle(180, 0, 1))))
    assert coverage(RaDecBox(0, 360, -90, 90)) == RangeSet.sky()


def test_a_meridian_does_not_cover_the_opposite_one() -> None:
    found = coverage(RaDecBox(10, 10, -80, 80), max_cells=4096)
    assert found.contains(cells_of([10.0, 10.0], [79.0, -3.0])).all()
    assert not found.contains(cells_of(np.full(5, 190.0), np.linspace(-70, 70, 5))).any()


def test_members_of_a_union_are_covered_as_finely_as_alone() -> None:
    cones = tuple(Circle(3.6 * i, 80 * np.sin(i), 1 / 60) for i in range(100))
    found = coverage(Union((*cones, Union((box(5, 5, 0.1, 0.1),)))))
    rng = np.random.default_rng(0)
    for cone in cones:
        points = truth.move(
            np.full(50, cone.ra), np.full(50, cone.dec), cone.radius * rng.uniform(0, 1, 50), rng.uniform(0, 360, 50)
        )
        assert found.contains(cells_of(*points)).all()
    area = FULL_SKY_DEG2 * found.cells / LINE_END
    assert area < 4 * (100 * np.pi / 3600 + 0.01)


@pytest.mark.parametrize(
    ("region", "most"),
    [
        (Circle(56.75, 24.1, 1 / 60), 512),
        (Circle(56.75, 24.1, 10), 512),
        (Circle(10, 90, 0.1), 512),
        (box(10, 20, 1, 1), 512),
        (RaDecBox(10, 11, 20, 21), 512),
        (RaDecBox(10, 10.001, -1, 1), 512),
        (Polygon(truth.star(10, 20, [1.0, 0.5] * 50, 0)), 512),
        (Union(tuple(Circle(3.6 * i, i - 50, 0.01) for i in range(100))), 100 * 32),
    ],
    ids=["cone of 1 arcmin", "cone of 10 degrees", "cone at a pole", "box", "coordinate box", "thin box", "polygon", "100 cones"],
)
def test_coverage_is_small(region: Region, most: int) -> None:
    """It is on the path of queries that answer in less than 10 ms; what it costs there follows the number of ranges."""
    assert 0 < len(coverage(region)) <= most


@st.composite
def corners_of_tiles(draw: st.DrawFn) -> tuple[float, float, float]:
    """(ra, dec) of a corner of a tile of any order, those of base tiles and the poles included, and the tile's width in degrees."""
    order = draw(st.integers(0, 29))
    inner = draw(st.one_of(st.integers(0, 4**order - 1), st.sampled_from([0, 4**order - 1, (4**order - 1) // 3])))
    ra, dec = tile_vertices(order, draw(st.integers(0, 11)) * 4**order + inner)
    corner = draw(st.integers(0, 3))
    return float(ra[corner]), float(dec[corner]), 58.6 / 2**order


@settings(max_examples=100, deadline=None)
@given(corners_of_tiles(), st.sampled_from([0.0, 1e-9, 0.5, 1.0, 2.0]), st.sampled_from([16, 512]), truth.SEED)
def test_no_point_of_a_region_at_the_corner_of_a_tile_is_missed(
    corner: tuple[float, float, float], widths: float, budget: int, seed: int
) -> None:
    ra, dec, width = corner
    radius = min(widths * width, 80.0)
    rng = np.random.default_rng(seed)
    bearings = rng.uniform(0, 360, 40)
    points = truth.move(np.full(40, ra), np.full(40, dec), radius * np.r_[np.ones(30), rng.uniform(0, 1, 9), 0.0], bearings)
    shapes: list[Region] = [Circle(ra, dec, radius)]
    if radius > 1e-6:
        vertices = tuple(zip(points[0][:5].tolist(), points[1][:5].tolist(), strict=True))
        rim = truth.move(np.full(5, ra), np.full(5, dec), np.full(5, radius), 72.0 * np.arange(5))
        shapes += [
            Polygon(tuple(zip(rim[0].tolist(), rim[1].tolist(), strict=True))),
            Intersection((shapes[0], Circle(*vertices[0], radius))),
        ]
    for shape in shapes:
        is_inside = shape.contains(*points)
        found = coverage(shape, max_cells=budget)
        assert found.contains(cells_of(points[0][is_inside], points[1][is_inside])).all()
        assert found.contains(cells_of_others(points[0][is_inside], points[1][is_inside])).all()


# -- rings --------------------------------------------------------------------------------------------------------------------

RING_RADIUS_DEG = st.one_of(st.just(0.0), st.floats(np.log10(0.01 / 3600), 1.6).map(lambda power: float(10**power)))


@st.composite
def some_tiles(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Tiles of one order: scattered, neighbours on the line, corners of base tiles."""
    order = draw(st.integers(0, 29))
    last = 12 * 4**order - 1
    anywhere = st.lists(st.integers(0, last), min_size=1, max_size=5)
    run = st.tuples(st.integers(0, last), st.integers(1, 60)).map(lambda r: list(range(r[0], min(r[0] + r[1], last + 1))))
    corners = st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0, 1 / 3, 2 / 3, 1])), min_size=1, max_size=3).map(
        lambda c: [base * 4**order + int(where * (4**order - 1)) for base, where in c]
    )
    return order, draw(st.one_of(anywhere, run, corners))


@settings(max_examples=300, deadline=None)
@given(some_tiles(), RING_RADIUS_DEG, truth.SEED)
def test_what_is_near_ranges_is_in_their_ring(tiles: tuple[int, list[int]], radius_deg: float, seed: int) -> None:
    order, indexes = tiles
    rng = np.random.default_rng(seed)
    ranges = RangeSet.from_tiles(order, indexes)
    found = ring(ranges, radius_deg)
    assert not found & ranges
    assert not found - RangeSet.sky()
    borders = [tile_vertices(order, index, step=4) for index in indexes[:6]]
    border_ra, border_dec = (np.repeat(np.concatenate(arrays), 12) for arrays in zip(*borders, strict=True))
    by = radius_deg * np.where(rng.uniform(size=len(border_ra)) < 0.7, 1.0, rng.uniform(size=len(border_ra)))
    moved = truth.move(border_ra, border_dec, by, rng.uniform(0, 360, len(border_ra)))
    reach = ranges | found
    assert reach.contains(cells_of(*moved)).all()
    assert reach.contains(cells_of_others(*moved)).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 22), st.data(), st.integers(-2, 4), st.floats(0.97, 1.0))
def test_a_ring_holds_as_much_as_its_pixels_reach(order: int, data: st.DataObject, finer: int, part: float) -> None:
    """A radius just below the reach of a size of pixels leaves the least room."""
    base, last = data.draw(st.integers(0, 11)), 4**order - 1
    inner = data.draw(st.one_of(st.integers(0, last), st.sampled_from([0, last, last // 3, 2 * (last // 3)])))
    index = base * 4**order + inner
    radius_deg = part * max(min_width_deg(max(0, order + finer)) - PAD_DEG, 0.0)
    ranges = RangeSet.from_tiles(order, [index])
    reach = ranges | ring(ranges, radius_deg)
    border_ra, border_dec = (np.repeat(array, 24) for array in tile_vertices(order, index, step=16))
    moved = truth.move(
        border_ra, border_dec, np.full(len(border_ra), radius_deg), np.tile(np.arange(24) * 15.0, len(border_ra) // 24)
    )
    assert reach.contains(cells_of(*moved)).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20), st.data(), st.floats(np.log10(0.01 / 3600), 0.5).map(lambda power: 10**power))
def test_a_ring_is_narrow(order: int, data: st.DataObject, radius_deg: float) -> None:
    index = data.draw(st.integers(0, 12 * 4**order - 1))
    orders, indexes = ring(RangeSet.from_tiles(order, [index]), radius_deg).to_tiles()
    border = truth.vectors(*tile_vertices(order, index, step=32))
    widest = max(radius_deg, min_width_deg(min(29, order + 6)))
    for one in np.unique(orders).tolist():
        points = truth.vectors(*centers(one, indexes[orders == one]))
        gap = truth.angle(points[:, None], border[None]).min(axis=1)
        assert gap.max() < 9 * widest + 2 * truth.MAS_DEG


def test_the_ring_of_thousands_of_tiles() -> None:
    rng = np.random.default_rng(4)
    tiles = np.unique(rng.integers(0, 12 * 4**9, 5000))
    ranges = RangeSet.from_tiles(9, tiles)
    for radius_deg in (0.01 / 3600, 30 / 3600, 0.2, 3.0, 40.0):
        found = ring(ranges, radius_deg)
        assert not found & ranges
        ra, dec = np.concatenate([tile_vertices(9, int(t)) for t in tiles[::25]], axis=1)
        moved = truth.move(ra, dec, np.full(len(ra), radius_deg), rng.uniform(0, 360, len(ra)))
        assert (ranges | found).contains(cells_of(*moved)).all()
        assert len(found) <= EDGE_PIXELS * 9  # what it costs follows the pixels that it looks at, each with eight neighbours


def test_rings_of_what_has_none() -> None:
    assert not ring(RangeSet.empty(), 1)
    assert not ring(RangeSet.sky(), 1)
    assert not ring(RangeSet.whole(), 1)
    assert not ring(RangeSet.from_ranges([LINE_END], [BEYOND_END]), 1)
    assert not ring(RangeSet.from_tiles(3, [5]), -1)
    assert ring(RangeSet.from_tiles(3, [5]), 170) == RangeSet.sky() - RangeSet.from_tiles(3, [5])
    with_beyond = RangeSet.from_tiles(3, [5]) | RangeSet.from_ranges([LINE_END], [BEYOND_END])
    assert ring(with_beyond, 0.1) == ring(RangeSet.from_tiles(3, [5]), 0.1)


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 90.0), (12.0, -89.9999), (0.0, 0.0), (359.999, 41.8), (45.0, 41.8103149), (53.1, -28.0)]
)
@pytest.mark.parametrize("radius", [1e-7, 1e-3, 0.3, 20.0])
def test_circles_start_at_their_own_tiles_and_find_the_same(ra: float, dec: float, radius: float) -> None:
    circle = Circle(ra, dec, radius)
    from_base_tiles = Intersection((circle, EverySky()))
    assert coverage(circle) == coverage(from_base_tiles)
    assert coverage(circle, dilate_deg=0.01) == coverage(from_base_tiles, dilate_deg=0.01)
