"""Every sentence of the essay in `plan/locality.py`, and its refusals."""

from __future__ import annotations

import dataclasses

import pytest

from qengine.catalog.model import Catalog
from qengine.plan.cut import cut
from qengine.plan.lift import lift_block
from qengine.plan.locality import Locality, Refusal, prove_locality
from qengine.plan.optimize import optimize
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from tests.support.imaginary import survey

CATALOG = survey(1)


def near(a: str, b: str, radius: str) -> str:
    return f"DISTANCE(POINT({a}.ra, {a}.dec), POINT({b}.ra, {b}.dec)) < {radius}"


def proof(text: str, catalog: Catalog = CATALOG, language: str = "adql") -> Locality | Refusal:
    tree = optimize(bind(parse(text, language), catalog).tree, catalog)
    return prove_locality(lift_block(tree, catalog))  # type: ignore[arg-type]


def local(text: str, catalog: Catalog = CATALOG) -> Locality:
    found = proof(text, catalog)
    assert isinstance(found, Locality), found
    return found


def refused(text: str, catalog: Catalog = CATALOG) -> str:
    found = proof(text, catalog)
    assert isinstance(found, Refusal), found
    return found.reason


O_F = "dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId"


def test_director_and_child_are_in_one_cell() -> None:
    assert local(f"SELECT * FROM {O_F}").margin_deg == {"o": 0.0, "f": 0.0}
    assert local("SELECT * FROM dp.Object o, dp.ForcedSource f WHERE f.objectId = o.objectId").margin_deg == {"o": 0.0, "f": 0.0}


def test_children_of_one_director_are_in_one_cell() -> None:
    found = local("SELECT f.band FROM dp.ForcedSource f JOIN dp.Source s ON s.objectId = f.objectId")
    assert set(found.margin_deg.values()) == {0.0}


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("SELECT * FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId", "o"),
        ("SELECT * FROM dp.ForcedSource f LEFT JOIN dp.Object o ON f.objectId = o.objectId", "f"),
        ("SELECT * FROM dp.ForcedSource f RIGHT JOIN dp.Object o ON f.objectId = o.objectId", "o"),
        (f"SELECT * FROM ext.Star s LEFT JOIN dp.Object o ON {near('s', 'o', '0.01')}", "s"),
    ],
)
def test_the_owner_is_never_null(text: str, owner: str) -> None:
    assert local(text).owner == owner


def test_the_owner_has_no_margin_and_the_other_has_the_radius() -> None:
    found = local(f"SELECT * FROM dp.Object a JOIN ext.Star b ON {near('a', 'b', '0.25')}")
    assert found.margin_deg[found.owner] == 0.0
    assert sorted(found.margin_deg.values()) == [0.0, 0.25]


def test_margins_add_up_along_a_chain_and_the_middle_is_the_best_owner() -> None:
    where = f"{near('o', 's', '0.01')} AND {near('s', 't', '0.02')}"
    found = local(f"SELECT * FROM dp.Object o, ext.Star s, ext.Star t WHERE {where}")
    assert found.owner == "s"
    assert found.margin_deg == {"s": 0.0, "o": 0.01, "t": 0.02}
    left = f"dp.Object o LEFT JOIN ext.Star s ON {near('o', 's', '0.01')} LEFT JOIN ext.Star t ON {near('s', 't', '0.02')}"
    assert local(f"SELECT * FROM {left}").margin_deg == {"o": 0.0, "s": 0.01, "t": pytest.approx(0.03)}


def test_the_shortest_way_counts() -> None:
    where = f"{near('o', 's', '0.01')} AND {near('s', 't', '0.02')} AND {near('o', 't', '0.001')} AND {near('t', 'o', '5')}"
    assert sum(local(f"SELECT * FROM dp.Object o, ext.Star s, ext.Star t WHERE {where}").margin_deg.values()) == pytest.approx(
        0.011
    )


def test_a_child_of_a_director_in_the_margin_is_in_the_margin() -> None:
    text = f"SELECT * FROM ext.Star s LEFT JOIN dp.Object o ON {near('s', 'o', '0.5')} LEFT JOIN dp.ForcedSource f ON f.objectId = o.objectId"
    assert local(text).margin_deg == {"s": 0.0, "o": 0.5, "f": 0.5}


