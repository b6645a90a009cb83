"""A join on a grid is the nested loop: at the poles, across RA 0, for any radius, with unmatched rows, along several edges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.plan.lift import lift_block
from qengine.plan.skyjoin import GridEdge, cell_size_deg, grid_edges, grid_join
from qengine.sql.bind import bind
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.support.imaginary import survey
from tests.unit.plan.world import sorted_rows

Place = tuple[float | None, float | None]
CATALOG = survey(0)
MAS = 1 / 3.6e6

RADII = st.one_of(st.sampled_from([MAS, 1 / 3600, 0.01, 1.0, 20.0, 90.0, 179.0, 200.0]), st.floats(MAS, 20))
LON = st.one_of(st.floats(0, 360, exclude_max=True), st.sampled_from([0.0, 359.9999999999, 1e-12, 90.0, 180.0, 45.0]))
LAT = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 89.9999999, -89.9999, 1e-12, 41.8103148957786]))
PLACES = st.lists(
    st.one_of(st.tuples(LON, LAT), st.sampled_from([(None, None), (None, 3.0), (3.0, None)])), min_size=1, max_size=12
)
# A step as a share of the radius, and a direction: partners inside, on and outside the rim.
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.999, 1.001, 2.0]), st.floats(0, 360)), min_size=1, max_size=4)

STATEMENTS = (
    "SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {ab}",
    "SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON {ab}",
    "SELECT a.objectId, b.starId FROM ext.Star b LEFT JOIN dp.Object a ON {ab} AND a.flags = 1",
    "SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a, ext.Star b, ext.Star c WHERE {ab} AND {bc}",
    "SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a LEFT JOIN ext.Star b ON {ab} LEFT JOIN ext.Star c ON {bc}",
    "SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a JOIN ext.Star b ON {ab} LEFT JOIN ext.Star c ON {bc} AND {ac}",
    "SELECT a.objectId, COUNT(b.starId) AS n FROM dp.Object a LEFT JOIN ext.Star b ON {ab} WHERE a.flags < 2 GROUP BY a.objectId",
)


def moved(place: Place, distance: float, angle: float) -> Place:
    if place[0] is None or place[1] is None:
        return place
    lon, lat, d, t = map(math.radians, (*place, min(distance, 180.0), angle))
    sine = math.sin(lat) * math.cos(d) + math.cos(lat) * math.sin(d) * math.cos(t)
    east = math.sin(t) * math.sin(d) * math.cos(lat)
    return math.degrees(lon + math.atan2(east, math.cos(d) - math.sin(lat) * sine)) % 360.0, math.degrees(
        math.asin(max(-1.0, min(1.0, sine)))
    )


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    for macro in MACROS:
        connection.execute(macro)
    connection.execute("CREATE SCHEMA dp; CREATE SCHEMA ext")
    connection.execute("CREATE TABLE dp.Object (objectId BIGINT, ra DOUBLE, dec DOUBLE, flags INTEGER)")
    connection.execute("CREATE TABLE ext.Star (starId BIGINT, ra DOUBLE, dec DOUBLE)")
    yield connection
    connection.close()


def fill(connection: duckdb.DuckDBPyConnection, places: list[Place], partners: list[Place]) -> None:
    connection.execute("TRUNCATE dp.Object; TRUNCATE ext.Star")
    connection.executemany("INSERT INTO dp.Object VALUES (?, ?, ?, ?)", [(i, *p, i % 3) for i, p in enumerate(places)])
    connection.executemany("INSERT INTO ext.Star VALUES (?, ?, ?)", [(i, *p) for i, p in enumerate(partners)])


def on_grid(text: str, *, rows: int | None = None) -> tuple[str, str, list[GridEdge]]:
    """Return the statement as it is and on grids, as text, and the edges."""
    tree = bind(parse(text, "adql"), CATALOG).tree
    edges = grid_edges(lift_block(tree, CATALOG), "a")  # type: ignore[arg-type]
    if rows is not None:
        edges = [dataclasses.replace(e, cell_deg=cell_size_deg(e.radius_deg, rows)) for e in edges]
    return render(tree), render(grid_join(tree, edges, {})), edges  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(places=PLACES, steps=STEPS, radius=RADII, statement=st.sampled_from(STATEMENTS), rows=st.sampled_from([1, 10**4, 10**11]))
def test_grid_join_is_the_nested_loop(
    database: duckdb.DuckDBPyConnection,
    places: list[Place],
    steps: list[tuple[float, float]],
    radius: float,
    statement: str,
    rows: int,
) -> None:
    fill(database, places, [moved(p, share * radius, angle) for p in places for share, angle in steps])
    r = f"{radius:.12f}"
    terms = {x + y: f"DISTANCE(POINT({x}.ra, {x}.dec), POINT({y}.ra, {y}.dec)) < {r}" for x, y in ("ab", "bc", "ac")}
    plain, grid, edges = on_grid(statement.format(**terms), rows=rows)
    assert edges
    assert sorted_rows(database.execute(grid).fetchall()) == sorted_rows(database.execute(plain).fetchall())


@pytest.mark.parametrize("shift", [-360, -180, 0, 360, 720])
def test_any_right_ascension_is_on_the_grid(database: duckdb.DuckDBPyConnection, shift: int) -> None:
    fill(database, [(i * 7.5 % 360, i * 3.0 - 85) for i in range(58)], [(i * 7.5 % 360, i * 3.0 - 84.99) for i in range(58)])
    text = "SELECT a.objectId, b.starId FROM (SELECT objectId, ra + {} AS ra, dec FROM dp.Object) AS a LEFT JOIN ext.Star b ON {}"
    plain, grid, edges = on_grid(text.format(shift, "DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 0.1"))
    assert edges[0].home == "a"
    found = database.execute(grid).fetchall()
    assert all((star is not None) is (shift != -180) or abs(number - 28) < 2 for number, star in found)
    assert sorted_rows(found) == sorted_rows(database.execute(plain).fetchall())


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("SELECT a.mag FROM dp.Object a LEFT JOIN ext.Star b ON {ab}", ["b"]),
        ("SELECT a.mag FROM ext.Star b LEFT JOIN dp.Object a ON {ab}", ["a"]),
        ("SELECT a.mag FROM dp.Object a FULL JOIN ext.Star b ON {ab}", []),
        ("SELECT a.mag FROM dp.Object a LEFT JOIN ext.Star b ON b.mag = 3 WHERE {ab}", []),
        ("SELECT a.mag FROM dp.Object a JOIN ext.Star b ON a.mag = b.mag AND {ab}", []),
        ("SELECT a.mag FROM dp.Object a JOIN ext.Star b ON a.mag <= b.mag AND {ab}", ["b"]),
        ("SELECT a.mag FROM dp.Object a JOIN ext.Star b ON {ab} OR a.mag = 3", []),
        ("SELECT a.mag FROM dp.Object a JOIN ext.Star b ON NOT {ab}", []),
    ],
)
def test_which_side_is_expanded(text: str, expanded: list[str]) -> None:
    _, _, edges = on_grid(text.format(ab="DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec)) < 1"))
    if expanded == ["b"] and "LEFT" not in text:
        assert len(edges) == 1
    else:
        assert [e.expanded for e in edges] == expanded


@pytest.mark.parametrize("radius", [0.0, MAS, 1.0, 200.0])
def test_cells_are_wider_than_the_circle(radius: float) -> None:
    for rows in (0, 1, 10**6, 10**12):
        assert cell_size_deg(radius, rows) >= 2.5 * radius
        assert cell_size_deg(radius, rows) > 0
