"""Geometry against extended precision: poles, RA wrap, antipodes, boundaries, milliarcseconds."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.sky.region import Circle, Polygon
from tests.sql.world import World

MAS = 1 / 3.6e6
LON = st.floats(0, 360, allow_nan=False)
LAT = st.one_of(st.floats(-90, 90, allow_nan=False), st.sampled_from([-90.0, 90.0, 89.999999, -89.999999, 0.0]))


def exact_distance(one: tuple[float, float], two: tuple[float, float]) -> float:
    with mpmath.workdps(50):
        vectors = []
        for lon, lat in (one, two):
            a, d = (mpmath.radians(mpmath.mpf(v)) for v in (lon, lat))
            vectors.append((mpmath.cos(d) * mpmath.cos(a), mpmath.cos(d) * mpmath.sin(a), mpmath.sin(d)))
        (x, y, z), (u, v, w) = vectors
        cross = (y * w - z * v, z * u - x * w, x * v - y * u)
        return float(mpmath.degrees(mpmath.atan2(mpmath.sqrt(sum(c * c for c in cross)), x * u + y * v + z * w)))


@settings(max_examples=150, deadline=None)
@given(LON, LAT, LON, LAT, st.floats(-1e-6, 1e-6), st.sampled_from(["any", "near", "antipode"]))
def test_distance_is_exact_everywhere(
    world: World, lon: float, lat: float, lon2: float, lat2: float, step: float, kind: str
) -> None:
    if kind != "any":
        lon2 = lon + (180 if kind == "antipode" else 0) + step
        lat2 = max(-90.0, min(90.0, (-lat if kind == "antipode" else lat) + step))
    found = world.db.execute("SELECT qe_distance(?, ?, ?, ?)", [lon, lat, lon2, lat2]).fetchone()
    assert found is not None
    assert abs(found[0] - exact_distance((lon, lat), (lon2, lat2))) < 1e-4 * MAS


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("CONTAINS(POINT('ICRS', 10, 0), CIRCLE('ICRS', 0, 0, 10))", 1),
        ("CONTAINS(POINT(0, 80), CIRCLE(0, 90, 10))", 1), ("CONTAINS(POINT(123, 80), CIRCLE(7, 90, 10))", 1),
        ("CONTAINS(POINT(123, 79.9999999), CIRCLE(7, 90, 10))", 0), ("CONTAINS(POINT(359.5, 0), CIRCLE(0.5, 0, 1))", 1),
        ("CONTAINS(POINT(359.4999999, 0), CIRCLE(0.5, 0, 1))", 0), ("CONTAINS(POINT(1, 1), CIRCLE(1, 1, 0))", 1),
        ("CONTAINS(POINT(180, 0), CIRCLE(0, 0, 180))", 1), ("CONTAINS(POINT(180, 0), CIRCLE(0, 0, 179.9999999))", 0),
        ("CONTAINS(POINT(100, 0), CIRCLE(0, 0, 100))", 1), ("CONTAINS(POINT(100, 0), CIRCLE(0, 0, 99.9999999))", 0),
        ("CONTAINS(POINT(0, 0), POLYGON(359, -1, 1, -1, 1, 1, 359, 1))", 1), ("CONTAINS(POINT(1, 0.5), POLYGON(359, -1, 1, -1, 1, 1, 359, 1))", 1),
        ("CONTAINS(POINT(1, 1), POLYGON(359, -1, 1, -1, 1, 1, 359, 1))", 1), ("CONTAINS(POINT(180, 0), POLYGON(359, -1, 1, -1, 1, 1, 359, 1))", 0),
        ("CONTAINS(POINT(77, 90), POLYGON(0, 80, 90, 80, 180, 80, 270, 80))", 1), ("CONTAINS(POINT(0, -90), POLYGON(0, 80, 90, 80, 180, 80, 270, 80))", 0),
        ("CONTAINS(POINT(0.6, 0.5), POLYGON(0, 0, 1, 0, 0.5, 0.4, 1, 1, 0, 1))", 0), ("CONTAINS(POINT(0.3, 0.5), POLYGON(0, 0, 1, 0, 0.5, 0.4, 1, 1, 0, 1))", 1),
        ("CONTAINS(POINT(10, 10), BOX(10, 10, 2, 2))", 1), ("CONTAINS(POINT(11, 10), BOX(10, 10, 2.1, 2))", 1), ("CONTAINS(POINT(12, 10), BOX(10, 10, 2, 2))", 0),
        ("CONTAINS(CIRCLE(0, 0, 1), CIRCLE(0, 0, 2))", 1), ("CONTAINS(CIRCLE(0, 0, 2), CIRCLE(0, 0, 1))", 0),
        ("INTERSECTS(CIRCLE(0, 0, 1), CIRCLE(1.5, 0, 1))", 1), ("INTERSECTS(CIRCLE(0, 0, 1), CIRCLE(2.5, 0, 1))", 0), ("INTERSECTS(CIRCLE(0, 0, 1), POINT(0.5, 0))", 1),
        ("CONTAINS(POINT(0, 0), REGION('CIRCLE ICRS 0 0 1'))", 1), ("CONTAINS(POINT(0, 0), REGION('Polygon 359 -1 1 -1 1 1 359 1'))", 1),
        ("CONTAINS(POINT(NULL, ra, dec), CIRCLE(POINT(0, 0), 1))", 1), ("CONTAINS(POINT(ra, mag + NULL), CIRCLE(0, 0, 1)) + 0", None),
        ("COORD1(POINT(370, 5))", 10.0), ("COORD1(POINT(-10, 5))", 350.0), ("COORD2(POINT(370, 5))", 5.0), ("COORD1(POINT(ra - 10, dec))", 350.0),
        ("AREA(CIRCLE(0, 0, 1))", 2 * math.pi * (1 - math.cos(math.radians(1))) * math.degrees(1) ** 2), ("AREA(CIRCLE(0, 0, 180))", 4 * math.pi * math.degrees(1) ** 2),
        ("AREA(POLYGON(0, 0, 90, 0, 0, 90))", 4 * math.pi * math.degrees(1) ** 2 / 8), ("AREA(POLYGON(0, 0, 0, 90, 90, 0))", 4 * math.pi * math.degrees(1) ** 2 / 8),
        ("AREA(CIRCLE(0, 0, small))", 2 * math.pi * (1 - math.cos(math.radians(1))) * math.degrees(1) ** 2), ("AREA(POINT(1, 2))", 0.0),
        ("DISTANCE(POINT(0, 0), POINT(0, 1))", 1.0), ("DISTANCE(0, 0, 180, 0)", 180.0), ("DISTANCE(359.5, 0, 0.5, 0)", 1.0), ("DISTANCE(POINT(12, 90), POINT(50, 89))", 1.0),
        ("COORD2(CENTROID(CIRCLE(5, 6, 1)))", 6.0), ("COORD2(CENTROID(POLYGON(0, 0, 90, 0, 0, 90)))", math.degrees(math.asin(1 / math.sqrt(3)))),
        ("COORDSYS(POINT(1, 2))", "ICRS"), ("COORD1(CAST('12.5 3' AS POINT))", 12.5), ("CONTAINS(POINT(1, 1), CAST('1 1 1' AS CIRCLE))", 1),
    ],
)  # fmt: skip
def test_geometry(world: World, expression: str, expected: object) -> None:
    found = world.value(expression)
    assert found == pytest.approx(expected, abs=1e-12, rel=1e-12) if isinstance(expected, float) else found == expected


def test_all_forms_of_a_cone_give_the_same_rows(world: World) -> None:
    forms = [
        "CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 0, 0, 0.1)) = 1", "1 = CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 0.1))",
        "CONTAINS(POINT(ra, dec), CIRCLE(POINT(0, 0), 0.1)) <> 0", "NOT CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 0.1)) = 0",
        "INTERSECTS(CIRCLE(0, 0, 0.1), POINT(ra, dec)) = 1", "DISTANCE(POINT(ra, dec), POINT(0, 0)) <= 0.1000000001",
        "0.1000000001 > DISTANCE(0, 0, ra, dec)", "CONTAINS(POINT(ra, dec), CIRCLE(360, 0, 1./10)) = 1",
    ]  # fmt: skip
    for form in forms:
        assert [row[0] for row in world.rows(f"SELECT id FROM star WHERE {form} ORDER BY id")] == [1, 2, 3], form
    outside = world.rows("SELECT id FROM star WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 0.1)) = 0 ORDER BY id")
    assert outside == [(4,), (5,), (6,)]


def test_null_positions_are_neither_inside_nor_outside(world: World) -> None:
    for shape in ("qe_in_circle(NULL, 1, 0, 0, 1)", "qe_in_polygon(NULL, 1, [0, 0, 1, 0, 1, 1])", "qe_distance(1, NULL, 0, 0)"):
        assert world.db.execute(f"SELECT {shape}").fetchone() == (None,)
    assert world.db.execute("SELECT qe_in_circle(NULL, 1, 0, 0, 180)").fetchone() == (None,)


def test_polygon_columns(world: World) -> None:
    assert world.rows("SELECT field_id FROM obs.field WHERE CONTAINS(POINT(0, 0), region) = 1") == [(1,)]
    text = "SELECT s.id, f.field_id FROM star s JOIN obs.field f ON CONTAINS(POINT(s.ra, s.dec), f.region) = 1 ORDER BY s.id"
    assert world.rows(text) == [(1, 1), (2, 1), (3, 1)]


def test_macros_agree_with_sky_regions(world: World) -> None:
    rng = np.random.default_rng(7)
    lon, lat = rng.uniform(0, 360, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    near = rng.normal(0, 6, (2, 4000))
    for lon0, lat0 in ((0.0, 0.0), (359.0, 45.0), (120.0, 89.0), (10.0, -90.0)):
        ra = np.concatenate([lon, (lon0 + near[0] / max(0.05, math.cos(math.radians(lat0)))) % 360])
        dec = np.concatenate([lat, np.clip(lat0 + near[1], -90, 90)])
        angles = np.radians(np.arange(7) * 360 / 7)
        reach = np.array([8.0, 3.0, 7.0, 2.0, 9.0, 4.0, 6.0])
        corners = tuple(
            (
                float((lon0 + r * math.sin(a) / max(0.05, math.cos(math.radians(lat0)))) % 360),
                float(max(-89.9, min(89.9, lat0 + r * math.cos(a)))),
            )
            for a, r in zip(angles, reach, strict=True)
        )
        world.db.register("points", {"ra": ra, "dec": dec})
        listed = [value for corner in corners for value in corner]
        sql = f'SELECT qe_in_circle(ra, "dec", {lon0}, {lat0}, 7.5) AS c, qe_in_polygon(ra, "dec", {listed}) AS p FROM points'
        found = world.db.execute(sql).fetchnumpy()
        assert (np.asarray(found["c"]) == Circle(lon0, lat0, 7.5).contains(ra, dec)).all()
        assert (np.asarray(found["p"]) == Polygon(corners).contains(ra, dec)).all()
