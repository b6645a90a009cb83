"""Object of Data Preview 2 with all of its 1,248 columns: loading it, and reading all columns of 1,500 rows.

The values are random, of the types of the public schema (PyPI lsst-sdm-schemas); numbers do not compress.
There is one row for every ten objects of the other suites (2e5 by default); the targets are stated for 2e6. `mb_per_core_s` counts
the bytes of the input files and the processor time of the load.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qengine
from bench.conftest import DATA, ROWS
from bench.loads import fresh_folder, load_once
from qengine.catalog.felis_schema import read_schema
from qengine.catalog.types import to_arrow

WIDE_ROWS = max(1000, ROWS // 10)
READ_ROWS = 1500
_FILE_ROWS = 50_000
_BASE = 4096


@pytest.fixture(scope="module")
def wide() -> Path:
    """A folder of Parquet files with random rows."""
    folder = DATA / f"wide-{WIDE_ROWS}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number, first in enumerate(range(0, WIDE_ROWS, _FILE_ROWS)):
            rows = _rows(np.random.default_rng(number), first, min(_FILE_ROWS, WIDE_ROWS - first))
            pq.write_table(rows, folder / f"{number:04d}.parquet", row_group_size=_FILE_ROWS // 2)
        (folder / "done").touch()
    return folder


def _rows(rng: np.random.Generator, first: int, rows: int) -> pa.Table:
    table = next(one for one in read_schema("dp2") if one.name == "Object")
    arrays = []
    for column in table.columns:
        kind = to_arrow(column.type)
        if column.name == "objectId":
            values: Any = np.arange(first, first + rows)
        elif column.name == "coord_ra":
            values = rng.uniform(50, 58, rows)
        elif column.name == "coord_dec":
            values = rng.uniform(-32, -24, rows)
        elif pa.types.is_boolean(kind):
            values = rng.random(rows) < 0.03
        elif pa.types.is_floating(kind):
            values = rng.standard_normal(rows)
        elif pa.types.is_integer(kind):
            values = rng.integers(0, 10_000, rows)
        else:
            values = np.array(["abcdef"[one] for one in rng.integers(0, 6, rows)])
        arrays.append(pa.array(values).cast(kind))
    return pa.table(arrays, names=[column.name for column in table.columns])


@pytest.fixture(scope="module")
def loaded(wide: Path) -> Iterator[tuple[Path, dict[str, float]]]:
    """A store with the table, and what its load took."""
    with fresh_folder(DATA / "wide-store") as out:
        yield out, load_once("qengine", out, {"Object": [wide]}, catalog="dp2", schema="dp2")


def test_load_wide(benchmark: Any, wide: Path, loaded: tuple[Path, dict[str, float]]) -> None:
    benchmark.group = "load_wide"
    size = sum(file.stat().st_size for file in wide.glob("*.parquet")) / 1e6
    _, figures = loaded
    benchmark.extra_info.update(figures, rows=WIDE_ROWS, mb=size, mb_per_core_s=size / figures["cpu_s"])
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)


@pytest.mark.parametrize("engine", ["qengine"])
def test_read_all_columns(benchmark: Any, engine: str, loaded: tuple[Path, dict[str, float]]) -> None:
    benchmark.group = "read_wide"
    out, _ = loaded
    radius = np.sqrt(READ_ROWS / WIDE_ROWS * 64 * np.cos(np.radians(28)) / np.pi)
    cone = f"CONTAINS(POINT(coord_ra, coord_dec), CIRCLE(54.0, -28.0, {radius})) = 1"
    with qengine.connect(out, workers=2) as client:
        rows = client.query(f"SELECT * FROM dp2.Object WHERE {cone}").to_arrow().num_rows
        benchmark(lambda: client.query(f"SELECT * FROM dp2.Object WHERE {cone}").to_arrow())
    benchmark.extra_info["rows"] = rows
