"""Many rows out: batches through the client beside DuckDB's own, and how much memory the coordinator takes for it.

Nobody keeps the rows: a batch is counted and forgotten. The memory is that of a process of its own (`bench.export_sources`) which
writes Parquet; its workers are other processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.conftest import Bench, read_bytes
from qengine.client.local import LocalClient

ROWS = 10_000_000
STATEMENT = "SELECT {top}objectId, coord_ra, coord_dec, g_psfFlux, r_psfFlux FROM bench.Object{limit}"


def test_export(
    benchmark: Any, engine: str, clients: dict[str, LocalClient], bare: duckdb.DuckDBPyConnection, bench: Bench
) -> None:
    benchmark.group = "export"
    rows = min(ROWS, bench.tables["Object"].rows)
    is_all = rows == bench.tables["Object"].rows
    by_hand = STATEMENT.format(top="", limit="" if is_all else f" LIMIT {rows}")
    adql = STATEMENT.format(top="" if is_all else f"TOP {rows} ", limit="")

    def count() -> int:
        if engine == "bare":
            return sum(batch.num_rows for batch in bare.execute(by_hand).to_arrow_reader(65536))
        return sum(batch.num_rows for batch in clients[engine].query(adql).batches())

    assert count() == rows
    benchmark(count)
    benchmark.extra_info["rows_per_s"] = rows / benchmark.stats.stats.median
    if engine != "bare":
        benchmark.extra_info["read_mb"] = read_bytes(clients[engine], adql) / 1e6


@pytest.mark.parametrize("engine", ["workers"])
def test_memory(benchmark: Any, engine: str, bench: Bench, tmp_path: Path) -> None:
    benchmark.group = "export_memory"
    out = bench.store.root.parent / "export.parquet"  # on the disk of the data: temporary directories may be in memory
    command = [sys.executable, "-m", "bench.export_sources", str(bench.store.root), str(out)]

    def once() -> None:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        benchmark.extra_info.update(json.loads(done.stdout.splitlines()[-1]))

    try:
        benchmark.pedantic(once, rounds=1, iterations=1)
    finally:
        out.unlink(missing_ok=True)
    assert benchmark.extra_info["rows"] == bench.tables["SourceAssoc"].rows