def test_a_radius_of_zero_still_needs_a_ring() -> None:
    text = "SELECT * FROM dp.Object a, ext.Star b WHERE CONTAINS(POINT(a.ra, a.dec), CIRCLE(b.ra, b.dec, 0)) = 1"
    assert max(local(text).margin_deg.values()) > 0


def test_terms_of_where_come_too_late_for_a_left_join() -> None:
    where = near("s", "o", "0.01")
    assert "not tied" in refused(f"SELECT * FROM ext.Star s LEFT JOIN dp.Object o ON o.mag > 3 WHERE {where}")
    assert "not tied" in refused(
        "SELECT * FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.flux > 3 WHERE f.objectId = o.objectId"
    )


def test_the_on_of_another_relation_ties_nothing() -> None:
    text = "SELECT * FROM dp.Object o LEFT JOIN dp.ForcedSource f ON f.flux > 3 LEFT JOIN dp.Filter p ON f.objectId = o.objectId"
    assert "not tied" in refused(text)
    inner = "SELECT * FROM dp.Object o CROSS JOIN dp.ForcedSource f JOIN dp.Filter p ON f.objectId = o.objectId AND p.band = f.band"
    assert local(inner).margin_deg == {"o": 0.0, "f": 0.0}


@pytest.mark.parametrize("term", ["OR o.mag > 3", "IS NULL", "+ 1 > 3"])
def test_a_tie_must_hold_for_every_row(term: str) -> None:
    text = f"SELECT * FROM dp.Object o, dp.ForcedSource f WHERE (f.objectId = o.objectId {term})"
    if term == "+ 1 > 3":
        text = "SELECT * FROM dp.Object o, dp.ForcedSource f WHERE f.objectId = o.objectId + 1"
    assert "not tied" in refused(text)
    assert "not tied" in refused("SELECT * FROM dp.Object o, dp.ForcedSource f WHERE NOT f.objectId = o.objectId")


@pytest.mark.parametrize(
    "on",
    [
        "CAST(f.objectId AS DOUBLE) = CAST(o.objectId AS DOUBLE)",
        "f.forcedSourceId = o.objectId",
        "f.objectId = o.flags",
        "f.objectId <= o.objectId",
    ],
)
def test_only_equality_of_locality_keys_ties(on: str) -> None:
    assert "not tied" in refused(f"SELECT * FROM dp.Object o JOIN dp.ForcedSource f ON {on}")


def test_keys_of_different_families_say_nothing() -> None:
    assert "not tied" in refused("SELECT * FROM dp.Object o JOIN ext.Star s ON o.objectId = s.starId")


def test_unproven_keys_say_nothing() -> None:
    unproven = Catalog(
        tuple(dataclasses.replace(t, table=dataclasses.replace(t.table, is_key_proven=t.table.name != "Object")) for t in CATALOG)
    )
    assert "not tied" in refused(f"SELECT * FROM {O_F}", unproven)


@pytest.mark.parametrize(
    "on",
    [
        near("f", "s", "0.01").replace("f.", "src."),
        "DISTANCE(POINT(o.dec, o.ra), POINT(s.ra, s.dec)) < 0.01",
        "DISTANCE(POINT(o.ra, s.dec), POINT(s.ra, o.dec)) < 0.01",
        "DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) > 0.01",
        "DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < o.mag",
        "DISTANCE(POINT(o.ra + 1, o.dec), POINT(s.ra, s.dec)) < 0.01",
        "NOT DISTANCE(POINT(o.ra, o.dec), POINT(s.ra, s.dec)) < 0.01",
    ],
)
def test_only_distances_of_places_on_the_line_below_a_constant_tie(on: str) -> None:
    tables = "dp.Source src JOIN ext.Star s" if "src." in on else "dp.Object o JOIN ext.Star s"
    assert "not tied" in refused(f"SELECT * FROM {tables} ON {on}")


def test_replicated_relations_need_no_tie_but_cannot_be_preserved() -> None:
    assert local("SELECT * FROM dp.ForcedSource f JOIN dp.Filter p ON f.band = p.band").owner == "f"
    assert local("SELECT * FROM dp.ForcedSource f LEFT JOIN dp.Filter p ON f.band = p.band").owner == "f"
    assert local("SELECT * FROM dp.ForcedSource f, dp.Filter p").owner == "f"
    assert "may be replaced by NULLs" in refused("SELECT * FROM dp.Filter p LEFT JOIN dp.ForcedSource f ON f.band = p.band")
    assert "may be replaced by NULLs" in refused("SELECT * FROM dp.ForcedSource f RIGHT JOIN dp.Filter p ON f.band = p.band")


