"""Match tables on a real cluster: director, match, director in one leaf, by either layout, against one DuckDB."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.catalog.model import TableKind
from qengine.coordinator.service import QueryService, ServiceSettings
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.plan.cost import CostModel
from qengine.plan.fragment import PhysicalPlan
from tests.support.cluster import NO_BROADCASTS

FINE = CostModel(min_task_s=1e-6, max_task_s=2e-5, part_bytes=50)
COUNT = 300


def _sky() -> dict[str, pa.Table]:
    """Objects and stars around the poles, the seam, corners of tiles and elsewhere; some without a position."""
    rng = np.random.default_rng(11)
    ra = rng.uniform(0, 360, COUNT)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, COUNT)))
    corners = [(0.0, 0.0), (359.99999, 0.0), (45.0, 0.0), (45.0, 41.8103149), (10.0, 90.0), (200.0, -90.0), (180.0, 45.0)]
    for i, (lon, lat) in enumerate(corners * 6):
        ra[i], dec[i] = (lon + rng.normal(0, 0.002)) % 360, np.clip(lat + rng.normal(0, 0.002), -90, 90)
    shift = rng.normal(0, 0.0005, COUNT)
    objects = {"id": np.arange(COUNT) * 3, "ra": ra, "dec": dec, "mag": rng.integers(15, 25, COUNT)}
    stars = {
        "id": [f"s{i}" for i in range(COUNT)],
        "ra": ra,
        "dec": np.clip(dec + shift, -90, 90),
        "par": rng.integers(0, 9, COUNT),
    }
    clean, rough = [], []
    for i in range(COUNT):
        clean += [(i * 3, f"s{i}")] * int(rng.integers(0, 3))
    rough += [*clean[:100], (None, "s5"), (10**9, "s7"), (9, "nobody"), (9, None), (None, None)]
    sources = {"oid": rng.integers(0, COUNT, 900) * 3, "flux": rng.integers(0, 50, 900)}

    def pairs(given: list[tuple[int | None, str | None]]) -> pa.Table:
        columns = {"oid": pa.array([g[0] for g in given], pa.int64()), "sid": pa.array([g[1] for g in given], pa.string())}
        return pa.table(columns | {"score": pa.array(range(len(given)), pa.int64())})

    return {
        "obj": pa.table(objects), "star": pa.table(stars), "src": pa.table(sources), "pair": pairs(clean), "rough": pairs(rough),
    }  # fmt: skip


WORDS: dict[str, dict[str, Any]] = {
    "obj": {"key": "id"},
    "star": {"key": "id"},
    "src": {"kind": TableKind.CHILD, "director": "obj", "director_key": "oid"},
    "pair": {"kind": TableKind.MATCH, "left": "obj.oid", "right": "star.sid"},
    "rough": {"kind": TableKind.MATCH, "left": "obj.oid", "right": "star.sid"},
}


class Site:
    """A store with match tables, and the same rows in one DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.tables = _sky()
        self.root = folder / "store"
        store, registry = open_store(self.root, create=True)
        self.oracle = duckdb.connect()
        self.oracle.execute("CREATE SCHEMA d")
        with registry:
            for name, rows in self.tables.items():
                path = folder / f"{name}.parquet"
                pq.write_table(rows, path)
                load(LoadRequest(inputs=(path,), catalog="d", table=name, rows_per_tile=10, **WORDS[name]), registry, store)
                self.oracle.register("incoming", rows)
                self.oracle.execute(f"CREATE TABLE d.{name} AS SELECT * FROM incoming")

    def ask(self, text: str) -> tuple[PhysicalPlan, list[tuple[Any, ...]]]:
        async def run() -> tuple[PhysicalPlan, pa.Table]:
            async with cluster(self.root, ClusterSettings(service=ServiceSettings(cost=FINE, broadcast=NO_BROADCASTS))) as service:
                return await _run(service, text)

        plan, rows = asyncio.run(run())
        return plan, sorted((tuple(row.values()) for row in rows.to_pylist()), key=repr)

    def truth(self, text: str) -> list[tuple[Any, ...]]:
        return sorted(self.oracle.execute(text).fetchall(), key=repr)


async def _run(service: QueryService, text: str) -> tuple[PhysicalPlan, pa.Table]:
    explained = await service.explain(text)
    return explained.plan, await (await service.query(text)).to_table()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("match"))
    yield found
    found.oracle.close()


THREE = "d.obj o JOIN d.pair m ON m.oid = o.id JOIN d.star s ON s.id = m.sid"

