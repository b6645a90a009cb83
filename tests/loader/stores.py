"""Small stores for loader tests: inputs with every difficulty of the sky, and a reader of what was stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import Parts, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadReport, LoadRequest
from qengine.storage.objects import Store


class Site:
    """A store with its registry (in the store, or at `url`), and a folder for inputs."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        self.url = url
        self.inputs = root / "in"
        self.inputs.mkdir(parents=True)
        self.store = Store(root / "store")
        self.registry = Registry.open(self.store.root, url=url)

    def write(self, name: str, columns: dict[str, Any] | pa.Table) -> Path:
        path = self.inputs / name
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
        return path

    def load(self, inputs: Path | Sequence[Path], **words: Any) -> LoadReport:
        paths = (inputs,) if isinstance(inputs, Path) else tuple(inputs)
        words = {"catalog": "demo", "table": "obj", "rows_per_tile": 50, **words}
        return load(LoadRequest(inputs=paths, **words), self.registry, self.store)

    def snapshot(self, table: str = "obj") -> TableSnapshot:
        found = self.registry.catalog().find("demo", table)
        assert found is not None
        return found

    def read(self, parts: Parts) -> pa.Table:
        tables = [pq.read_table(self.store.path(uri)) for uri in parts.uri.to_pylist()]
        return pa.concat_tables(table.replace_schema_metadata(None) for table in tables)

    def read_one(self, uri: str) -> pa.Table:
        return pq.read_table(self.store.path(uri))

    def files(self) -> set[str]:
        return {
            p.relative_to(self.store.root).as_posix() for p in self.store.root.rglob("*") if p.is_file() and "sqlite" not in p.name
        }


def sky(rows: int = 2000, *, seed: int = 1) -> dict[str, Any]:
    """Return a director's columns: uniform and clustered stars, poles, RA 0/360, tile corners, equal positions; no bad rows."""
    rng = np.random.default_rng(seed)
    ra = rng.uniform(0, 360, rows)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    half = rows // 2
    ra[:half] = np.mod(rng.normal(0, 0.01, half), 360)
    dec[:half] = rng.normal(41.8103149, 0.01, half)
    special = np.array(
        [(0, 90), (359.9999999999, 90), (12, -90), (0, 0), (np.nextafter(360, 0), 0), (45, 0), (90, 0), (0, 0), (180, -90)]
    )
    ra = np.concatenate([ra, special[:, 0]])
    dec = np.clip(np.concatenate([dec, special[:, 1]]), -90, 90)
    count = len(ra)
    return {
        "id": rng.permutation(count) * 7,
        "ra": ra,
        "dec": dec,
        "mag": rng.integers(10, 25, count).astype(np.float32),
        "name": [f"star {i}" if i % 5 else None for i in range(count)],
    }
