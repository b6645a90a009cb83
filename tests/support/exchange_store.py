"""A store for exchanges: two catalogues on different skies that nothing ties but values, and the same rows in one DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store


def tables(rows: int, seed: int = 3) -> dict[str, pa.Table]:
    """Make stars and spots: keys that repeat and are missing, of several types, and values that SQL calls equal but are not alike."""
    rng = np.random.default_rng(seed)

    def sky() -> dict[str, object]:
        return {"ra": rng.uniform(0, 360, rows), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))}

    def missing(values: np.ndarray, share: float, kind: pa.DataType) -> pa.Array:
        return pa.array(values, mask=rng.random(rows) < share).cast(kind)

    keys = max(rows // 3, 1)
    stars = {
        "id": np.arange(rows),
        **sky(),
        "k": missing(rng.integers(0, keys, rows), 0.1, pa.int64()),
        "g": missing(rng.integers(0, 7, rows), 0.1, pa.int16()),
        "x": missing(rng.choice([-0.0, 0.0, 0.5, 1.0, 2.0, 1e300, -3.25], rows), 0.1, pa.float64()),
        "v": rng.integers(-1000, 1000, rows),
        "name": [None if n % 11 == 0 else f"n{n % max(rows // 4, 1)}" for n in range(rows)],
    }
    spots = {
        "sid": np.arange(rows),
        **sky(),
        "k": missing(rng.integers(0, keys, rows), 0.1, pa.int32()),
        "kf": missing(rng.integers(0, keys, rows) * 1.0, 0.1, pa.float32()),
        "x": missing(rng.choice([-0.0, 0.0, 0.5, 1.0, 7.0], rows), 0.1, pa.float32()),
        "w": rng.uniform(0, 1, rows),
        "name": [None if n % 13 == 0 else f"n{n % max(rows // 5, 1)}" for n in range(rows)],
    }
    return {"stars": pa.table(stars), "spots": pa.table(spots)}


def load_tables(root: Path, found: dict[str, pa.Table], *, rows_per_tile: int) -> Path:
    """Load both as directors of catalogues one and two, and return the store's path."""
    root.mkdir(parents=True, exist_ok=True)
    store, registry = open_store(root / "store", create=True)
    with registry:
        for catalog, (name, rows) in zip(("one", "two"), found.items(), strict=True):
            pq.write_table(rows, root / f"{name}.parquet")
            request = LoadRequest(
                inputs=(root / f"{name}.parquet",), catalog=catalog, table=name, key=rows.column_names[0], ra="ra", dec="dec",
                rows_per_tile=rows_per_tile, workers=1,
            )  # fmt: skip
            load(request, registry, store)
    return store.root


def bare(found: dict[str, pa.Table]) -> duckdb.DuckDBPyConnection:
    """Return one DuckDB with all rows, as one.stars and two.spots."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    for catalog, (name, rows) in zip(("one", "two"), found.items(), strict=True):
        connection.register("incoming", rows)
        connection.execute(f"CREATE SCHEMA {catalog}")
        connection.execute(f"CREATE TABLE {catalog}.{name} AS SELECT * FROM incoming")
        connection.unregister("incoming")
    return connection
