"""Loading whole tables: rows a second of processor time and core, and the peak of memory, in processes of their own (`load_once`).

*load* is Object beside bare DuckDB that only sorts; *load_children* is ForcedSource, five rows for each object, into a store that
has the objects; *load_hats* is Object with the margin that hats-import gets in the same run, on half the rows. hats-import is
measured if QENGINE_BENCH_HATS_IMPORT says where it is (`load_once`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import ROWS, Bench
from bench.datagen import Recipe, generate
from bench.loads import fresh_folder, load_once

HATS_MARGIN_ARCSEC = 10.0
FORCED_PER_OBJECT = 5


def _measured(benchmark: Any, run: Callable[[], dict[str, float]], rows: int) -> None:
    def once() -> None:
        figures = run()
        benchmark.extra_info.update(figures, rows=rows, rows_per_core_s=rows / figures["cpu_s"])

    benchmark.pedantic(once, rounds=1, iterations=1)


def _place(bench: Bench, name: str) -> Path:
    return bench.store.root.parent / name


@pytest.mark.parametrize("engine", ["bare", "qengine"])
def test_load_object(benchmark: Any, engine: str, bench: Bench) -> None:
    benchmark.group = "load"
    program = "duckdb" if engine == "bare" else "qengine"
    tables = {"Object": [bench.inputs / "Object"]}
    with fresh_folder(_place(bench, f"load-{engine}")) as out:
        _measured(benchmark, lambda: load_once(program, out, tables, schema=bench.inputs / "schema.yaml"), ROWS)


def test_load_children(benchmark: Any, bench: Bench) -> None:
    benchmark.group = "load_children"
    schema = bench.inputs / "schema.yaml"
    forced = _place(bench, f"forced-{FORCED_PER_OBJECT}")
    if not (forced / "done").exists():
        generate(Recipe(rows=ROWS, forced_per_object=FORCED_PER_OBJECT), forced, tables=("ForcedSource",))
        (forced / "done").touch()
    with fresh_folder(_place(bench, "load-children")) as out:
        load_once("qengine", out, {"Object": [bench.inputs / "Object"]}, schema=schema)
        _measured(
            benchmark,
            lambda: load_once("qengine", out, {"ForcedSource": [forced / "ForcedSource"]}, schema=schema),
            ROWS * FORCED_PER_OBJECT,
        )


@pytest.mark.parametrize("engine", ["bare", "qengine"])
def test_load_beside_hats_import(benchmark: Any, engine: str, bench: Bench, tmp_path: Path) -> None:
    benchmark.group = "load_hats"
    if engine == "bare" and not os.environ.get("QENGINE_BENCH_HATS_IMPORT"):
        pytest.skip("QENGINE_BENCH_HATS_IMPORT does not name a folder with hats-import")
    files = sorted((bench.inputs / "Object").glob("*.parquet"))
    half = files[: max(1, len(files) // 2)]
    few = tmp_path / "half"
    few.mkdir()
    for file in half:
        (few / file.name).symlink_to(file)
    rows = ROWS * len(half) // len(files)
    words = {"ra": "coord_ra", "dec": "coord_dec", "margin_arcsec": HATS_MARGIN_ARCSEC}
    request = {"margin_arcsec": HATS_MARGIN_ARCSEC, "rows_per_tile": 1_000_000}
    with fresh_folder(_place(bench, f"load-hats-{engine}")) as out:
        program = "hats-import" if engine == "bare" else "qengine"
        schema = bench.inputs / "schema.yaml"
        _measured(benchmark, lambda: load_once(program, out, {"Object": [few]}, schema=schema, request=request, **words), rows)
