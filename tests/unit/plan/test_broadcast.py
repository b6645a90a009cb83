"""Which pieces of a statement become steps, and what their rows then say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sqlglot import exp

from qengine.catalog.model import Catalog, Int64Array, KeyIndex
from qengine.coordinator.planning import Planner
from qengine.errors import ExecutionError
from qengine.plan.broadcast import BroadcastLimits, Staged, step_table, with_tables
from qengine.plan.cost import CostModel
from qengine.plan.cut import cut
from qengine.plan.dynamic import fold
from qengine.plan.logical import STEPS, KeyFact, PlaceFact, RangeFact
from qengine.plan.optimize import optimize
from qengine.sql.bind import bind
from qengine.sql.parse import parse
from tests.support.imaginary import survey


class Keys:
    """An index in which key k is in cell 16 k."""

    def cells(self, index: KeyIndex | None, values: tuple[int | str, ...]) -> Int64Array:
        return np.array([16 * int(v) for v in values], np.int64)


CATALOG = survey(1)
PLANNER = Planner(Keys(), lambda: CostModel(slots=4), BroadcastLimits())  # type: ignore[arg-type]


def tree_of(text: str) -> exp.Query:
    return optimize(bind(parse(text, "adql"), CATALOG).tree, CATALOG)


def staged(text: str) -> Staged:
    return PLANNER.stage(tree_of(text), CATALOG)


def settled(text: str, rows: pa.Table) -> tuple[exp.Query, Catalog]:
    """Stage a statement with one step, and give the step these rows."""
    found = staged(text)
    assert len(found.steps) == 1
    catalog = with_tables(CATALOG, [step_table(found.steps[0], rows)])
    return fold(found.tree, catalog), catalog


def ids(*values: int, name: str = "objectId") -> pa.Table:
    return pa.table({name: pa.array(values, pa.int64())})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT objectId FROM dp.Object WHERE mag > (SELECT AVG(mag) FROM dp.Object)", "a scalar sub-query"),
        ("SELECT COUNT(*) FROM dp.Object WHERE EXISTS (SELECT 1 FROM ext.Star WHERE mag < 2)", "EXISTS"),
        (
            "SELECT o.mag, f.m FROM dp.Object o JOIN (SELECT starId, MAX(mag) AS m FROM ext.Star WHERE mag = 3 GROUP BY starId) f "
            "ON f.starId = o.flags",
            "the small side f",
        ),
        (
            "SELECT o.mag FROM dp.Object o JOIN ext.Star s ON s.starId = o.flags WHERE s.mag = 3 AND s.ra BETWEEN 1 AND 2",
            "the small side s",
        ),
        ("SELECT o.mag FROM dp.Object o JOIN (VALUES (1, 2.5), (3, 4.5)) AS v(k, w) ON o.objectId = v.k", "the small side v_2"),
        ("SELECT mag FROM dp.Object WHERE objectId IN (SELECT v.k FROM (VALUES (1), (3)) AS v(k))", "IN"),
    ],
)
def test_small_and_independent_pieces_run_first(text: str, reason: str) -> None:
    assert [step.reason for step in staged(text).steps] == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT objectId FROM dp.Object WHERE mag > 3",
        "SELECT o.mag FROM dp.Object o JOIN dp.ForcedSource f ON f.objectId = o.objectId",
        # too large to broadcast
        "SELECT o.mag FROM dp.Object o JOIN ext.Star s ON s.starId = o.flags",
        # a new answer for each row
        "SELECT objectId FROM dp.Object o WHERE mag > (SELECT AVG(s.mag) FROM ext.Star s WHERE s.starId > o.flags)",
        "SELECT objectId FROM dp.Object WHERE mag > (SELECT MAX(mag * RAND()) FROM ext.Star)",
        "SELECT objectId FROM dp.Object WHERE mag > (SELECT MAX(mag * IVO_NORMAL_RANDOM(0, 1)) FROM ext.Star)",
    ],
)
def test_what_is_local_large_or_dependent_does_not(text: str) -> None:
    assert staged(text).steps == ()


def test_every_name_of_a_common_table_expression_goes_with_the_step() -> None:
    found = staged(
        "WITH a AS (SELECT TOP 5 starId, mag FROM ext.Star WHERE mag = 1 ORDER BY starId), "
        "b AS (SELECT x.starId FROM a x JOIN a y ON x.starId = y.starId) "
        "SELECT objectId FROM dp.Object WHERE mag > (SELECT MAX(p.starId) FROM b p, b q)"
    )
    (step,) = found.steps
    assert [cte.alias for cte in step.tree.args["with_"].expressions] == ["a", "b"]


def test_scalars_and_short_lists_become_constants() -> None:
    tree, _ = settled("SELECT objectId FROM dp.Object WHERE mag > (SELECT AVG(mag) FROM dp.Object)", pa.table({"avg": [-2.5]}))
    assert "> CAST(-2.5e0 AS DOUBLE)" in tree.sql(dialect="duckdb")
    text = "SELECT o.objectId FROM dp.Object o WHERE o.objectId IN (SELECT starId FROM ext.Star WHERE mag = 3)"
    tree, _ = settled(text, pa.table({"starId": pa.array([7, None], pa.int64())}))
    assert tree.sql(dialect="duckdb").endswith('"objectId" IN (7, NULL)')
    tree, _ = settled(text, ids(name="starId"))
    assert tree.sql(dialect="duckdb").endswith("WHERE FALSE")


def test_two_rows_for_one_value_are_an_error() -> None:
    with pytest.raises(ExecutionError, match="2 rows"):
        settled(
            "SELECT objectId FROM dp.Object WHERE mag > (SELECT mag FROM ext.Star WHERE mag = 3)", pa.table({"mag": [1.0, 2.0]})
        )


def test_known_keys_are_looked_up() -> None:
    tree, catalog = settled(
        "SELECT o.mag, s.mag FROM dp.Object o JOIN ext.Star s ON s.starId = o.objectId WHERE s.mag = 3 AND s.ra = 1",
        pa.table({"starId": pa.array([4, 2, 4, None], pa.int64()), "mag": [3.0] * 4, "ra": [1.0] * 4}),
    )
    (leaf,) = cut(tree, catalog).leaves
    keys = [r.fact for r in leaf.restrictions if isinstance(r.fact, KeyFact)]
    assert [sorted(fact.values) for fact in keys] == [[2, 4]]
    plan = PLANNER.plan(tree, catalog, ())
    assert plan.leaves[0].estimate.parts == 1


def test_known_values_of_other_columns_are_a_range() -> None:
    tree, catalog = settled(
        "SELECT o.mag FROM dp.Object o JOIN ext.Star s ON s.starId = o.flags WHERE s.mag = 3 AND s.ra = 1",
        pa.table({"starId": pa.array([4, 9], pa.int64()), "mag": [3.0, 3.0], "ra": [1.0, 1.0]}),
    )
    (leaf,) = cut(tree, catalog).leaves
    (fact,) = [r.fact for r in leaf.restrictions if isinstance(r.fact, RangeFact)]
    assert fact.low <= 4 <= 9 <= fact.high
    assert fact.high < 9.1


def test_known_positions_leave_the_cells_near_them() -> None:
    text = (
        "SELECT o.mag FROM dp.Object o, (SELECT starId, ra, dec FROM ext.Star WHERE mag = 3 ORDER BY starId LIMIT 10) s "
        "WHERE DISTANCE(o.ra, o.dec, s.ra, s.dec) < 0.001"
    )
    found = staged(text)
    names = [name for name, _ in found.steps[0].columns]
    rows = pa.table({name: {"starId": [1, 2], "ra": [10.0, 359.9999], "dec": [20.0, -5.0]}[name] for name in names})
    catalog = with_tables(CATALOG, [step_table(found.steps[0], rows)])
    (leaf,) = cut(fold(found.tree, catalog), catalog).leaves
    (fact,) = [r.fact for r in leaf.restrictions if isinstance(r.fact, PlaceFact)]
    from qengine.sky.healpix import cells_of

    near = cells_of(np.array([10.0, 10.0009, 0.0005]), np.array([20.0, 20.0, -5.0]))
    assert fact.cells.contains(near).all()
    assert not fact.cells.contains(cells_of(np.array([11.0]), np.array([20.0]))).any()


def test_nothing_is_concluded_before_the_step_has_run() -> None:
    found = staged("SELECT o.mag FROM dp.Object o JOIN ext.Star s ON s.starId = o.objectId WHERE s.mag = 3 AND s.ra = 1")
    catalog = with_tables(CATALOG, [step_table(found.steps[0], None)])
    (leaf,) = cut(found.tree, catalog).leaves
    assert leaf.restrictions == ()
    assert any(t.db == STEPS for t in found.tree.find_all(exp.Table))


def test_an_unused_common_table_expression_does_not_stand_in_the_way() -> None:
    found = staged(
        "WITH a AS (SELECT starId, COUNT(*) AS n FROM ext.Star WHERE mag = 1 GROUP BY starId) "
        "SELECT o.objectId, a.n FROM dp.Object o JOIN a ON a.starId = o.flags"
    )
    assert len(found.steps) == 1
    assert found.tree.args.get("with_") is None


def test_values_are_known_keys() -> None:
    text = "SELECT o.mag FROM dp.Object o JOIN (VALUES (1, 2.5), (3, 4.5)) AS v(k, w) ON o.objectId = v.k"
    tree, catalog = settled(text, pa.table({"k": pa.array([1, 3], pa.int32()), "w": [2.5, 4.5]}))
    (leaf,) = cut(tree, catalog).leaves
    assert not leaf.gathered
    assert [r.fact.values for r in leaf.restrictions if isinstance(r.fact, KeyFact)] == [(1, 3)]
