"""Loading Object: rows a second of processor time, and the peak of memory, in a process of its own (`load_once`).

Targets at 2e7 rows: 400 thousand rows a second per core, under 4 GB.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import ROWS, Bench


@pytest.mark.parametrize("engine", ["bare", "qengine"])
def test_load_object(benchmark: Any, engine: str, bench: Bench) -> None:
    benchmark.group = "load"
    out = bench.store.root.parent / f"load-{engine}"  # on the disk of the data: temporary directories may be in memory
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    program = "duckdb" if engine == "bare" else "qengine"
    command = [sys.executable, "-m", "bench.load_once", program, str(bench.inputs), str(out)]

    def once() -> None:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        figures = json.loads(done.stdout.splitlines()[-1])
        benchmark.extra_info.update(figures, rows=ROWS, rows_per_core_s=ROWS / figures["cpu_s"])

    try:
        benchmark.pedantic(once, rounds=1, iterations=1)
    finally:
        shutil.rmtree(out, ignore_errors=True)