LOCAL = [
    f"SELECT o.id, s.id AS sid, m.score FROM {THREE}",
    f"SELECT o.id, s.par FROM {THREE} WHERE o.mag > 20 AND s.par < 4",
    "SELECT o.id, s.id AS sid FROM d.star s LEFT JOIN d.pair m ON m.sid = s.id LEFT JOIN d.obj o ON o.id = m.oid",
    "SELECT o.id, s.id AS sid FROM d.obj o LEFT JOIN d.pair m ON m.oid = o.id LEFT JOIN d.star s ON s.id = m.sid",
    "SELECT m.score, s.par FROM d.pair m JOIN d.star s ON s.id = m.sid",
    "SELECT m.score, o.mag FROM d.pair m LEFT JOIN d.obj o ON o.id = m.oid",
    "SELECT o.id, SUM(f.flux) AS flux, COUNT(*) AS n FROM d.star s JOIN d.pair m ON m.sid = s.id JOIN d.obj o ON o.id = m.oid "
    "JOIN d.src f ON f.oid = o.id GROUP BY o.id",
    "SELECT s.id, COUNT(*) AS n FROM d.star s JOIN d.pair m ON m.sid = s.id JOIN d.obj o ON o.id = m.oid GROUP BY s.id",
    "SELECT s.id FROM d.star s WHERE NOT EXISTS (SELECT 1 FROM d.pair m WHERE m.sid = s.id)",
    "SELECT o.id FROM d.obj o WHERE EXISTS (SELECT 1 FROM d.pair m JOIN d.star s ON s.id = m.sid WHERE m.oid = o.id AND s.par > 5)",
    "SELECT m.score FROM d.pair m WHERE m.sid = 's17'",
    "SELECT m.score, o.mag FROM d.pair m JOIN d.obj o ON o.id = m.oid WHERE m.sid IN ('s17', 's18', 's19')",
    "SELECT o.id, s.id AS sid FROM d.obj o JOIN d.rough m ON m.oid = o.id JOIN d.star s ON s.id = m.sid",
    "SELECT m.score, s.par FROM d.rough m LEFT JOIN d.star s ON s.id = m.sid",
    "SELECT m.score, o.id FROM d.rough m LEFT JOIN d.obj o ON o.id = m.oid",
    "SELECT s.id, o.id AS oid FROM d.star s LEFT JOIN d.rough m ON m.sid = s.id LEFT JOIN d.obj o ON o.id = m.oid",
    "SELECT oid, COUNT(*) AS n FROM d.rough GROUP BY oid",
    "SELECT sid, COUNT(*) AS n FROM d.rough GROUP BY sid",
    "SELECT o.id, m.score FROM d.obj o FULL JOIN d.rough m ON m.oid = o.id",
    "SELECT s.id, m.score FROM d.star s FULL JOIN d.rough m ON m.sid = s.id",
]

FINAL = [
    "SELECT COUNT(*) AS n, MAX(score) AS x FROM d.rough WHERE score >= 0",
    f"SELECT s.par, COUNT(*) AS n, SUM(o.mag) AS x FROM {THREE} GROUP BY s.par",
]

NOT_LOCAL = [
    # A pair whose object is unknown lies beyond the sky by the one key, and by the other where its star is.
    "SELECT m.score, o.id, s.id AS sid FROM d.rough m LEFT JOIN d.obj o ON o.id = m.oid LEFT JOIN d.star s ON s.id = m.sid",
    "SELECT m.score, n.score AS other FROM d.rough m JOIN d.rough n ON n.score = m.score + 1",
]


@pytest.mark.parametrize("text", LOCAL + FINAL)
def test_pairs_join_in_the_leaf(site: Site, text: str) -> None:
    plan, rows = site.ask(text)
    assert rows == site.truth(text)
    assert len(plan.leaves) == 1
    assert not plan.leaves[0].gathered
    if text in LOCAL:
        assert plan.final_sql is None


@pytest.mark.parametrize("text", NOT_LOCAL)
def test_what_a_layout_does_not_say_is_gathered(site: Site, text: str) -> None:
    plan, rows = site.ask(text)
    assert rows == site.truth(text)
    assert any(leaf.gathered for leaf in plan.leaves)


def test_a_query_of_the_match_table_alone_reads_one_layout(site: Site) -> None:
    plan, _ = site.ask("SELECT score FROM d.pair")
    assert plan.leaves[0].estimate.rows == site.tables["pair"].num_rows


def test_the_layout_that_a_key_looks_up_is_read(site: Site) -> None:
    for text in ("SELECT score FROM d.pair WHERE sid = 's17'", "SELECT score FROM d.pair WHERE oid = 51"):
        plan, _ = site.ask(text)
        assert plan.leaves[0].estimate.parts <= 1
