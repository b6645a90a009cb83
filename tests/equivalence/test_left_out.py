"""What statistics and the key index leave out is missing in no answer: parts full of traps, and fewer of them are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.catalog.model import TableKind
from qengine.client.local import LocalClient
from qengine.coordinator.service import ServiceSettings
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.plan.cost import CostModel
from qengine.plan.fragment import task_sql

ROWS = 4000
SMALL_TASKS = CostModel(min_task_s=1e-6, max_task_s=1e-5, least_task_s=1e-7, part_bytes=100)


def objects() -> pa.Table:
    """Objects in stripes of declination, so that statistics of parts differ, with every kind of value that may mislead."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 90, ROWS), rng.uniform(0, 60, ROWS)
    stripe = (dec // 10).astype(int)
    mag = np.round(stripe * 2 + rng.uniform(1, 4, ROWS), 1)
    zero = np.where(rng.random(ROWS) < 0.5, 0.0, -0.0) * (stripe < 3) + (stripe >= 3) * rng.uniform(0, 2, ROWS).round(1)
    text = [f"{'x' * (200 if s == 5 else 3)}{s}{n % 7}" for n, s in enumerate(stripe)]
    gaps = rng.random(ROWS) < 0.3
    only_here = stripe == 4
    return pa.table(
        {
            "id": np.arange(ROWS),
            "ra": ra,
            "dec": dec,
            "mag": pa.array(mag, mask=gaps),
            "nan": np.where(gaps, np.nan, mag),
            "zero": zero,
            "far": np.where(stripe == 0, -math.inf, np.where(stripe == 5, math.inf, mag)),
            "few": pa.array(mag, mask=~(only_here & (rng.random(ROWS) < 0.02))),
            "none": pa.array([None] * ROWS, pa.float64()),
            "level": stripe.astype(np.int32),
            "small": mag.astype(np.float32),
            "text": pa.array(text, mask=rng.random(ROWS) < 0.1),
            "moment": pa.array((mag * 1e12).astype(np.int64), pa.timestamp("us")),
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("top")
    rows = objects()
    pq.write_table(rows, root / "objects.parquet")
    children = rows.select(["id", "ra", "dec", "mag", "level"]).rename_columns(["parent", "ra", "dec", "flux", "visit"])
    children = pa.concat_tables([children, children]).append_column("child", pa.array(np.arange(2 * ROWS)))
    pq.write_table(children, root / "children.parquet")
    made, registry = open_store(root / "store", create=True)
    with registry:
        common: dict[str, Any] = {"catalog": "s", "rows_per_tile": 100, "ra": "ra", "dec": "dec"}
        load(LoadRequest(inputs=(root / "objects.parquet",), table="o", key="id", **common), registry, made)
        load(
            LoadRequest(
                inputs=(root / "children.parquet",), table="c", kind=TableKind.CHILD, key="child", director="o",
                director_key="parent", **common,
            ),
            registry, made,
        )  # fmt: skip
    return made.root


@pytest.fixture(scope="module")
def oracle(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as db:
        db.execute("CREATE SCHEMA s")
        for name, file in (("o", "objects"), ("c", "children")):
            db.execute(f"CREATE TABLE s.{name} AS SELECT * FROM read_parquet('{store.parent / file}.parquet')")
        db.execute("UPDATE s.o SET nan = NULL WHERE isnan(nan)")
        yield db


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[LocalClient]:
    settings = ClusterSettings(slots=2, service=ServiceSettings(cost=SMALL_TASKS))
    with LocalClient(cluster(store, settings)) as made:
        yield made


ORDERS = [
    f"{column}{direction}{more}"
    for column in ("mag", "nan", "zero", "far", "few", "none", "level", "small", "text", "moment", "id")
    for direction in ("", " DESC")
    for more in ("", ", id DESC")
]


CASES = [(1, ""), (30, ""), (7, " WHERE level > 1"), (150, " WHERE mag BETWEEN 3 AND 9 OR text IS NULL")]


def values(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [None if v is None else v + 0.0 if isinstance(v, float) else v for v, *_ in rows]


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_one_database(client: LocalClient, oracle: duckdb.DuckDBPyConnection, order: str) -> None:
    column = order.split(",")[0].split()[0]
    is_whole = order.endswith("id DESC") or column == "id"
    items = f"{column}, id" if is_whole else column
    terms = ", ".join(f"{term} NULLS LAST" for term in order.split(", "))
    for n, where in CASES:
        found = client.query(f"SELECT TOP {n} {items} FROM s.o{where} ORDER BY {order}").to_arrow()
        expected = oracle.execute(f"SELECT {items} FROM s.o{where} ORDER BY {terms} LIMIT {n}").fetchall()
        got = [tuple(row.values()) for row in found.to_pylist()]
        assert values(got) == values(expected)
        if is_whole:
            assert [row[1] for row in got] == [row[1] for row in expected]


def actual(client: LocalClient, text: str) -> dict[str, Any]:
    (leaf,) = client.explain(text, analyze=True).to_json()["fragments"]
    return dict(leaf)


def test_fewer_parts_are_planned_where_nothing_else_is_asked(client: LocalClient) -> None:
    everything = actual(client, "SELECT mag FROM s.o ORDER BY mag")
    for order in ("mag", "mag DESC", "level DESC, id", "moment", "text"):
        top = actual(client, f"SELECT TOP 5 mag FROM s.o ORDER BY {order}")
        assert top["parts"] < everything["parts"] / 2, order
    unknown = actual(client, "SELECT TOP 5 mag FROM s.o ORDER BY mag + 1")
    assert unknown["parts"] == everything["parts"]


def test_fewer_tasks_run_where_rows_show_it(client: LocalClient) -> None:
    plan = actual(client, "SELECT TOP 5 id, mag FROM s.o WHERE id >= 0 ORDER BY mag")
    assert plan["tasks"] > 20
    assert plan["actual"]["tasks"] < plan["tasks"] / 2
    ties = actual(client, "SELECT TOP 5 id, level FROM s.o WHERE id >= 0 ORDER BY level")
    assert ties["actual"]["tasks"] < ties["tasks"] / 4, "of equal values any will do"
    decided = actual(client, "SELECT TOP 5 id, level FROM s.o WHERE id >= 0 ORDER BY level, id")
    assert ties["actual"]["tasks"] < decided["actual"]["tasks"] < decided["tasks"], "the second column decides between equal ones"
    child = actual(client, "SELECT TOP 5 child, flux FROM s.c WHERE visit >= 0 ORDER BY flux DESC")
    assert child["actual"]["tasks"] < child["tasks"] / 2
    joined = actual(client, "SELECT TOP 5 c.child FROM s.o JOIN s.c ON c.parent = o.id WHERE o.level > 0 ORDER BY o.mag DESC")
    assert joined["actual"]["tasks"] < joined["tasks"]


@pytest.mark.parametrize("column", ["mag", "nan", "zero", "far", "few", "none", "level", "small", "text", "moment", "id"])
def test_aggregates_of_one_database(client: LocalClient, oracle: duckdb.DuckDBPyConnection, column: str) -> None:
    items = f"COUNT(*) AS n, COUNT({column}) AS k, MIN({column}) AS low, MAX({column}) AS high"
    (found,) = client.query(f"SELECT {items} FROM s.o").to_arrow().to_pylist()
    expected = oracle.execute(f"SELECT {items} FROM s.o").fetchone()
    assert expected is not None
    assert tuple(found.values()) == expected
    plan = client.explain(f"SELECT {items} FROM s.o").to_json()
    is_known = column not in ("zero", "far", "text")
    assert (plan["tasks"] == 0) is is_known, plan["fragments"]


LIST = ", ".join(str(n) for n in [*range(0, ROWS, 37), -5, 10**12, 3, 3])


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT id, mag FROM s.o WHERE id IN ({LIST})",
        f"SELECT id, mag FROM s.o WHERE id IN ({LIST}) AND level > 2",
        f"SELECT COUNT(*) AS n FROM s.o WHERE id NOT IN ({LIST})",
        f"SELECT COUNT(*) AS n FROM s.o WHERE (id IN ({LIST}) AND level = 1) OR level = 3",
        f"SELECT child, parent, flux FROM s.c WHERE parent IN ({LIST})",
        f"SELECT parent, COUNT(*) AS n FROM s.c WHERE parent IN ({LIST}) GROUP BY parent",
        f"SELECT c.child, o.mag FROM s.o JOIN s.c ON c.parent = o.id WHERE o.id IN ({LIST})",
        f"SELECT child FROM s.c WHERE child IN ({LIST})",
        f"SELECT child FROM s.c WHERE parent IN ({LIST}) AND child IN ({LIST})",
    ],
    ids=range(9),
)
def test_lists_of_keys(client: LocalClient, oracle: duckdb.DuckDBPyConnection, statement: str) -> None:
    found = sorted(tuple(row.values()) for row in client.query(statement).to_arrow().to_pylist())
    assert found == sorted(oracle.execute(statement).fetchall())


def test_a_task_gets_the_keys_of_its_cells(client: LocalClient) -> None:
    plan = client.explain(f"SELECT id FROM s.o WHERE id IN ({LIST})")
    (leaf,) = plan.plan.leaves
    assert leaf.task_count > 3
    (keys,) = leaf.key_lists
    texts = [task_sql(leaf, number) for number in range(leaf.task_count)]
    assert all(len(text) < len(leaf.sql) for text in texts)
    listed = [int(key) for text in texts for key in text.split(" IN (")[1].split(")")[0].split(",")]
    assert sorted(set(listed)) == sorted(keys.keys.tolist())
    assert len(listed) == len(keys.keys)
