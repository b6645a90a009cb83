"""Two tiles that are surrounded by the same few rows share one margin file; a task of both counts each row once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.app import ClusterSettings, cluster
from qengine.coordinator.service import ServiceSettings
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.plan.cost import CostModel

NEAR_POLE, FAR = -89.9997, -80.0
QUERY = "SELECT COUNT(*) AS n FROM my.star s JOIN my.object o ON DISTANCE(POINT(s.ra, s.dec), POINT(o.ra, o.dec)) < 0.005"


async def answer(store: Path) -> list[dict[str, int]]:
    # Four parts of equal cost in fewer tasks.
    cost = CostModel(part_bytes=40_000, min_task_s=1.0, max_task_s=1.0, scan_bytes_per_s=83_000, heavy_factor=1.0)
    async with cluster(store, ClusterSettings(service=ServiceSettings(cost=cost))) as service:
        explanation = await service.explain(QUERY)
        # The two in the middle, which share their margin, are one task.
        assert explanation.plan.tasks < 4
        return (await (await service.query(QUERY)).to_table()).to_pylist()


def test_a_margin_file_of_two_tiles_counts_once(tmp_path: Path) -> None:
    # The southern base tiles meet at the pole. Stars are in all four, near the pole; objects near the pole only in the first.
    tables = {
        "star": {"id": [1, 2, 3, 4], "ra": [45.0, 135.0, 225.0, 315.0], "dec": [NEAR_POLE] * 4},
        "object": {"id": [1, 2, 3, 4], "ra": [45.0, 46.0, 225.0, 315.0], "dec": [NEAR_POLE, NEAR_POLE, FAR, FAR]},
    }
    store, registry = open_store(tmp_path / "store", create=True)
    with registry:
        for name, columns in tables.items():
            path = tmp_path / f"{name}.parquet"
            pq.write_table(pa.table(columns), path)
            load(
                LoadRequest(
                    inputs=(path,),
                    catalog="my",
                    table=name,
                    key="id",
                    rows_per_tile=2 if name == "object" else 1,
                    margin_arcsec=30.0,
                ),
                registry,
                store,
            )
        margin = next(t for t in registry.catalog() if t.table.name == "object").margin
    assert len(margin) > len(set(margin.digest.to_pylist()))
    assert asyncio.run(answer(tmp_path / "store")) == [{"n": 8}]
