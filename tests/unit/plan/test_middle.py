"""Middles, run partition by partition without workers: the same rows as one database, whatever is exchanged."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from qengine.catalog.types import BIGINT, DOUBLE, FLOAT, INTEGER, VARCHAR, SqlType
from qengine.execution.partition import partitioned_sql
from qengine.plan.exchange import PlannedExchange, with_exchange
from qengine.plan.fragment import PhysicalPlan, fragment
from qengine.plan.physical import PARTITION
from qengine.plan.ties import meeting_types
from tests.unit.plan.test_answers import STATEMENTS
from tests.unit.plan.world import FINE, Row, World, sorted_rows

ALL = replace(FINE, exchange_bytes=0)

EXCHANGED = {
    "SELECT band, COUNT(*) AS n FROM dp.ForcedSource GROUP BY band HAVING COUNT(*) > 2": "groups",
    "SELECT DISTINCT band FROM dp.ForcedSource": "distinct",
    "SELECT COUNT(DISTINCT band) AS n, COUNT(*) AS c FROM dp.ForcedSource": "count distinct",
    "SELECT objectId, ROW_NUMBER() OVER (PARTITION BY name ORDER BY objectId) AS r FROM dp.Object": "windows",
    "SELECT a.objectId, b.starId FROM dp.Object a JOIN ext.Star b ON a.name = b.starId": "join",
    "SELECT a.name, STDDEV(a.mag) AS s FROM dp.Object a GROUP BY a.name": "groups",
    "SELECT name, flags, COUNT(*) AS n, RANK() OVER (PARTITION BY flags ORDER BY COUNT(*)) AS r FROM dp.Object GROUP BY name, flags": "groups",
    "SELECT COUNT(*) AS n FROM dp.Object a LEFT JOIN ext.Star b ON a.name = b.starId": "join",
    "SELECT COUNT(DISTINCT name) AS n, COUNT(DISTINCT mag) AS m FROM dp.Object": "count distinct",
    "SELECT a.objectId FROM dp.Object a WHERE NOT EXISTS (SELECT 1 FROM ext.Star b WHERE b.starId = a.name)": "join",
}

GATHERED = (
    "SELECT COUNT(*) AS n FROM dp.Object",  # one row comes out of each task
    "SELECT objectId, COUNT(*) OVER () AS n FROM dp.Object",  # one window over everything
    "SELECT a.objectId FROM dp.Object a JOIN ext.Star b ON a.name < b.starId",  # no equality
    "SELECT DISTINCT s FROM (SELECT RAND() AS s FROM dp.Object) AS q",  # running a task again gives other rows
    "SELECT name, COUNT(*) AS n FROM (SELECT TOP 5 name FROM dp.Object) AS q GROUP BY name",  # the same
)


def planned(world: World, text: str, language: str = "adql") -> PhysicalPlan:
    pieces = world.pieces(text, language)
    resolved, columns = world.resolve(pieces), world.bound(text, language).columns
    plan = fragment(pieces, resolved, columns, ALL)
    return with_exchange(plan, pieces, lambda cost: fragment(pieces, resolved, columns, cost))


def run(world: World, plan: PhysicalPlan, exchange: PlannedExchange) -> list[Row]:
    """The rows of the plan with everything exchanged."""
    gathered = {leaf.relation: world.run_leaf(leaf) for leaf in plan.leaves}
    relations = {name: rows for n, (name, rows) in enumerate(gathered.items()) if n not in exchange.partitioning}
    for middle in exchange.middles:
        parted: dict[str, pa.Table] = {}
        for i in middle.inputs:
            world.merger.register("rows", gathered[i.relation])
            parted[i.relation] = world.merger.execute(
                partitioned_sql("SELECT * FROM rows", exchange.partitioning[i.leaf])
            ).to_arrow_table()
            world.merger.unregister("rows")
        found = []
        for number in range(exchange.count):
            for name, rows in parted.items():
                world.merger.register(name, rows.filter(pa.compute.field(PARTITION) == number).drop_columns([PARTITION]))
            found.append(world.merger.execute(middle.sql).to_arrow_table())
            for name in parted:
                world.merger.unregister(name)
        relations[middle.relation] = pa.concat_tables(found)
    final = exchange.final_sql
    if final is None:
        return [tuple(row.values()) for row in relations[exchange.middles[0].relation].to_pylist()]
    for name, rows in relations.items():
        world.merger.register(name, rows)
    try:
        return world.merger.execute(final).fetchall()
    finally:
        for name in relations:
            world.merger.unregister(name)


@pytest.mark.parametrize("line", [*EXCHANGED, *STATEMENTS])
def test_partitions_give_the_rows_of_one_database(plan_world: World, line: str) -> None:
    language, _, text = line.partition(":") if line.startswith("sql:") else ("adql", "", line)
    plan = planned(plan_world, text, language)
    if plan.exchange is not None and not plan.inline:
        got = run(plan_world, plan, plan.exchange)
        assert sorted_rows(got) == sorted_rows(plan_world.truth(text, language=language)), text


@pytest.mark.parametrize(("text", "kind"), EXCHANGED.items())
def test_what_can_be_exchanged(plan_world: World, text: str, kind: str) -> None:
    exchange = planned(plan_world, text).exchange
    assert exchange is not None
    assert [m.kind for m in exchange.middles] == [kind]


@pytest.mark.parametrize("text", GATHERED)
def test_what_is_gathered(plan_world: World, text: str) -> None:
    assert planned(plan_world, text).exchange is None


def test_many_statements_have_a_middle(plan_world: World) -> None:
    count = sum(planned(plan_world, text).exchange is not None for text in STATEMENTS if not text.startswith("sql:"))
    assert count > 20


def test_nothing_is_exchanged_below_the_threshold(plan_world: World) -> None:
    text = next(iter(EXCHANGED))
    pieces = plan_world.pieces(text)
    for size in (1 << 40, -1):
        plan = plan_world.plan(text, cost=replace(FINE, exchange_bytes=size))
        assert with_exchange(plan, pieces, lambda _: plan) == plan  # noqa: B023


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ((BIGINT,), "BIGINT"),
        ((VARCHAR, VARCHAR), "VARCHAR"),
        ((BIGINT, INTEGER), "BIGINT"),
        ((SqlType("UBIGINT"), INTEGER), "HUGEINT"),
        ((BIGINT, DOUBLE), "DOUBLE"),
        ((INTEGER, FLOAT), "FLOAT"),
        ((FLOAT, DOUBLE), "DOUBLE"),
        ((INTEGER, FLOAT, DOUBLE), None),
        ((SqlType("DECIMAL(9,2)"), DOUBLE), "DOUBLE"),
        ((SqlType("DECIMAL(9,2)"), SqlType("DECIMAL(9,3)")), None),
        ((VARCHAR, BIGINT), None),
    ],
)
def test_types_in_which_equal_values_meet(types: tuple[SqlType, ...], expected: str | None) -> None:
    assert meeting_types([[t] for t in types]) == (None if expected is None else [expected])
