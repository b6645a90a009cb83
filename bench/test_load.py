"""Loading Object: rows a second of processor time, and the peak of memory, in a process of its own.

Targets at 2e7 rows: 400 thousand rows a second per core, under 4 GB. Bare DuckDB sorts the same files by their cell and writes
one file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.conftest import ROWS, Bench

LOAD = """
import json, pathlib, resource, sys
from qengine.app import open_store
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
store, registry = open_store(sys.argv[2], create=True)
with registry:
    inputs = pathlib.Path(sys.argv[1])
    load(LoadRequest(inputs=(inputs / "Object",), catalog="b", table="Object", schema=inputs / "schema.yaml"), registry, store)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""

SORT = """
import duckdb, json, resource, sys
with duckdb.connect(config={"threads": 2, "memory_limit": "3GB", "temp_directory": sys.argv[2] + "/temp"}) as c:
    c.execute("COPY (SELECT * FROM read_parquet('" + sys.argv[1] + "/Object/*.parquet') ORDER BY coord_dec // 1, coord_ra) TO '"
              + sys.argv[2] + "/sorted.parquet' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 65536)")
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""


def run(benchmark: Any, program: str, bench: Bench, out: Path) -> None:
    benchmark.group = "load"
    numbers = iter(range(100))

    def once() -> None:
        place = out / str(next(numbers))
        place.mkdir()
        command = [sys.executable, "-c", program, str(bench.inputs), str(place)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        benchmark.extra_info.update(figures, rows=ROWS, rows_per_cpu_s=ROWS / figures["cpu_s"])

    benchmark.pedantic(once, rounds=1, iterations=1)


def test_load_qengine(benchmark: Any, bench: Bench, tmp_path: Path) -> None:
    run(
        benchmark,
        LOAD.replace('sys.argv[1] + "/schema.yaml"', '__import__("pathlib").Path(sys.argv[1]) / "schema.yaml"'),
        bench,
        tmp_path,
    )


def test_load_bare(benchmark: Any, bench: Bench, tmp_path: Path) -> None:
    run(benchmark, SORT, bench, tmp_path)