def test_replicated_relations_alone_are_single() -> None:
    assert local("SELECT p.band FROM dp.Filter p LEFT JOIN dp.Filter q ON p.wavelength < q.wavelength").owner == ""


@pytest.mark.parametrize(
    ("text", "obstacle"),
    [
        ("SELECT o.mag FROM dp.Object o FULL JOIN dp.ForcedSource f ON f.flux = o.mag", "FULL JOIN"),
        ("SELECT mag FROM (SELECT mag FROM dp.Object UNION SELECT mag FROM ext.Star) AS q", "derived table q"),
        ("SELECT mag FROM (SELECT TOP 3 mag FROM dp.Object) AS q", "derived table q, LIMIT needs rows"),
        ("SELECT mag FROM dp.Object WHERE mag > (SELECT AVG(mag) FROM ext.Star)", "sub-query"),
        ("WITH q AS (SELECT TOP 3 mag FROM dp.Object) SELECT a.mag FROM q a, q b", "WITH"),
    ],
)  # fmt: skip
def test_obstacles_are_named(text: str, obstacle: str) -> None:
    assert obstacle in refused(text)


def test_the_largest_table_owns_where_margins_are_equal() -> None:
    wide = Catalog(tuple(
        dataclasses.replace(t, home=dataclasses.replace(t.home, bytes=t.home.bytes * 10)) if t.table.name == "ForcedSource" else t
        for t in CATALOG
    ))  # fmt: skip
    assert local(f"SELECT * FROM {O_F}", wide).owner == "f"


def test_a_refusal_gathers_and_says_why() -> None:
    text = "SELECT p.band, f.flux FROM dp.Filter p LEFT JOIN dp.ForcedSource f ON f.band = p.band AND f.flux > 3 WHERE p.wavelength > 400"
    pieces = cut(optimize(bind(parse(text, "adql"), CATALOG).tree, CATALOG), CATALOG)
    assert [leaf.split.kind for leaf in pieces.leaves] == ["gather", "gather"]
    assert all("may be replaced by NULLs" in leaf.gathered for leaf in pieces.leaves)
    filters, forced = (leaf.split.leaf.sql(dialect="duckdb") for leaf in pieces.leaves)
    assert "WHERE" in filters
    assert "flux" in forced.split("WHERE")[1], "terms of its own ON are pushed into the relation that comes by LEFT JOIN"


def test_terms_are_not_pushed_where_they_decide_less_or_more() -> None:
    def pushed(text: str) -> list[bool]:
        pieces = cut(optimize(bind(parse(text, "adql"), CATALOG).tree, CATALOG), CATALOG)
        return [leaf.split.leaf.args.get("where") is not None for leaf in pieces.leaves]

    on = "ON f.flux = o.mag"
    assert pushed(f"SELECT o.mag, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f {on} WHERE o.mag > 3 AND f.flux > 3") == [
        False,
        False,
    ]
    assert pushed(f"SELECT o.mag, f.flux FROM dp.Object o FULL JOIN dp.ForcedSource f {on} AND o.mag > 3 AND f.flux > 3") == [
        False,
        False,
    ]
    assert pushed("SELECT o.mag, s.mag AS m FROM dp.Object o LEFT JOIN ext.Star s ON s.mag = o.mag AND o.mag > 3") == [False, False]
    assert pushed("SELECT o.mag, s.mag AS m FROM dp.Object o LEFT JOIN ext.Star s ON s.mag = o.mag WHERE s.mag > 3") == [
        False,
        False,
    ]
    assert pushed("SELECT o.mag, s.mag AS m FROM dp.Object o JOIN ext.Star s ON s.mag = o.mag AND o.mag > 3 WHERE s.mag < 3") == [
        True,
        True,
    ]
    assert pushed("SELECT o.mag, s.mag AS m FROM dp.Object o JOIN ext.Star s ON s.mag = o.mag WHERE o.mag > RAND()") == [
        False,
        False,
    ]
