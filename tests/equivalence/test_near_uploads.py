"""Large uploads of which each task reads what is near: the rows are those of one DuckDB that has everything, wherever on the sky."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qengine.app import ClusterSettings, cluster
from qengine.cli import run
from qengine.coordinator.service import QueryService, ServiceSettings
from qengine.plan.cost import CostModel
from qengine.plan.physical import SHARED
from qengine.plan.reading import task_inputs

STARS = 6000
PLACES = ((0.0, 90.0), (0.0, -90.0), (0.0, 0.0), (359.9999, 30.0), (45.0, 41.8103149), (180.0, -5.0))
"""Where stars and uploaded rows crowd: poles, RA 0, corners of tiles, anywhere."""

COST = CostModel(min_task_s=1e-9, least_task_s=1e-9, tasks_per_slot=10, near_rows=0, near_piece_rows=64)


def _spread(rng: np.random.Generator, count: int, width_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Return positions: a third anywhere, the others around `PLACES`."""
    centre = np.array(PLACES)[rng.integers(0, len(PLACES), count)]
    dec = np.clip(centre[:, 1] + rng.normal(0, width_deg, count), -90, 90)
    ra = (centre[:, 0] + rng.normal(0, width_deg, count) / np.maximum(np.cos(np.radians(dec)), 0.01)) % 360.0
    far = rng.random(count) < 0.33
    ra[far], dec[far] = rng.uniform(0, 360, far.sum()), np.degrees(np.arcsin(rng.uniform(-1, 1, far.sum())))
    return ra, dec


def _stars() -> pa.Table:
    ra, dec = _spread(np.random.default_rng(1), STARS, 2.0)
    return pa.table({"id": np.arange(STARS), "ra": ra, "dec": dec, "mag": np.arange(STARS) % 17})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[QueryService, asyncio.Runner]]:
    folder = tmp_path_factory.mktemp("near")
    pq.write_table(_stars(), folder / "stars.parquet")
    words = ["--table", "stars", "--key", "id", "--ra", "ra", "--dec", "dec", "--rows-per-tile", "200"]
    assert run(["load", str(folder / "stars.parquet"), "--store", str(folder / "store"), "--into", "sky", *words]) == 0
    with asyncio.Runner() as runner:
        opened = cluster(Path(folder / "store"), ClusterSettings(service=ServiceSettings(cost=COST)))
        yield runner.run(opened.__aenter__()), runner
        runner.run(opened.__aexit__(None, None, None))


NEAR = "DISTANCE(POINT({m}.ra, {m}.dec), POINT({s}.ra, {s}.dec)) < {r}"
APART = "apart({m}.ra, {m}.dec, {s}.ra, {s}.dec) < {r}"
STATEMENTS = {
    "inner": "SELECT m.n, s.id FROM {mine} AS m JOIN {stars} AS s ON {ms}",
    "in where": "SELECT m.n, s.id FROM {stars} AS s, {mine} AS m WHERE {ms} AND s.mag < 9",
    "counts": "SELECT m.n, COUNT(*) AS c, SUM(s.mag) AS t FROM {mine} AS m JOIN {stars} AS s ON {ms} GROUP BY m.n",
    "stars kept": "SELECT s.id, m.n FROM {stars} AS s LEFT JOIN {mine} AS m ON {ms}",
    "stars kept, of some": "SELECT s.id, m.n FROM {stars} AS s LEFT JOIN {mine} AS m ON {ms} AND m.n < 40 WHERE s.mag = 3",
    "stars without": "SELECT s.id FROM {stars} AS s LEFT JOIN {mine} AS m ON {ms} WHERE m.n IS NULL",
    "by key, near in where": "SELECT s.id, m.n FROM {stars} AS s LEFT JOIN {mine} AS m ON m.id = s.id WHERE {ms}",
    "by key, near or none": "SELECT s.id, m.n FROM {stars} AS s LEFT JOIN {mine} AS m ON m.id = s.id WHERE {ms} OR m.n IS NULL",
    "mine kept": "SELECT m.n, s.id FROM {mine} AS m LEFT JOIN {stars} AS s ON {ms}",
    "right": "SELECT m.n, s.id FROM {stars} AS s RIGHT JOIN {mine} AS m ON {ms}",
    "full": "SELECT m.n, s.id FROM {stars} AS s FULL JOIN {mine} AS m ON {ms}",
    "chain": "SELECT m.n, s.id, t.id AS o FROM {mine} AS m JOIN {stars} AS s ON {ms} JOIN {stars} AS t ON {st} AND t.id < s.id WHERE s.mag = 3",
    "end of a chain": "SELECT s.id, t.id AS o, m.n FROM {stars} AS s JOIN {stars} AS t ON {st} AND t.id < s.id JOIN {mine} AS m ON {mt} WHERE s.mag = 3",
    "end of a left chain": "SELECT s.id, t.id AS o, m.n FROM {stars} AS s LEFT JOIN {stars} AS t ON {st} AND t.id < s.id"
    " LEFT JOIN {mine} AS m ON {mt} WHERE s.mag = 3",
    "exists": "SELECT s.id FROM {stars} AS s WHERE EXISTS (SELECT 1 FROM {mine} AS m WHERE {ms})",
    "none exists": "SELECT s.id FROM {stars} AS s WHERE NOT EXISTS (SELECT 1 FROM {mine} AS m WHERE {ms})",
    "twice": "SELECT m.n, s.id, (SELECT COUNT(*) FROM {mine} AS k) AS c FROM {mine} AS m JOIN {stars} AS s ON {ms}",
    "two of mine": "SELECT m.n, k.n AS o, s.id FROM {mine} AS m JOIN {stars} AS s ON {ms} JOIN {mine} AS k ON k.id = s.id",
    "not near": "SELECT COUNT(*) AS c FROM {mine} AS m JOIN {stars} AS s ON NOT ({ms}) AND s.mag = 3 AND m.n < 50",
    "derived": "SELECT d.n, s.id FROM (SELECT n, ra, dec FROM {mine} AS q WHERE n < 90) AS d JOIN {stars} AS s ON {ds}",
}


