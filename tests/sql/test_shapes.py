"""Pairs of shapes against sampled borders, row by row: poles, RA wrap, concave polygons; HEALPix against healpy, bit by bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import healpy
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sky.healpix import cells_of
from qengine.sky.region import Polygon, box, distance_deg
from tests.sql.examples import Examples

Vertices = tuple[tuple[float, float], ...]
FINE = 4000


@pytest.fixture(scope="module")
def examples() -> Examples:
    return Examples()


def star(rng: np.random.Generator, corners: int, size: float) -> Vertices:
    """A polygon that may be concave, around a place that may be a pole or at RA 0."""
    middle_ra = rng.choice([0.0, 359.9, 120.0, rng.uniform(0, 360)])
    middle_dec = rng.choice([90.0, -89.5, 0.0, rng.uniform(-80, 80)])
    angles = np.sort(rng.uniform(0, 360, corners))
    return tuple(moved(middle_ra, middle_dec, a, size * rng.uniform(0.4, 1)) for a in angles)


def moved(ra: float, dec: float, angle: float, distance: float) -> tuple[float, float]:
    """The place at a distance in a direction east of north."""
    d, t, p = math.radians(distance), math.radians(angle), math.radians(dec)
    sine = math.sin(p) * math.cos(d) + math.cos(p) * math.sin(d) * math.cos(t)
    turn = math.atan2(math.sin(t) * math.sin(d) * math.cos(p), math.cos(d) - math.sin(p) * sine)
    return float(ra + math.degrees(turn)) % 360, math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def border(vertices: Vertices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on the edges, close together."""
    lon, lat = np.radians(np.array(vertices)).T
    corners = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    share = np.linspace(0, 1, FINE)[:, None]
    parts = [a * (1 - share) + b * share for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    x, y, z = np.concatenate(parts).T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def flat(vertices: Vertices) -> str:
    return ", ".join(repr(v) for vertex in vertices for v in vertex)


def in_hemisphere(vertices: Vertices) -> bool:
    try:
        Polygon(vertices)
    except QueryTypeError:
        return False
    return True


def truth(examples: Examples, condition: str) -> bool:
    return bool(examples.rows(f"SELECT COUNT(*) AS v FROM sky.t WHERE n = 1 AND {condition} = 1")[0][0])


@pytest.mark.parametrize("seed", range(4))
def test_circle_and_polygon(examples: Examples, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = star(rng, int(rng.integers(3, 8)), float(rng.choice([0.5, 5, 40])))
    ra, dec = border(vertices)
    for _ in range(3):
        size = float(rng.choice([0.3, 3, 30]))
        lon, lat = moved(*vertices[int(rng.integers(len(vertices)))], float(rng.uniform(0, 360)), float(rng.uniform(0, 2 * size)))
        edge = float(distance_deg(ra, dec, lon, lat).min())
        inside = bool(Polygon(vertices).contains(lon, lat))
        if abs(edge - size) < 1e-3 * size or edge < 1e-3 * size:
            continue
        circle, polygon = f"CIRCLE({lon!r}, {lat!r}, {size})", f"POLYGON({flat(vertices)})"
        assert truth(examples, f"INTERSECTS({circle}, {polygon})") == (inside or edge <= size)
        assert truth(examples, f"INTERSECTS({polygon}, {circle})") == (inside or edge <= size)
        assert truth(examples, f"CONTAINS({circle}, {polygon})") == (inside and edge >= size)
        far = float(distance_deg(ra, dec, lon, lat).max())
        if abs(far - size) > 1e-3 * size:
            assert truth(examples, f"CONTAINS({polygon}, {circle})") == (far <= size)
        # the same from columns
        lifted = f"CIRCLE({lon!r} + 0 * ra, {lat!r} + 0 * dec, {size} + 0 * x)"
        moving = "POLYGON(" + ", ".join(f"{v!r} + 0 * ra" for vertex in vertices for v in vertex) + ")"
        assert truth(examples, f"INTERSECTS({lifted}, {moving})") == (inside or edge <= size)
        assert truth(examples, f"CONTAINS({lifted}, {polygon})") == (inside and edge >= size)


@pytest.mark.parametrize("seed", range(4))
def test_polygon_and_polygon(examples: Examples, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(3):
        size = float(rng.choice([0.5, 5, 20]))
        first = star(rng, int(rng.integers(3, 7)), size)
        ra, dec = first[0]
        second = tuple(
            moved(ra, dec, a, float(rng.uniform(0.2, 2)) * size) for a in np.sort(rng.uniform(0, 360, int(rng.integers(3, 7))))
        )
        if not in_hemisphere(second):
            continue
        inside = Polygon(second).contains(*border(first))
        other = Polygon(first).contains(*border(second))
        one, two = f"POLYGON({flat(first)})", f"POLYGON({flat(second)})"
        meets = bool(inside.any() or other.any())
        assert truth(examples, f"INTERSECTS({one}, {two})") == meets
        if 0 < np.count_nonzero(~inside) < 20:
            continue  # too close for the samples to tell
        assert truth(examples, f"CONTAINS({one}, {two})") == bool(inside.all() and not (other.any() and not inside.all()))


def test_large_circles_and_complements(examples: Examples) -> None:
    polygon = "POLYGON(10, 10, 20, 10, 15, 20)"
    assert truth(examples, f"CONTAINS({polygon}, CIRCLE(195, -15, 160))") is False
    assert truth(examples, f"CONTAINS({polygon}, CIRCLE(15, 15, 120))") is True
    assert truth(examples, f"CONTAINS({polygon}, CIRCLE(195, -15, 180))") is True
    assert truth(examples, "CONTAINS(CIRCLE(1, 2, 5), CIRCLE(100, -50, 180))") is True
    assert truth(examples, "INTERSECTS(CIRCLE(0, 0, 1), REGION('Not (Circle 0 0 2)'))") is False
    assert truth(examples, "INTERSECTS(CIRCLE(0, 0, 3), REGION('Not (Circle 0 0 2)'))") is True
    assert truth(examples, "CONTAINS(REGION('Union (Circle 0 0 1 Circle 3 0 1)'), CIRCLE(1.5, 0, 3))") is True


def test_boxes_of_columns_are_boxes(examples: Examples) -> None:
    for lon, lat, width, height in (
        (10.0, 20.0, 3.0, 4.0),
        (359.9, -80.0, 20.0, 1.0),
        (0.0, 89.9, 5.0, 5.0),
        (200.0, 0.0, 170.0, 2.0),
    ):
        expected = [v for vertex in box(lon, lat, width, height).vertices for v in vertex]
        found = examples.value(f"BOX({lon} + 0 * ra, {lat} + 0 * dec, {width}, {height})")
        assert found == pytest.approx(expected, abs=1e-9)


def test_measures_of_columns_are_those_of_constants(examples: Examples) -> None:
    for numbers in ((0, 0, 10, 0, 0, 10), (350, 80, 170, 80, 80, 85, 60, 70), (10, 10, 11, 10, 10.5, 10.1, 11, 11, 10, 11)):
        constant = f"POLYGON({', '.join(map(str, numbers))})"
        moving = f"POLYGON({', '.join(f'{v} + 0 * ra' for v in numbers)})"
        assert examples.value(f"AREA({moving})") == pytest.approx(examples.value(f"AREA({constant})"), rel=1e-9)
        assert examples.value(f"CENTROID({moving})") == pytest.approx(examples.value(f"CENTROID({constant})"), abs=1e-9)
    area = examples.value("AREA(MOC('0/0-11'))")
    assert area == pytest.approx(4 * math.pi * math.degrees(1) ** 2)


def test_geometry_columns_are_shapes(examples: Examples) -> None:
    assert examples.value("COORD1(place)") == 10.0
    assert truth(examples, "CONTAINS(place, CIRCLE(10, 20, 0.1))")
    assert examples.value("DISTANCE(place, POINT(ra, dec))") == pytest.approx(0)


@pytest.mark.parametrize(
    "text",
    [
        "CONTAINS(CIRCLE(0, 0, 1), REGION('Union (Circle 0 0 1 Circle 1 0 1)'))",
        "CONTAINS(CIRCLE(0, 0, 1), MOC('0/1'))", "CONTAINS(MOC('0/1'), CIRCLE(0, 0, 1))", "CONTAINS(CIRCLE(0, 0, 1), POINT(0, 0))",
        "INTERSECTS(CIRCLE(0, 0, 1), REGION('Intersection (Circle 0 0 1 Circle 1 0 1)'))",
    ],
)  # fmt: skip
def test_what_cannot_be_said_exactly_is_refused(examples: Examples, text: str) -> None:
    with pytest.raises(UnsupportedQueryError) as caught:
        truth(examples, text)
    assert caught.value.span is not None


@pytest.mark.parametrize(
    "text",
    [
        "REGION('Union ICRS')", "REGION('Union (Circle 0 0 1')", "REGION('Circle 0 0')", "REGION('Circle 0 0 1 2 3 x')",
        "REGION('Not (Circle 0 0 1 Circle 1 1 1)')", "REGION('Range 10 0 0 1')", "MOC('5/99999999')", "MOC('12-15')", "MOC('31/1')",
        "MOC('5/x')", "ivo_healpix_index(30, 1, 1)", "ivo_geom_transform('FK4', 'ICRS', POINT(1, 2))", "EXTRACT('eon', seen)",
        "qserv_areaspec_circle(0, 91, 1)", "qserv_areaspec_ellipse(0, 0, 1, 2, 0)", "qserv_areaspec_box(10, 0, -5, 1)",
        "qserv_areaspec_circle(ra, dec, 1)", "HISTOGRAM(x, 2, 1, 5)", "QUANTILE(x, 2)", "MEDIAN(x ORDER BY x)", "LIST_SUM(name)",
    ],
)  # fmt: skip
def test_wrong_arguments_are_errors_with_a_place(examples: Examples, text: str) -> None:
    with pytest.raises((QueryTypeError, UnsupportedQueryError)) as caught:
        examples.value(text)
    assert caught.value.span is not None


# -- HEALPix ------------------------------------------------------------------------------------------------------------------


def cells(examples: Examples, ra: Sequence[float], dec: Sequence[float], order: int = 29) -> NDArray[np.int64]:
    examples.db.register("places", pa.table({"ra": np.array(ra, float), "dec": np.array(dec, float)}))
    found = examples.db.execute(f"SELECT qe_healpix({order}, ra, dec) AS p FROM places").to_arrow_table()
    return np.asarray(found["p"].to_numpy())


EDGES = [0.0, 45.0, 90.0, 135.0, 180.0, 270.0, 315.0, 359.9999999999999, 22.5, 1e-13, -1e-14, -45.0, 360.0, 405.0]
LATITUDES = [0.0, 41.8103148957786, -41.8103148957786, 41.81031489577862, 90.0, -90.0, 30.0, 89.42706, 89.9999999999, -1e-13]


@settings(max_examples=60, deadline=None)
@given(
    ra=st.lists(st.one_of(st.floats(-360, 720), st.sampled_from(EDGES)), min_size=50, max_size=50),
    dec=st.lists(st.one_of(st.floats(-90, 90), st.sampled_from(LATITUDES)), min_size=50, max_size=50),
)
def test_pixels_are_those_of_healpy(ra: list[float], dec: list[float]) -> None:
    found = cells(EXAMPLES, ra, dec)
    assert (found == cells_of(ra, dec)).all()


EXAMPLES = Examples()


def test_pixels_of_many_random_places_and_of_corners(examples: Examples) -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 100_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 100_000)))
    assert (cells(examples, ra, dec) == cells_of(ra, dec)).all()
    grid_ra = rng.integers(0, 256, 50_000) * (360 / 256)
    grid_dec = np.degrees(np.arcsin(np.clip(rng.integers(-96, 97, 50_000) / 96, -1, 1)))
    assert (cells(examples, grid_ra, grid_dec) == cells_of(grid_ra, grid_dec)).all()
    for order in (0, 1, 7, 28):
        expected = healpy.ang2pix(2**order, ra % 360, dec, nest=True, lonlat=True)
        assert (cells(examples, ra, dec, order) == expected).all()


def test_centres_are_those_of_healpy(examples: Examples) -> None:
    rng = np.random.default_rng(4)
    for order in (0, 1, 5, 17, 29):
        index = np.unique(np.r_[0, 12 * 4**order - 1, rng.integers(0, 12 * 4**order, 2000)])
        examples.db.register("pixels", pa.table({"i": index}))
        rows = examples.db.execute(f"SELECT p[1], p[2] FROM (SELECT qe_healpix_center({order}, i) AS p FROM pixels)").fetchall()
        lon, lat = healpy.pix2ang(2**order, index, nest=True, lonlat=True)
        found = np.array(rows)
        assert distance_deg(found[:, 0], found[:, 1], lon, lat).max() < 1e-11
    assert examples.value("ivo_healpix_center(3, 768)") is None


def test_no_position_has_no_pixel(examples: Examples) -> None:
    for place in ("NULL, 1", "1, NULL", "1, 91 + 0 * ra"):
        assert examples.value(f"ivo_healpix_index(5, {place})") is None
