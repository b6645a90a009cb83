"""Executed pairs: `<rule>.sql` holds statements and what the rule makes of them.

A pair is a statement in ADQL and the rendered tree after the rule, each ended by a semicolon. The harness compares the text, and runs
the statement before and after the rule on one DuckDB: the same rows, whatever is NULL. `QENGINE_GOLDEN=1` rewrites the second halves;
their change is reviewed like code.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.model import Catalog
from qengine.plan.optimize import RULES, optimize
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from qengine.sql.render import render
from tests.unit.plan.world import POSITIONS, World, sorted_rows

HERE = Path(__file__).parent
BY_NAME = {rule.__name__: rule for rule in RULES}


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of a file; lines that begin with -- are comments."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("--"))
    found = [" ".join(statement.split()) for statement in text.split(";")]
    if found[-1] == "":
        found.pop()
    return list(zip(found[0::2], found[1::2], strict=True))


CASES = [(name, *pair) for name in BY_NAME if (HERE / f"{name}.sql").exists() for pair in read_pairs(HERE / f"{name}.sql")]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_every_rule_has_pairs_that_it_changes_and_pairs_that_it_leaves(world: World) -> None:
    assert {name for name, _, _ in CASES} == set(BY_NAME)
    for name in BY_NAME:
        changed = {render(bind(parse(s, "adql"), world.catalog).tree) != expected for n, s, expected in CASES if n == name}
        assert changed == {True, False}


@pytest.mark.parametrize(("name", "statement", "expected"), CASES)
def test_pair(world: World, name: str, statement: str, expected: str) -> None:
    tree = bind(parse(statement, "adql"), world.catalog).tree
    before = render(tree)
    after = render(BY_NAME[name](tree, world.catalog))
    if os.environ.get("QENGINE_GOLDEN"):
        path = HERE / f"{name}.sql"
        path.write_text(path.read_text().replace(f"{statement};\n{expected};", f"{statement};\n{after};"))
    else:
        assert after == expected
    assert render(tree) == before, "a rule does not change the tree that it is given"
    assert sorted_rows(world.oracle.execute(after).fetchall()) == sorted_rows(world.oracle.execute(before).fetchall())


# -- shapes of any size on points that lie on their rims ----------------------------------------------------------------------

CENTRES = st.one_of(
    st.sampled_from([p for p in POSITIONS if p[0] is not None and p[1] is not None]),
    st.tuples(st.floats(-720, 720), st.floats(-90, 90)),
    st.tuples(st.sampled_from([0.0, 1e-9, 359.999999999, 360.0, -1e-9]), st.sampled_from([-90.0, -89.995, 0.0, 89.995, 90.0])),
)
RADII = st.one_of(st.sampled_from([0.0, 1e-10, 1e-6, 0.01, 45.0, 89.99, 90.0, 90.01, 179.999, 180.0]), st.floats(0, 180))


@settings(max_examples=60, deadline=None)
@given(centre=CENTRES, radius=RADII, is_near=st.booleans(), is_or=st.booleans())
def test_boxes_leave_out_no_row(world: World, centre: tuple[float, float], radius: float, is_near: bool, is_or: bool) -> None:
    place = f"{centre[0]:.12f}, {centre[1]:.12f}"
    shape = (
        f"DISTANCE(POINT(ra, dec), POINT({place})) <= {radius:.12f}"
        if is_near
        else f"CONTAINS(POINT(ra, dec), CIRCLE({place}, {radius:.12f})) = 1"
    )
    where = f"(({shape}) OR flags = 2) AND mag > 16" if is_or else shape
    _same_rows(world, f"SELECT objectId FROM dp.Object WHERE {where}")


@settings(max_examples=40, deadline=None)
@given(centre=CENTRES, radius=st.floats(0.001, 60), corners=st.integers(3, 7), turn=st.floats(0, 120))
def test_boxes_of_polygons_leave_out_no_row(
    world: World, centre: tuple[float, float], radius: float, corners: int, turn: float
) -> None:
    lat = max(-89.0 + radius, min(89.0 - radius, centre[1]))
    numbers = []
    for i in range(corners):
        angle = turn + 360.0 * i / corners
        vertex = world.oracle.execute(
            "SELECT ? + degrees(atan2(sin(radians(?)) * sin(radians(?)), cos(radians(?)) * cos(radians(?)) "
            "- sin(radians(?)) * sin(radians(?)) * cos(radians(?)))), "
            "degrees(asin(sin(radians(?)) * cos(radians(?)) + cos(radians(?)) * sin(radians(?)) * cos(radians(?))))",
            [centre[0], angle, radius, radius, lat, radius, lat, angle, lat, radius, lat, radius, angle],
        ).fetchone()
        assert vertex is not None
        numbers += [f"{vertex[0]:.12f}", f"{vertex[1]:.12f}"]
    _same_rows(world, f"SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), POLYGON({', '.join(numbers)})) = 1")


def _same_rows(world: World, statement: str) -> None:
    tree = bind(parse(statement, "adql"), world.catalog).tree
    after = render(optimize(tree, world.catalog))
    expected = sorted_rows(world.oracle.execute(render(tree)).fetchall())
    assert sorted_rows(world.oracle.execute(after).fetchall()) == expected
    assert sorted_rows(world.answer(statement)) == expected


def test_catalogues_whose_right_ascension_is_not_known_have_no_box_in_it(world: World) -> None:
    snapshot = world.stored["dp.Object"].snapshot
    attached = dataclasses.replace(snapshot, table=dataclasses.replace(snapshot.table, has_nan=True))
    catalog = Catalog((attached,))
    statement = "SELECT objectId FROM dp.Object WHERE CONTAINS(POINT(ra, dec), CIRCLE(34, 12, 1)) = 1"
    for rule_catalog, is_bounded in ((world.catalog, True), (catalog, False)):
        text = render(BY_NAME["bound_shapes"](bind(parse(statement, "adql"), rule_catalog).tree, rule_catalog))
        assert ('"ra" BETWEEN' in text) is is_bounded
        assert '"dec" BETWEEN' in text
