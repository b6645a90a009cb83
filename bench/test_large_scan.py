"""The narrow aggregate of `test_aggregate` over more rows than memory likes: 1e8, of few columns.

QENGINE_BENCH_SCAN_ROWS is their number. The store takes about 40 bytes a row below QENGINE_BENCH_DATA, and is made once, in some
minutes; the inputs go when it is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.conftest import DATA, Bench, Racing, bare_of
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.storage.keyindex import KeyReader

ROWS = int(float(os.environ.get("QENGINE_BENCH_SCAN_ROWS", "1e8")))
_CHUNK = 2_000_000
_FLUXES = ("g", "r", "i", "z")
_STATEMENT = "SELECT COUNT(*) AS n, AVG(g) AS a, MIN(r) AS b, MAX(i) AS c FROM big.stars WHERE z > 1"


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    root = DATA / f"scan-{ROWS}"
    root.mkdir(parents=True, exist_ok=True)
    store, registry = open_store(root / "store", create=True)
    with registry:
        if not any(t.table.schema == "big" for t in registry.catalog()):
            inputs = root / "inputs"
            _write(inputs)
            load(LoadRequest(inputs=(inputs,), catalog="big", table="stars", key="id", ra="ra", dec="dec"), registry, store)
            shutil.rmtree(inputs)
        tables = {t.table.name: t for t in registry.catalog() if t.table.schema == "big"}
        yield Bench(store, root, tables, KeyReader(store))


def _write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number, start in enumerate(range(0, ROWS, _CHUNK)):
        count = min(_CHUNK, ROWS - start)
        columns = {
            "id": np.arange(start, start + count),
            "ra": rng.uniform(0, 360, count),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, count))),
            **{name: rng.exponential(1, count).astype(np.float32) for name in _FLUXES},
        }
        pq.write_table(pa.table(columns), folder / f"{number:04}.parquet")


@pytest.fixture(scope="session")
def bare(bench: Bench) -> Iterator[duckdb.DuckDBPyConnection]:
    with bare_of(bench, "big") as connection:
        yield connection


def test_narrow_aggregate_of_many_rows(race: Racing) -> None:
    race("aggregate_narrow_1e8", _STATEMENT, _STATEMENT)
