"""Changing a table that is there, beside loading it whole, in processes of their own (`load_once`).

*append_local* and *append_scattered* add one per cent of Object, all within a degree of one place or all over the sky.
*replace_tract* gives one of a hundred tracts of Object and SourceAssoc anew, in one transaction; `rewritten` is the share of the
parts of Object that are not those of the snapshot before. `share_of_wall` and `share_of_cpu` are of the load of everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.conftest import ROWS, Bench
from bench.datagen import CATALOG, Recipe, Stars, arrow_schemas, make_chunk, make_schema, read_dp1, read_stars, to_arrow
from bench.loads import fresh_folder, load_once
from qengine.opening import open_store

TRACTS = 100
SHARE = 100
"""One row of so many is appended."""

Figures = dict[str, float]


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Iterator[tuple[Path, Figures]]:
    """A store with Object, for appends, and what loading it took."""
    with fresh_folder(bench.store.root.parent / "change") as out:
        yield out, load_once("qengine", out, {"Object": [bench.inputs / "Object"]}, schema=bench.inputs / "schema.yaml")


def _report(benchmark: Any, figures: Figures, **more: float) -> None:
    benchmark.extra_info.update(figures, **more)
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)


@pytest.mark.parametrize("where", ["local", "scattered"])
def test_append(benchmark: Any, where: str, bench: Bench, whole: tuple[Path, Figures], tmp_path: Path) -> None:
    benchmark.group = f"append_{where}"
    out, full = whole
    _write_more(where, tmp_path / f"{where}.parquet")
    figures = load_once("qengine", out, {"Object": [tmp_path]}, schema=bench.inputs / "schema.yaml")
    _report(
        benchmark, figures, full_wall_s=full["wall_s"], full_cpu_s=full["cpu_s"],
        share_of_wall=figures["wall_s"] / full["wall_s"], share_of_cpu=figures["cpu_s"] / full["cpu_s"],
    )  # fmt: skip


def _write_more(where: str, path: Path) -> None:
    """Write one per cent of Object with numbers that no object has."""
    # The seeds are of their own, and the numbers of rows follow those of the table.
    chunk = -(-ROWS // 1_000_000) + (where == "local")
    recipe = Recipe(rows=(chunk + 1) * 1_000_000, seed=7 + (where == "local"))
    stars = read_stars()
    if where == "local":
        near = stars.field[stars.field @ stars.field[0] > np.cos(np.radians(1.0))]
        stars = Stars(near, near)
    layout = arrow_schemas(make_schema(read_dp1()))["Object"]
    rows = to_arrow(make_chunk(recipe, chunk, stars)["Object"], layout)
    wanted = ROWS // SHARE
    assert wanted <= rows.num_rows, "an append of more than one chunk is not made"
    pq.write_table(rows.slice(0, wanted), path)


@pytest.fixture(scope="module")
def tracts(bench: Bench) -> Iterator[Path]:
    """Folders Object and SourceAssoc with a file for each of a hundred neighbouring fields with as many rows each."""
    with fresh_folder(bench.store.root.parent / "tracts") as out:
        with duckdb.connect(config={"threads": 2, "memory_limit": "4GB", "temp_directory": str(out / "temp")}) as connection:
            connection.execute(
                f"CREATE TABLE field AS SELECT objectId, ntile({TRACTS}) OVER (ORDER BY tract, patch) - 1 AS number "
                f"FROM read_parquet('{bench.inputs}/Object/*.parquet')"
            )
            for name in ("Object", "SourceAssoc"):
                connection.execute(
                    "COPY (SELECT t.*, f.number "
                    f"FROM read_parquet('{bench.inputs}/{name}/*.parquet') t JOIN field f USING (objectId)) "
                    f"TO '{out}/{name}' (FORMAT parquet, PARTITION_BY (number), FILENAME_PATTERN 'tract')"
                )
        yield out


def test_replace_one_tract(benchmark: Any, bench: Bench, tracts: Path) -> None:
    benchmark.group = "replace_tract"
    schema = bench.inputs / "schema.yaml"
    names = ("Object", "SourceAssoc")
    with fresh_folder(bench.store.root.parent / "replace") as out:
        files = {name: sorted((tracts / name).glob("*/*.parquet")) for name in names}
        full = load_once("qengine", out, files, schema=schema)
        before = _parts(out)
        anew = {name: next(file for file in files[name] if file.parent.name == f"number={TRACTS // 2}") for name in names}
        for file in anew.values():
            _reprocess(file)
        figures = load_once("qengine", out, {name: [file] for name, file in anew.items()}, schema=schema)
        after = _parts(out)
    _report(
        benchmark, figures, full_wall_s=full["wall_s"], full_cpu_s=full["cpu_s"],
        share_of_wall=figures["wall_s"] / full["wall_s"], share_of_cpu=figures["cpu_s"] / full["cpu_s"],
        rewritten=len(after - before) / len(after),
    )  # fmt: skip


def _reprocess(file: Path) -> None:
    """Change all fluxes of a file, as a pipeline would."""
    rows = pq.read_table(file)
    name = "psfFlux" if "psfFlux" in rows.column_names else "r_psfFlux"
    at = rows.column_names.index(name)
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(np.asarray(rows.column(at)) * 1.01)), file)


def _parts(out: Path) -> set[str]:
    """Return the parts of Object, after a look whether it has all of its rows."""
    _, registry = open_store(out)
    with registry:
        found = registry.catalog().find(CATALOG, "Object")
        assert found is not None
        assert found.rows == ROWS
        return set(found.home.uri.to_pylist())
