"""Joins on distance in leaves: which the kernel makes, in which form, and that the rows are those of one database."""

from __future__ import annotations

import pytest

from tests.unit.plan.world import World, sorted_rows

AB = "DISTANCE(a.ra, a.dec, b.ra, b.dec)"
BC = "DISTANCE(b.ra, b.dec, c.ra, c.dec)"
AC = "DISTANCE(a.ra, a.dec, c.ra, c.dec)"

WIDE = (
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001",
    f"SELECT a.objectId, b.starId FROM dp.Object a, ext.Star b WHERE {AB} < 0.001 AND a.mag > 17 AND b.mag < 8",
    "SELECT a.objectId, b.starId FROM dp.Object a, ext.Star b WHERE CONTAINS(POINT(a.ra, a.dec), CIRCLE(b.ra, b.dec, 0.001)) = 1",
    f"SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE {AB} < 0.01 AND a.objectId < b.objectId",
    f"SELECT a.objectId, b.objectId AS o FROM dp.Object a, dp.Object b WHERE {AB} < 0.01 AND b.objectId < a.objectId",
    f"SELECT COUNT(*) AS n FROM dp.Object a, dp.Object b WHERE {AB} < 0.01 AND a.flags <> b.flags",
    f"SELECT COUNT(*) AS n FROM dp.Object a, dp.Object b WHERE {AB} < 0.01 AND a.objectId < b.objectId AND a.objectId > -2",
    f"SELECT a.flags, COUNT(*) AS n, MIN({AB}) AS d FROM dp.Object a JOIN ext.Star b ON {AB} < 0.5 GROUP BY a.flags",
    f"SELECT a.objectId, b.starId, f.flux FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001 JOIN dp.ForcedSource f ON f.objectId = a.objectId",
    f"SELECT a.objectId, b.starId, f.flux FROM dp.Object a LEFT JOIN dp.ForcedSource f ON f.objectId = a.objectId JOIN ext.Star b ON {AB} < 0.001",
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} < b.mag / 10000",
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} <= a.mag * 0.0001 AND {AB} < 0.01",
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} < 3 AND {AB} > 1",
    f"SELECT a.objectId, (SELECT MAX(f.flux) FROM dp.ForcedSource f WHERE f.objectId = a.objectId) AS m FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001",
    "SELECT m.objectId, m.starId, m.separation_arcsec FROM CROSSMATCH(dp.Object, ext.Star, 3.6, 'all') AS m",
    "SELECT m.* FROM CROSSMATCH(dp.Object, ext.Star, 3600, 'nearest') AS m",
    "SELECT m.objectId, m.objectId_2, f.flux FROM CROSSMATCH(dp.Object, dp.Object, 5, 'all') m JOIN dp.ForcedSource f ON f.objectId = m.objectId",
)  # fmt: skip
ROWS = (
    f"SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON {AB} < 0.001",
    f"SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON {AB} < 0.001 AND b.mag > 3 AND a.mag > 18 WHERE a.flags > 0",
    f"SELECT a.objectId FROM dp.Object a LEFT JOIN ext.Star b ON {AB} < 0.001 WHERE b.starId IS NULL",
    f"SELECT a.objectId FROM dp.Object a WHERE EXISTS (SELECT 1 FROM ext.Star b WHERE {AB} < 0.001 AND b.mag > 2)",
    f"SELECT a.objectId FROM dp.Object a WHERE NOT EXISTS (SELECT 1 FROM ext.Star b WHERE {AB} < 0.001)",
    f"SELECT a.objectId FROM dp.Object a WHERE NOT EXISTS (SELECT 1 FROM dp.Object b WHERE {AB} < 0.01 AND b.objectId <> a.objectId)",
    f"SELECT a.objectId, (SELECT COUNT(*) FROM ext.Star b WHERE {AB} < 0.5) AS n FROM dp.Object a",
    f"SELECT a.objectId, (SELECT MIN(b.mag) FROM ext.Star b WHERE {AB} < 0.5 AND b.mag > 1) AS n FROM dp.Object a WHERE a.flags = 1",
    f"SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a, ext.Star b, ext.Star c WHERE {AB} < 0.001 AND {BC} < 0.002",
    f"SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001 JOIN ext.Star c ON {BC} < 0.002 AND {AC} < 0.001",
    f"SELECT a.objectId, b.starId, c.starId AS d FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001 LEFT JOIN ext.Star c ON {AC} < 0.001 AND c.mag > 4",
    f"SELECT a.objectId, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON {AB} < b.mag / 10000",
    f"SELECT a.objectId, q.starId, q.d FROM dp.Object a, LATERAL (SELECT b.starId, {AB} AS d FROM ext.Star b WHERE {AB} < 3 ORDER BY {AB}, b.starId LIMIT 2) AS q",
    "SELECT m.objectId, m.starId, m.separation_arcsec FROM CROSSMATCH(dp.Object, ext.Star, 3.6, 'all', 'left') AS m",
    "SELECT m.objectId, m.starId FROM CROSSMATCH(dp.Object, ext.Star, 3600, 'nearest', 'left') AS m WHERE m.flags < 2",
)  # fmt: skip
OTHERWISE = (
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} < 100",
    f"SELECT a.objectId, b.objectId AS o FROM dp.Object a JOIN dp.Object b ON a.objectId = b.objectId AND {AB} < 0.01",
    f"SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001 + RAND() * 0",
    "SELECT s.sourceId, b.starId FROM dp.Source s JOIN ext.Star b ON DISTANCE(s.ra, s.dec, b.ra, b.dec) < 0.001",
)  # fmt: skip


