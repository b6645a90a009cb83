"""Plans that are run: stations 3 to 6 and the final part against one database, for statements that tempt the planner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plan.world import World, sorted_rows

STATEMENTS = [
    line for line in (Path(__file__).parent / "statements.sql").read_text().splitlines() if line and not line.startswith("--")
]

NEAR = "DISTANCE(POINT(a.ra, a.dec), POINT(b.ra, b.dec))"


def check(world: World, text: str, language: str = "adql") -> int:
    """Assert that the plan gives the rows of the statement; return how many."""
    expected = world.truth(text, language=language)
    assert sorted_rows(world.answer(text, language=language)) == sorted_rows(expected), text
    return len(expected)


@pytest.mark.parametrize("line", STATEMENTS)
def test_plan_gives_the_rows_of_one_database(plan_world: World, line: str) -> None:
    language, _, text = line.partition(":") if line.startswith("sql:") else ("adql", "", line)
    check(plan_world, text, language)


def test_the_world_can_tell_plans_apart(plan_world: World) -> None:
    assert len(STATEMENTS) > 150
    assert plan_world.plan("SELECT objectId FROM dp.Object").tasks > 4
    assert plan_world.plan("SELECT objectId FROM dp.Object WHERE objectId = 4").tasks == 1


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("objectId = 9007199254740992.0", 2),  # compared as DOUBLE, 2^53 and 2^53 + 1 are equal
        ("CAST(objectId AS DOUBLE) = 9007199254740992", 2),
        ("objectId IN (5.0, 9007199254740993)", 3),
        ("objectId = 9007199254740993", 1),
        ("objectId IN (9007199254740993, 5)", 2),
        ("objectId = 5.0", 1),
        ("objectId = 5.5", 0),
    ],
)
def test_keys_are_compared_as_the_statement_compares_them(plan_world: World, where: str, rows: int) -> None:
    assert check(plan_world, f"SELECT objectId FROM dp.Object WHERE {where}") == rows


def test_keys_that_are_equal_as_doubles_lie_in_different_cells(plan_world: World) -> None:
    text = "SELECT a.objectId, b.objectId AS o FROM dp.Object a JOIN dp.Object b ON CAST(a.objectId AS DOUBLE) = CAST(b.objectId AS DOUBLE)"
    assert check(plan_world, text) > plan_world.stored["dp.Object"].snapshot.rows


@pytest.mark.parametrize(
    "where", ["small = 16777217", "small >= 16777217", "small < 16777217", "small BETWEEN 16777217 AND 16777217"]
)
def test_statistics_of_floats_round_as_the_comparison_does(plan_world: World, where: str) -> None:
    assert check(plan_world, f"SELECT objectId FROM dp.Object WHERE {where}") > 0


def test_places_in_different_cells_can_be_on_a_circle_without_radius(plan_world: World) -> None:
    text = "SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE CONTAINS(POINT(a.ra,a.dec), CIRCLE(b.ra,b.dec,0)) = 1"
    pairs = set(plan_world.answer(text))
    assert (4, 5) in pairs
    assert (5, 4) in pairs
    check(plan_world, text)


def test_output_columns_may_have_any_name(plan_world: World) -> None:
    check(plan_world, 'SELECT mag AS "order 0", ra AS "ORDER 1", flags AS "order 1_" FROM dp.Object ORDER BY dec, name')
    text = 'SELECT mag AS "order 0", mag AS x FROM dp.Object ORDER BY dec'
    assert plan_world.answer(text) == [row for row in plan_world.answer(text) if row[0] == row[1]]


def test_aliases_may_look_like_relations_of_the_final_part(plan_world: World) -> None:
    check(
        plan_world,
        "SELECT objectId FROM dp.Object UNION ALL SELECT r0.objectId FROM dp.Object r0 FULL JOIN dp.Source f ON r0.flags = f.objectId",
    )
    check(
        plan_world,
        "WITH r0 AS (SELECT objectId FROM dp.Object), R1 AS (SELECT objectId FROM dp.Source) SELECT * FROM r0 NATURAL JOIN r1",
    )


def test_right_ascension_of_a_derived_table_may_be_negative(plan_world: World) -> None:
    text = (
        "SELECT a.objectId, b.starId FROM (SELECT objectId, ra - 360 AS ra, dec FROM dp.Object) AS a "
        f"LEFT JOIN ext.Star b ON {NEAR} < 0.1"
    )
    assert check(plan_world, text) > 94


def test_declination_of_a_derived_table_is_not_bounded(plan_world: World) -> None:
    text = "SELECT objectId FROM (SELECT objectId, ra, 180 - dec AS dec FROM dp.Object) AS q WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 40)) = 1"
    assert check(plan_world, text) > 0


@pytest.mark.parametrize(
    "text",
    [
        "SELECT TOP 5 objectId, mag FROM dp.Object ORDER BY mag DESC, objectId OFFSET 3",
        "SELECT DISTINCT TOP 3 flags, name FROM dp.Object ORDER BY name DESC, flags OFFSET 1",
        "SELECT TOP 4 flags, COUNT(*) AS n FROM dp.Object GROUP BY flags ORDER BY COUNT(*), flags DESC",
        "SELECT objectId FROM dp.Object ORDER BY mag + flags, objectId",
        'SELECT flags AS "order 0" FROM dp.Object ORDER BY dec DESC, objectId',
        "SELECT f.objectId, o.mag FROM dp.ForcedSource f JOIN dp.Object o ON o.objectId = f.objectId ORDER BY o.mag, f.forcedSourceId",
    ],
)
def test_order_is_kept(plan_world: World, text: str) -> None:
    assert plan_world.answer(text) == plan_world.truth(text)


@pytest.mark.parametrize(("top", "offset"), [(0, 0), (1, 0), (7, 0), (7, 5), (500, 0), (3, 93)])
def test_any_rows_will_do_for_top_without_order(plan_world: World, top: int, offset: int) -> None:
    text = f"SELECT TOP {top} objectId, mag FROM dp.Object OFFSET {offset}"
    whole = plan_world.truth("SELECT objectId, mag FROM dp.Object")
    found = plan_world.answer(text)
    assert len(found) == max(0, min(top, len(whole) - offset))
    assert len(set(found)) == len(found)
    assert set(found) <= set(whole)


@pytest.mark.parametrize("maxrec", [0, 1, 10, 1000])
def test_maxrec_lets_one_row_more_through(plan_world: World, maxrec: int) -> None:
    for text in ("SELECT objectId FROM dp.Object", "SELECT objectId FROM dp.Object UNION SELECT flags FROM dp.Object"):
        assert len(plan_world.answer(text, maxrec=maxrec)) == min(maxrec + 1, len(plan_world.truth(text)))
    assert len(plan_world.answer("SELECT TOP 3 objectId FROM dp.Object", maxrec=maxrec)) == min(3, maxrec + 1)