def _written(words: str, radius: float, distance: str, **tables: str) -> str:
    near = {f"{a}{b}": distance.format(m=a, s=b, r=radius) for a, b in ("ms", "mt", "st", "ds")}
    return words.format(**near, **tables)


def _oracle(sql: str, mine: pa.Table) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        connection.register("stars", _stars())
        connection.register("mine", mine)
        connection.execute(
            "CREATE MACRO apart(a, b, c, d) AS degrees(2 * asin(sqrt(pow(sin(radians(d - b) / 2), 2)"
            " + cos(radians(b)) * cos(radians(d)) * pow(sin(radians(c - a) / 2), 2))))"
        )
        return connection.execute(sql).fetchall()


async def _answer(service: QueryService, text: str, mine: pa.Table) -> list[tuple[object, ...]]:
    result = await service.query(text, uploads={"mine": mine}, language="sql")
    return [tuple(row.values()) async for batch in result.batches for row in batch.to_pylist()]


def _mine(seed: int, count: int, width_deg: float) -> pa.Table:
    rng = np.random.default_rng(seed)
    ra, dec = _spread(rng, count, width_deg)
    lost = rng.random(count) < 0.05
    return pa.table({
        "n": np.arange(count), "id": rng.integers(0, STARS, count), "ra": pa.array(ra - 360.0 * (rng.random(count) < 0.1), mask=lost),
        "dec": pa.array(dec, mask=lost),
    })  # fmt: skip


def _sorted(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return sorted(rows, key=lambda row: tuple((value is None, value if value is not None else 0) for value in row))


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_rows_of_one_duckdb(service: tuple[QueryService, asyncio.Runner], name: str) -> None:
    mine = _mine(5, 300, 2.0)
    got = service[1].run(
        _answer(service[0], _written(STATEMENTS[name], 0.7, NEAR, mine="TAP_UPLOAD.mine", stars="sky.stars"), mine)
    )
    wanted = _oracle(_written(STATEMENTS[name], 0.7, APART, mine="mine", stars="stars"), mine)
    assert _sorted(got) == _sorted(wanted)
    assert wanted


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(("inner", "stars kept", "in where", "counts")),
    seed=st.integers(0, 10_000),
    count=st.sampled_from((1, 20, 200)),
    width=st.sampled_from((0.001, 0.1, 5.0, 40.0)),
    radius=st.sampled_from((1e-6, 0.01, 0.3, 2.0, 9.0)),
)
def test_anywhere(
    service: tuple[QueryService, asyncio.Runner], name: str, seed: int, count: int, width: float, radius: float
) -> None:
    mine = _mine(seed, count, width)
    text = _written(STATEMENTS[name], radius, NEAR, mine="TAP_UPLOAD.mine", stars="sky.stars")
    wanted = _oracle(_written(STATEMENTS[name], radius, APART, mine="mine", stars="stars"), mine)
    assert _sorted(service[1].run(_answer(service[0], text, mine))) == _sorted(wanted)


def test_tasks_read_what_is_near_and_little_else(service: tuple[QueryService, asyncio.Runner]) -> None:
    mine = _mine(5, 3000, 2.0)
    text = _written(STATEMENTS["inner"], 0.05, NEAR, mine="TAP_UPLOAD.mine", stars="sky.stars")
    planned = service[0].plan(text, language="sql", uploads={"mine": mine})
    explained = service[1].run(service[0].explain(text, language="sql", uploads={"mine": mine})).to_json()
    (leaf,) = planned.plan.leaves
    assert leaf.task_count > 12
    assert {i["alias"]: i["reads"] for i in explained["fragments"][0]["inputs"]}["m"] == "near"
    (near,) = [i.near for i in leaf.inputs if i.near is not None]
    cells, pieces = near.rows.column("qe line").to_numpy(), near.pieces
    assert pa.concat_tables(pieces.values()) == near.rows
    read = sent = 0
    for number in range(leaf.task_count):
        (found,) = [one for one in task_inputs(leaf, number) if one.line_column == "qe line"]
        names = [part.uri.removeprefix(SHARED) for part in found.parts]
        within = [(cells >= start) & (cells < stop) for start, stop in found.ranges]
        needed = np.flatnonzero(np.any(within, axis=0)) if within else np.empty(0, int)
        assert set(names) == {list(pieces)[row // COST.near_piece_rows] for row in needed}
        read, sent = read + len(needed), sent + len(names)
    assert len(cells) <= read < 3 * len(cells)
    assert len(pieces) <= sent < 4 * len(pieces) + 2 * leaf.task_count


@pytest.mark.parametrize(("column", "value"), [("dec", 95.0), ("ra", math.inf)])
def test_positions_that_are_none_are_left_to_the_tasks(
    service: tuple[QueryService, asyncio.Runner], column: str, value: float
) -> None:
    mine = _mine(5, 100, 2.0)
    values = mine.column(column).to_pylist()
    values[3] = value
    mine = mine.set_column(mine.column_names.index(column), column, pa.array(values))
    text = _written(STATEMENTS["inner"], 0.05, NEAR, mine="TAP_UPLOAD.mine", stars="sky.stars")
    planned = service[0].plan(text, language="sql", uploads={"mine": mine})
    assert all(i.near is None for i in planned.plan.leaves[0].inputs)
