"""The commands of docs/loading.md do what the page says, in order, in a shell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.registry import Registry
from tests.support.pages import run_page

FIELDS = [
    pa.field("objectId", pa.int64(), metadata={"ucd": "meta.id;meta.main", "description": "number of the object"}),
    pa.field("ra", pa.float64(), metadata={"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "right ascension"}),
    pa.field("dec", pa.float64(), metadata={"unit": "deg", "ucd": "pos.eq.dec;meta.main", "description": "declination"}),
    pa.field("flux", pa.float64(), metadata={"unit": "nJy", "ucd": "phot.flux", "description": "flux in the g band"}),
]


def write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(1)

    def objects(name: str, tract: int, count: int = 300, **columns: np.ndarray) -> None:
        ids = columns.get("ids", np.arange(count) + 1000 * tract)
        values = [
            ids,
            rng.uniform(10 * tract, 10 * tract + 5, len(ids)),
            rng.uniform(-5, 5, len(ids)),
            rng.lognormal(3, 1, len(ids)),
        ]
        pq.write_table(pa.table(values, schema=pa.schema(FIELDS)), folder / f"{name}.parquet")

    def sources(name: str, first: int, tracts: list[int]) -> None:
        of = rng.choice(np.concatenate([np.arange(300) + 1000 * tract for tract in tracts]), 900)
        pq.write_table(pa.table({"sourceId": np.arange(first, first + 900), "objectId": of}), folder / f"{name}.parquet")

    for tract in range(1, 6):
        objects(f"tract{tract}", tract)
    objects("tract3-again", 3, 250)
    objects("again", 9, ids=np.array([1000, 1001, 9000, 9000, 9001]))
    sources("sources", 0, [1, 2])
    sources("sources4", 10_000, [4])
    ids = np.arange(300) + 1000
    pq.write_table(pa.table({"left_id": ids, "right_id": ids}), folder / "pairs.parquet")


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    done = run_page("loading.md", tmp_path)
    said = " ".join(done.stderr.split())
    assert "refused, as it should be" in done.stdout
    assert done.stdout.rstrip().endswith("frozen")
    assert "my.Object: nothing new, one input is there already" in said
    assert "quarantined: 3 rows of 5" in said
    assert "taken out: 300 rows" in said
    assert (tmp_path / "objects.png").read_bytes()[:4] == b"\x89PNG"
    with Registry.open(tmp_path / "sky") as registry:
        rows = {one.table.full_name: one.rows for one in registry.catalog()}
    assert (rows["my.Object"], rows["my.Source"], rows["my.Pair"]) == (300 * 4 + 250 + 2, 1800, 300)
    assert rows["ops.Aside"] == 3