def forms(world: World, text: str) -> set[bool]:
    """Whether the joins of the kernel in a plan are wide."""
    return {join.is_wide for leaf in world.plan(text).leaves for join in leaf.sky_joins}


@pytest.mark.parametrize(
    ("text", "expected"),
    [*((text, {True}) for text in WIDE), *((text, {False}) for text in ROWS), *((text, set()) for text in OTHERWISE)],
)
def test_rows_are_those_of_one_database(plan_world: World, text: str, expected: set[bool]) -> None:
    assert forms(plan_world, text) == expected
    truth = plan_world.truth(text)
    assert sorted_rows(plan_world.answer(text)) == sorted_rows(truth)
    assert truth or "flags <> b.flags" in text


def test_sides_read_what_their_own_terms_let_through(plan_world: World) -> None:
    (leaf,) = plan_world.plan(
        f"SELECT a.name, b.starId FROM dp.Object a LEFT JOIN ext.Star b ON {AB} < 0.001 AND b.mag > 3 WHERE a.flags = 1"
    ).leaves
    (join,) = leaf.sky_joins
    assert '"a"."flags" = 1' in join.first
    assert '"b"."mag" > 3' in join.second
    assert '"flags"' not in join.second
    assert "_healpix_29" in join.first
    assert "qe_distance" not in join.first + join.second


def test_integer_keys_are_compared_by_the_kernel(plan_world: World) -> None:
    (leaf,) = plan_world.plan(WIDE[3]).leaves
    assert leaf.sky_joins[0].comparison == "<"
    (leaf,) = plan_world.plan(WIDE[4]).leaves
    assert leaf.sky_joins[0].comparison == ">"
    (leaf,) = plan_world.plan(f"SELECT a.starId FROM ext.Star a, ext.Star b WHERE {AB} < 0.01 AND a.starId < b.starId").leaves
    assert leaf.sky_joins[0].comparison == ""


def test_the_kernel_gives_the_distance_of_plain_columns(plan_world: World) -> None:
    (leaf,) = plan_world.plan(f"SELECT a.objectId, {AB} * 3600 AS d FROM dp.Object a JOIN ext.Star b ON {AB} < 0.001").leaves
    assert leaf.sky_joins[0].has_distance
    assert "qe_distance" not in leaf.sql
    assert '"ra" AS "ra"' not in leaf.sky_joins[0].first + leaf.sky_joins[0].second
    for text in (
        f"SELECT a.objectId FROM dp.Object a JOIN ext.Star b ON {AB} < b.mag / 10000",
        f"SELECT a.objectId FROM dp.Object a, ext.Star b WHERE DISTANCE(a.ra + 0.0001, a.dec, b.ra, b.dec) < 0.001 AND {AB} < 0.01",
    ):
        (leaf,) = plan_world.plan(text).leaves
        assert not leaf.sky_joins[0].has_distance
        assert "qe_distance" in leaf.sql


NEAREST = "CROSSMATCH(dp.Object, ext.Star, 3600, 'nearest'{how}) AS m"


@pytest.mark.parametrize("how", ["", ", 'left'"])
def test_terms_around_the_nearest_partner_reach_the_side_whose_rows_they_keep_or_drop(plan_world: World, how: str) -> None:
    near = NEAREST.format(how=how)
    text = f"SELECT m.objectId, m.starId FROM {near} WHERE m.flags = 1 AND (m.mag_2 > 3 OR m.mag_2 IS NULL) AND m.separation_arcsec < 3000"
    (leaf,) = plan_world.plan(text).leaves
    (join,) = leaf.sky_joins
    assert '"a"."flags" = 1' in join.first
    assert "WHERE" not in join.second
    assert plan_world.truth(text)
    assert sorted_rows(plan_world.answer(text)) == sorted_rows(plan_world.truth(text))


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT m.objectId FROM {NEAREST.format(how='')} WHERE m.flags = m.mag_2 OR m.flags = 1",
        f"SELECT m.objectId FROM (SELECT a.objectId, a.flags, ROW_NUMBER() OVER (ORDER BY a.objectId, b.starId) AS n FROM dp.Object a "
        f"JOIN ext.Star b ON {AB} < 0.5) AS m WHERE m.flags = 1 AND m.n < 10",
        f"SELECT m.objectId FROM (SELECT a.objectId, a.flags FROM dp.Object a JOIN ext.Star b ON {AB} < 0.5 "
        "ORDER BY a.objectId, b.starId LIMIT 9) AS m WHERE m.flags = 1",
    ],
)
def test_terms_that_may_change_who_is_nearest_stay_outside(plan_world: World, text: str) -> None:
    for leaf in plan_world.plan(text).leaves:
        assert all("WHERE" not in join.first + join.second for join in leaf.sky_joins)
    assert sorted_rows(plan_world.answer(text)) == sorted_rows(plan_world.truth(text))


def test_the_smaller_radius_of_two_is_taken(plan_world: World) -> None:
    (leaf,) = plan_world.plan(f"SELECT a.objectId FROM dp.Object a, ext.Star b WHERE {AB} < 0.5 AND {AB} < 0.001").leaves
    assert leaf.sky_joins[0].radius_deg == 0.001
