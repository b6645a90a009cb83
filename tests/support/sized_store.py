"""A store whose scans last: some hundred thousand stars in dozens of tiles, and statements that keep workers busy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store

ROWS = 240_000
LONG_WHERE = " + ".join(f"SIN(ra * {number})" for number in range(1, 121)) + " > -1000"
"""True for every row, at the price of 120 sines."""
LONG = f"SELECT COUNT(*) AS n, SUM(id) AS s FROM sky.stars WHERE {LONG_WHERE}"
LONG_ANSWER = [{"n": ROWS, "s": ROWS * (ROWS - 1) // 2}]


def make_store(root: Path) -> Path:
    """Load sky.stars (id 0..ROWS-1, ra, dec, mag, name) into a new store of about 48 tiles under `root`."""
    rng = np.random.default_rng(7)
    columns = {
        "id": np.arange(ROWS),
        "ra": rng.uniform(0, 360, ROWS),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS))),
        "mag": rng.uniform(0, 20, ROWS).astype(np.float32),
        "name": [f"star {number}" for number in range(ROWS)],
    }
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), root / "stars.parquet")
    store, registry = open_store(root / "store", create=True)
    with registry:
        request = LoadRequest(
            inputs=(root / "stars.parquet",), catalog="sky", table="stars", key="id", ra="ra", dec="dec", rows_per_tile=10_000
        )
        load(request, registry, store)
    return store.root
